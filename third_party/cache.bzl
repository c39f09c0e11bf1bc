"""Repositories whose files tools/setup puts into the cache directory, outside the source tree."""

def _cache_root(ctx):
    env = ctx.os.environ
    if env.get("VMM_CACHE"):
        return env["VMM_CACHE"]
    if env.get("XDG_CACHE_HOME"):
        return env["XDG_CACHE_HOME"] + "/vmm"
    return env.get("HOME", "/root") + "/.cache/vmm"

def _cached_repository_impl(ctx):
    directory = ctx.path(_cache_root(ctx) + "/" + ctx.attr.path)
    if not directory.exists:
        fail("{} is missing: run tools/setup first".format(directory))
    for entry in directory.realpath.readdir():
        ctx.symlink(entry, entry.basename)
    ctx.symlink(ctx.attr.build_file, "BUILD.bazel")

cached_repository = repository_rule(
    implementation = _cached_repository_impl,
    attrs = {
        "path": attr.string(mandatory = True, doc = "Directory below the cache directory."),
        "build_file": attr.label(mandatory = True),
    },
    environ = ["VMM_CACHE", "XDG_CACHE_HOME", "HOME"],
    local = True,
)
