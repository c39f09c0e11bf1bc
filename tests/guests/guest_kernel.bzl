"""A freestanding guest: one source on the runtime, linked to a multiboot image that our TEST machine and QEMU start.

Not cc_binary: the options that all the rest is built with (position independence, sanitizers, fortification) are wrong for code
without a system below it, and Bazel has no way to take them off. The compiler is the one of the build's configuration.
"""

# No floating point and no vector registers: handlers do not save them. What uses XMM does so in assembly, on purpose.
_FLAGS = " ".join([
    "-std=c++20 -O2 -g1 -Wall -Wextra -Werror",
    "-ffreestanding -fno-exceptions -fno-rtti -fno-threadsafe-statics -fno-stack-protector",
    "-fno-pic -fno-pie -mcmodel=small -mno-red-zone -mgeneral-regs-only -fcf-protection=none",
    "-fno-asynchronous-unwind-tables -I.",
])

_LINK = " ".join([
    "-nostdlib -static -fuse-ld=bfd -Wl,--build-id=none -Wl,-z,max-page-size=4096",
    "-Wl,-T,$(location //tests/guests/runtime:guest.lds)",
])

_CC = "@bazel_tools//tools/cpp:current_cc_toolchain"

def _headers_impl(ctx):
    return [DefaultInfo(files = depset(transitive = [
        dep[CcInfo].compilation_context.headers
        for dep in ctx.attr.deps
    ]))]

# The headers of libraries, and of those that they depend on: a guest shares numbers with the devices, and no code.
_headers = rule(implementation = _headers_impl, attrs = {"deps": attr.label_list(providers = [CcInfo])})

def guest_objects(name, srcs, hdrs):
    """Compiles and links `srcs` to one relocatable object, name.o."""
    native.genrule(
        name = name,
        srcs = srcs + hdrs,
        outs = [name + ".o"],
        cmd = "objects=; for source in %s; do object=$(RULEDIR)/%s.$$(basename $$source).o; " % (
                  " ".join(["$(location %s)" % src for src in srcs]),
                  name,
              ) + "if [[ $$source == *.S ]]; then $(CC) -c $$source -o $$object; " +
              "else $(CC) " + _FLAGS + " -c $$source -o $$object; fi; objects=\"$$objects $$object\"; done; " +
              "ld -r -o $@ $$objects; rm $$objects",
        toolchains = [_CC],
        visibility = ["//tests/guests:__subpackages__"],
    )

def guest_kernel(name, srcs = None, hdrs = [], deps = []):
    """The image name.elf, and name.elf64 with symbols for a debugger.

    Args:
      srcs: by default name.cc.
      hdrs: further headers of its own.
      deps: libraries whose headers it includes (and that consist of headers): layouts that it shares with the devices.
    """
    _headers(name = name + "_headers", deps = deps)
    guest_objects(
        name = name + "_objects",
        srcs = srcs or [name + ".cc"],
        hdrs = hdrs + [
            name + "_headers",
            "//tests/guests/runtime:headers",
        ],
    )
    native.genrule(
        name = name,
        srcs = [
            name + "_objects.o",
            "//tests/guests/runtime:runtime.o",
            "//tests/guests/runtime:guest.lds",
        ],
        outs = [
            name + ".elf64",
            name + ".elf",
        ],
        # 64-bit code in a 32-bit file: multiboot loaders take no other.
        cmd = "$(CC) " + _LINK + " -o $(RULEDIR)/{name}.elf64 $(location //tests/guests/runtime:runtime.o) ".format(name = name) +
              "$(location {name}_objects.o) && objcopy -S -O elf32-i386 $(RULEDIR)/{name}.elf64 $(RULEDIR)/{name}.elf".format(name = name),
        toolchains = [_CC],
        visibility = ["//tests:__subpackages__", "//bench:__subpackages__"],
    )
