#!/usr/bin/env python3
"""Types a file's lines at a guest's shell prompt, one each time the prompt appears, and shows what comes back.

usage: type_script.py FILE COMMAND...

Ends with the command, and with its status. A script that does not end its guest is followed by `poweroff`. A prompt that
does not come within TYPE_TIMEOUT seconds (default 600) ends the command, with status 124.
"""
import os
import select
import signal
import subprocess
import sys
import time

PROMPT = b"guest# "


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    with open(arguments[0], "rb") as script:
        lines = [line.rstrip(b"\n") for line in script if line.strip() and not line.startswith(b"#")]
    if not lines or lines[-1].split()[0] not in (b"poweroff", b"reboot"):
        lines.append(b"poweroff")
    limit = float(os.environ.get("TYPE_TIMEOUT", "600"))
    child = subprocess.Popen(arguments[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda received, _: child.send_signal(received))
    pending = b""
    deadline = time.monotonic() + limit
    while True:
        ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
        if not ready:
            sys.stderr.write(f"\ntype_script: no prompt within {limit:.0f} s\n")
            child.terminate()
            child.wait()
            return 124
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            break
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        pending = (pending + data)[-4096:]
        if PROMPT in pending:
            pending = b""
            deadline = time.monotonic() + limit
            if lines:
                try:
                    child.stdin.write(lines.pop(0) + b"\n")
                except BrokenPipeError:
                    pass
    status = child.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
