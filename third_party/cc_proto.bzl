"""cc_proto: C++ from one .proto file with the system's protoc (Debian's Bazel carries no protobuf rules of its own)."""

def cc_proto(name, src, visibility = None):
    """Makes a cc_library NAME and a descriptor set NAME_descriptors (with comments) from SRC."""
    base = src[:-len(".proto")]
    native.genrule(
        name = name + "_cc",
        srcs = [src],
        outs = [base + ".pb.h", base + ".pb.cc"],
        cmd = "protoc -I. --cpp_out=$(GENDIR) $(SRCS)",
    )
    native.genrule(
        name = name + "_descriptors",
        srcs = [src],
        outs = [base + ".descriptors.bin"],
        cmd = "protoc -I. --include_source_info --descriptor_set_out=$@ $(SRCS)",
        visibility = visibility,
    )
    native.cc_library(
        name = name,
        srcs = [base + ".pb.cc"],
        hdrs = [base + ".pb.h"],
        copts = ["-w"],  # generated
        visibility = visibility,
        deps = ["//third_party:protobuf"],
    )
