#!/usr/bin/env python3
"""Writes an initramfs (cpio, "newc") from a list of entries, without root and the same bytes every time.

usage: make_initramfs.py OUTPUT ENTRY...
  dir:PATH[:MODE]            a folder
  file:PATH:MODE:SOURCE      a file
  link:PATH:TARGET           a symbolic link
  char:PATH:MODE:MAJOR:MINOR a character device
"""
import stat
import sys


def entry(out, name, mode, data=b"", rdev=(0, 0), ino=[0]):
    ino[0] += 1
    name_bytes = name.encode() + b"\0"
    # magic, then 13 fields: ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
    fields = (ino[0], mode, 0, 0, 1, 0, len(data), 0, 0, rdev[0], rdev[1], len(name_bytes), 0)
    out.write(b"070701" + b"".join(b"%08X" % field for field in fields))
    out.write(name_bytes)
    out.write(b"\0" * (-(110 + len(name_bytes)) % 4))
    out.write(data)
    out.write(b"\0" * (-len(data) % 4))


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    with open(arguments[0], "wb") as out:
        for argument in arguments[1:]:
            kind, path, *rest = argument.split(":")
            name = path.lstrip("/")
            if kind == "dir":
                entry(out, name, stat.S_IFDIR | int(rest[0] if rest else "755", 8))
            elif kind == "file":
                with open(rest[1], "rb") as source:
                    entry(out, name, stat.S_IFREG | int(rest[0], 8), source.read())
            elif kind == "link":
                entry(out, name, stat.S_IFLNK | 0o777, rest[0].encode())
            elif kind == "char":
                entry(out, name, stat.S_IFCHR | int(rest[0], 8), rdev=(int(rest[1]), int(rest[2])))
            else:
                sys.exit(f"make_initramfs: unknown entry '{argument}'")
        entry(out, "TRAILER!!!", 0)


if __name__ == "__main__":
    main(sys.argv[1:])
