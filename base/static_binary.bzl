"""A program that an empty root is enough for."""

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
