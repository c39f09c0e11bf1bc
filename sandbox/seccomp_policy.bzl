"""seccomp_policy: a policy file (sandbox/policy_compiler.h says how it is written), compiled into a cc_library."""

def seccomp_policy(name, src, includes = [], visibility = None, **kwargs):
    """Makes a cc_library NAME whose header NAME.h has `extern const vmm::SeccompPolicy kName`.

    Args:
      name: with underscores; `serial_policy` gives `kSerialPolicy`.
      src: the policy file.
      includes: labels of the files that it includes, found by their base name.
    """
    native.genrule(
        name = name + "_cc",
        srcs = [src] + includes,
        outs = [name + ".h", name + ".cc"],
        cmd = " ".join([
            "$(execpath //sandbox:policy_compiler)",
            name,
            "$(location " + name + ".h)",
            "$(location " + name + ".cc)",
            native.package_name() + "/" + name + ".h",
            "$(location " + src + ")",
        ] + ["$(location " + include + ")" for include in includes]),
        tools = ["//sandbox:policy_compiler"],
        **kwargs
    )
    native.cc_library(
        name = name,
        srcs = [name + ".cc"],
        hdrs = [name + ".h"],
        visibility = visibility,
        deps = ["//sandbox:seccomp_policy"],
        **kwargs
    )
