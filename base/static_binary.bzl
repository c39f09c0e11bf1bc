"""A program that an empty root is enough for, and what sanitizer builds have in its place."""

# Sanitizer builds are dynamic, and their runtimes start threads: the sandbox then waives what such a program cannot have. For local_defines.
DYNAMIC_LINK_DEFINE = select({
    "//base:dynamic_link": ["VMM_DYNAMIC_LINK"],
    "//conditions:default": [],
})

def static_binary(name, linkopts = [], **kwargs):
    """A static-pie, as the product is. Sanitizer builds are dynamic: their runtimes cannot be linked statically."""
    native.cc_binary(
        name = name,
        features = ["-supports_start_end_lib"],  # gold's, which Bazel picks and which cannot make a static-pie
        linkopts = linkopts + select({
            "//base:dynamic_link": [],
            "//conditions:default": [
                "-static-pie",
                "-fuse-ld=bfd",
            ],
        }),
        **kwargs
    )
