"""Fuzz targets of this room, one to a package."""

def fuzz_target(name, deps):
    """Of NAME.cc; NAME_replay_test cuts and changes what fuzz_corpus/ holds, in every build.

    bazel build --config=fuzz :NAME, then run it on a copy of fuzz_corpus.
    """
    native.cc_library(
        name = name + "_input",
        testonly = True,
        srcs = [name + ".cc"],
        alwayslink = True,
        deps = deps,
    )
    native.cc_binary(
        name = name,
        testonly = True,
        tags = [
            "fuzz",
            "manual",
        ],
        deps = [":" + name + "_input"],
    )
    native.filegroup(
        name = "fuzz_corpus",
        srcs = native.glob(["fuzz_corpus/*"]),
    )
    native.cc_test(
        name = name + "_replay_test",
        size = "small",
        srcs = ["//devices/virtio:fuzz_replay_test.cc"],
        args = ["$(locations :fuzz_corpus)"],
        data = [":fuzz_corpus"],
        deps = [
            ":" + name + "_input",
            "//base:fuzz_replay",
            "//third_party:gtest",
        ],
    )
