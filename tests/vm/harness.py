"""Starts vmm with a guest and talks to its console, as a person at a terminal would, or through pipes.

One Vm is one machine. wait_for reads the console until a text appears; every wait has a limit, generous because the lab is
slow, so that nothing hangs and nothing is timed.
"""
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

VMM = os.environ["VMM_BINARY"]
GUEST = os.environ["VMM_GUEST"]  # the folder that examples/linux makes
PROMPT = "guest# "
LIMIT = float(os.environ.get("VMM_TEST_LIMIT", "180"))


class Vm:
    """vmm run with the example's configuration and further flags."""

    def __init__(self, *flags, terminal=False, config=None, check=True, command=None, prefix=(), pass_fds=()):
        config = config or os.path.join(GUEST, "vm.textproto")
        command = command or [*prefix, VMM, "run", "--config", config, *flags]  # or another monitor, whose console is its output
        self.text = ""
        self.seen = 0
        self.commands = 0
        self.errors = ""
        self.terminal = terminal
        if terminal:
            self.master, slave = pty.openpty()
            self.slave = slave
            self.modes = termios.tcgetattr(slave)
            self.process = subprocess.Popen(
                command, stdin=slave, stdout=slave, stderr=subprocess.PIPE, start_new_session=True,
                preexec_fn=lambda: __import__("fcntl").ioctl(0, termios.TIOCSCTTY, 0))
            self.output, self.input = self.master, self.master
        else:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=subprocess.PIPE, start_new_session=True, pass_fds=pass_fds)
            self.output, self.input = self.process.stdout.fileno(), self.process.stdin.fileno()
        self.error_fd = self.process.stderr.fileno()
        os.set_blocking(self.error_fd, False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    pass
        if self.terminal:
            os.close(self.master)
            os.close(self.slave)

    def _pump(self, limit):
        """Reads what there is; False at the end of the console."""
        ready, _, _ = select.select([self.output, self.error_fd], [], [], limit)
        if self.error_fd in ready:
            data = os.read(self.error_fd, 65536)
            self.errors += data.decode(errors="replace")
            if not data and ready == [self.error_fd]:
                time.sleep(0.05)
        if self.output in ready:
            try:
                data = os.read(self.output, 65536)
            except OSError:  # a pty whose other end is closed
                return False
            if not data:
                return False
            self.text += data.decode(errors="replace")
            if os.environ.get("VMM_TEST_VERBOSE"):
                sys.stderr.write(data.decode(errors="replace"))
        return True

    def wait_for(self, pattern, limit=None):
        """The match of `pattern` in what the console said since the last wait."""
        deadline = time.monotonic() + (limit or LIMIT)
        while True:
            match = re.search(pattern, self.text[self.seen:])
            if match:
                self.seen += match.end()
                return match
            left = deadline - time.monotonic()
            if left <= 0 or not self._pump(min(left, 1)):
                tail = self.text[-1500:]
                raise AssertionError(f"no {pattern!r} on the console; it ends with:\n{tail}\n--- errors:\n{self.errors}")
            if self.process.poll() is not None and not self.terminal:
                while self._pump(0.2):
                    pass

    def wait_for_log(self, text, times=1, limit=None):
        """Until the monitor's log has `text`, so many times."""
        deadline = time.monotonic() + (limit or LIMIT)
        while self.errors.count(text) < times:
            ended = self.process.poll()
            self._pump(0.2)
            if (ended is not None or time.monotonic() > deadline) and self.errors.count(text) < times:
                raise AssertionError(f"no {text!r} in the log (status {ended}):\n{self.errors}")

    def type(self, line):
        os.write(self.input, line.encode() + b"\n")

    def run(self, line):
        """Types a command at the prompt; returns what it printed.

        Marks are printed around it, and typed in two pieces, so that the echo of the typing (which the shell wraps as it
        likes) is not taken for them."""
        self.commands += 1
        n = self.commands
        self.type(f'echo "@""{n}["; {line}; echo "]""{n}@"')
        match = self.wait_for(rf"@{n}\[\r?\n((?s:.*?))\]{n}@")
        self.wait_for(re.escape(PROMPT))
        return match.group(1).replace("\r", "").strip("\n")

    def boot(self):
        self.wait_for(re.escape(PROMPT))
        return self

    def end(self, limit=60):
        """Waits for the end; returns the exit status as a shell would show it."""
        deadline = time.monotonic() + limit
        while self.process.poll() is None:
            if time.monotonic() > deadline:
                raise AssertionError(f"vmm did not end within {limit} s; console ends with:\n{self.text[-800:]}")
            if not self._pump(0.1):
                time.sleep(0.05)
        while True:
            try:
                data = os.read(self.error_fd, 65536)
            except BlockingIOError:
                break
            if not data:
                break
            self.errors += data.decode(errors="replace")
        status = self.process.returncode
        return status if status >= 0 else 128 - status

    def children(self):
        """Process ids of the device processes."""
        return children_of(self.process.pid)

    def device(self, name):
        """Process id of the device process of this name."""
        for pid in self.children():
            if name_of(pid) == name:
                return pid
        raise AssertionError(f"no process {name}; the log:\n{self.errors}")

    def kill(self, number=signal.SIGKILL):
        self.process.send_signal(number)


def name_of(pid):
    try:
        with open(f"/proc/{pid}/comm") as comm:
            return comm.read().strip()
    except OSError:
        return None


def children_of(pid):
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                found.append(int(entry))
    return found


def initramfs_with(folder, programs):
    """The example's initramfs and further programs, {path in the guest: file}; the kernel unpacks one archive behind the other."""
    path = os.path.join(folder, "initramfs.cpio")
    maker = os.path.join(os.path.dirname(__file__), "..", "..", "examples", "linux", "make_initramfs.py")
    subprocess.run([sys.executable, maker, path + ".more", *(f"file:{where}:755:{file}" for where, file in programs.items())], check=True)
    with open(path, "wb") as out:
        for part in (os.path.join(GUEST, "initramfs.cpio"), path + ".more"):
            with open(part, "rb") as source:
                out.write(source.read())
            out.write(b"\0" * (-out.tell() % 512))
    return path


def private_kib(pid):
    """Private memory of a process in KiB, guest RAM not counted."""
    total = 0
    counted = True
    with open(f"/proc/{pid}/smaps") as smaps:
        for line in smaps:
            if re.match(r"[0-9a-f]+-[0-9a-f]+ ", line):
                counted = "guest-ram" not in line
            elif counted and re.match(r"Private_(Clean|Dirty|Hugetlb):", line):
                total += int(line.split()[1])
    return total


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False
