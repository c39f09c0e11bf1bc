#!/usr/bin/env python3
"""lab/run behaves as if the command ran here. One case for each behaviour; each boots at least one lab.

    lab/run_test.py [--kernel small] [RunTest.test_name]...
"""

import fcntl
import hashlib
import os
import pty
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import termios
import threading
import time
import unittest

LAB = os.path.dirname(os.path.abspath(__file__))
RUN = os.path.join(LAB, "run")
LIMIT_S = 180  # for one lab on a busy machine


def lab(*arguments, **options):
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    options.setdefault("timeout", LIMIT_S)
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([RUN, *arguments], **options)


def children(pid):
    """Of the whole process, not of one thread."""
    with open("/proc/%d/task/%d/children" % (pid, pid)) as file:
        return [int(word) for word in file.read().split()]


def gone(pid):
    try:
        with open("/proc/%d/stat" % pid) as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def wait_until(condition):
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


class RunTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lab test, ")  # a name that needs quoting everywhere
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)

    def start(self, *arguments, **options):
        options.setdefault("stdin", subprocess.DEVNULL)
        process = subprocess.Popen([RUN, *arguments], stdout=subprocess.PIPE, **options)

        def end():
            process.kill()
            process.wait()
            process.stdout.close()

        self.addCleanup(end)
        return process

    def test_streams_are_separate_and_binary_clean(self):
        data = os.urandom(1 << 20)
        done = lab("--", "sh", "-c", "tee /dev/stderr | cat", input=data)
        self.assertEqual(done.returncode, 0)
        self.assertEqual(hashlib.sha256(done.stdout).hexdigest(), hashlib.sha256(data).hexdigest())
        self.assertEqual(hashlib.sha256(done.stderr).hexdigest(), hashlib.sha256(data).hexdigest())

    def test_exit_status_comes_back_and_labs_run_side_by_side(self):
        cases = {0: ["true"], 1: ["false"], 77: ["sh", "-c", "exit 77"], 127: ["/no such command"], 126: ["/etc"]}
        found = {}

        def one(status, command):
            found[status] = lab("--", *command).returncode

        threads = [threading.Thread(target=one, args=case) for case in cases.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, {status: status for status in cases})

    def test_death_by_signal_comes_back(self):
        self.assertEqual(lab("--", "sh", "-c", "kill -SEGV $$").returncode, -signal.SIGSEGV)

    def test_time_limit_is_a_sigterm_first(self):
        # Long enough for the shell to set its trap on a busy machine.
        began = time.monotonic()
        done = lab("--timeout", "5", "--", "sh", "-c", "trap 'echo over; exit 0' TERM; while :; do sleep 0.05; done")
        self.assertEqual((done.returncode, done.stdout), (124, b"over\n"))
        self.assertLess(time.monotonic() - began, LIMIT_S)

    def test_time_limit_is_a_sigkill_then(self):
        self.assertEqual(lab("--timeout", "3", "--", "sh", "-c", "trap '' TERM; echo up; while :; do :; done").returncode, 124)

    def test_signals_reach_the_command(self):
        process = self.start("--", "sh", "-c",
                             "trap 'echo one' USR1; trap 'echo end; exit 3' TERM; echo up; while :; do sleep 0.05; done")
        for number, line in ((None, b"up\n"), (signal.SIGUSR1, b"one\n"), (signal.SIGTERM, b"end\n")):
            if number is not None:
                process.send_signal(number)
            self.assertEqual(process.stdout.readline(), line)
        self.assertEqual(process.wait(LIMIT_S), 3)

    def test_signal_during_start_up_ends_it(self):
        process = self.start("--", "true")
        wait_until(lambda: children(process.pid))
        emulator = children(process.pid)
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(LIMIT_S), -signal.SIGTERM)
        self.assertTrue(all(gone(pid) for pid in emulator))

    def test_sigkill_leaves_nothing_behind(self):
        process = self.start("--", "sh", "-c", "echo up; sleep 1000", env=dict(os.environ, TMPDIR=self.folder))
        self.assertEqual(process.stdout.readline(), b"up\n")
        emulator = children(process.pid)
        self.assertEqual(len(emulator), 1)
        process.kill()
        process.wait()
        self.assertTrue(wait_until(lambda: gone(emulator[0])))
        self.assertEqual(os.listdir(self.folder), [])

    def test_out_folder_comes_back(self):
        out = os.path.join(self.folder, "a", "out=1,b")
        program = """if True:
            import mmap, os, sys
            os.chdir(sys.argv[1])
            os.mkdir("d"); os.symlink("d", "link")
            open("d/big", "wb").write(bytes(range(256)) * 8192)
            with open("mapped", "w+b") as file:
                file.truncate(8192)
                mmap.mmap(file.fileno(), 8192)[4096:4101] = b"hello"
            os.chmod("mapped", 0o640)
        """
        done = lab("--out", out, "--", "/usr/bin/python3", "-c", program, out)
        self.assertEqual((done.returncode, done.stderr), (0, b""))
        self.assertEqual(sorted(os.listdir(out)), ["d", "link", "mapped"])
        self.assertEqual(os.readlink(os.path.join(out, "link")), "d")
        with open(os.path.join(out, "d", "big"), "rb") as file:
            self.assertEqual(file.read(), bytes(range(256)) * 8192)
        with open(os.path.join(out, "mapped"), "rb") as file:
            self.assertEqual(file.read(), bytes(4096) + b"hello" + bytes(4091))
        self.assertEqual(os.stat(os.path.join(out, "mapped")).st_mode & 0o777, 0o640)

    def test_other_files_are_seen_but_changes_are_forgotten(self):
        with open(os.path.join(self.folder, "file"), "w") as file:
            file.write("here")
        done = lab("--", "sh", "-c", "cat file; echo there >file; cat file; mkdir new; rm -r new; rm file", cwd=self.folder)
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"herethere\n", b""))
        with open(os.path.join(self.folder, "file")) as file:
            self.assertEqual(file.read(), "here")

    def test_arguments_directory_environment_umask_and_user_are_ours(self):
        program = ("import os,sys; sys.stdout.buffer.write(b'|'.join([os.getcwdb(), os.environb[b'ODD'], os.fsencode(sys.argv[1]),"
                   " b'%o' % os.umask(0), b'%d %d' % (os.getuid(), os.getgid())]))")
        argument = b"a\n\xff'\" $HOME \\"
        done = lab("--", "/usr/bin/python3", "-c", program, argument, cwd=self.folder,
                   env=dict(os.environb) | {b"ODD": b"x\n=\xfe"}, umask=0o027)
        expected = [os.fsencode(self.folder), b"x\n=\xfe", argument, b"27", b"%d %d" % (os.getuid(), os.getgid())]
        self.assertEqual((done.stdout, done.stderr), (b"|".join(expected), b""))

    def test_kvm_is_real(self):
        # --needed asks the same of the lab's own KVM: API version and Hyper-V's SynIC.
        done = lab("--", RUN, "--needed")
        self.assertEqual((done.returncode, done.stdout, done.stderr), (1, b"", b""))

    def test_full_output_holds_the_command_up(self):
        process = self.start("--", "sh", "-c", "echo up; exec yes")
        self.assertEqual(process.stdout.readline(), b"up\n")
        time.sleep(2)  # not a wait for something: time for memory to grow, if it does
        with open("/proc/%d/status" % process.pid) as file:
            kib = next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
        self.assertLess(kib, 64 * 1024)
        process.stdout.close()
        self.assertEqual(process.wait(LIMIT_S), -signal.SIGPIPE)

    def test_feeder_learns_that_nobody_reads(self):
        process = self.start("--", "sh", "-c", "exec <&-; echo closed; sleep 1000", stdin=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"closed\n")
        with self.assertRaises(BrokenPipeError):
            deadline = time.monotonic() + LIMIT_S
            while time.monotonic() < deadline:
                os.write(process.stdin.fileno(), b"x" * 4096)

    def test_terminal(self):
        master, slave = pty.openpty()
        self.addCleanup(os.close, master)
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
        before = termios.tcgetattr(slave)
        command = ("stty size; test -t 0 && test -t 1 && test -t 2 && echo terminal; trap 'stty size' WINCH;"
                   " read line; echo \"<$line>\"; while :; do sleep 0.05; done")
        process = subprocess.Popen([RUN, "--", "sh", "-c", command], stdin=slave, stdout=slave, stderr=slave)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        seen = bytearray()

        def expect(text):
            deadline = time.monotonic() + LIMIT_S
            while text not in seen:
                self.assertLess(time.monotonic(), deadline, bytes(seen))
                if select.select([master], [], [], 1)[0]:
                    seen.extend(os.read(master, 4096))
            del seen[:seen.index(text) + len(text)]

        expect(b"33 101\r\nterminal\r\n")
        os.write(master, b"typed\r")
        expect(b"<typed>\r\n")
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 40, 0, 0))
        process.send_signal(signal.SIGWINCH)
        expect(b"20 40\r\n")
        os.write(master, b"\x03")
        self.assertEqual(process.wait(LIMIT_S), -signal.SIGINT)
        self.assertEqual(termios.tcgetattr(slave), before)
        os.close(slave)

    @unittest.skipUnless(os.getuid() == 0, "only root can become somebody else")
    def test_ordinary_user(self):
        somebody = 65534
        # The user's own cache, without a second download.
        ours = subprocess.run([RUN, "--cache"], stdout=subprocess.PIPE, check=True).stdout.decode().rstrip("\n")
        name = os.environ.get("LAB_KERNEL") or "stock"
        os.makedirs(os.path.join(self.folder, "cache", "lab"))
        for part in ("kernel-" + name, "qemu"):
            made = os.path.realpath(os.path.join(ours, "lab", part))
            shutil.copytree(made, os.path.join(self.folder, "cache", "lab", os.path.basename(made)))
            os.symlink(os.path.basename(made), os.path.join(self.folder, "cache", "lab", part))
        out = os.path.join(self.folder, "out")
        os.mkdir(out)
        for path in (self.folder, os.path.join(self.folder, "cache"), os.path.join(self.folder, "cache", "lab"), out):
            os.chown(path, somebody, somebody)
        done = lab("--out", out, "--", "sh", "-c", "id -u; id -g; : >>/dev/kvm && echo kvm; echo text >file; cat /etc/shadow",
                   cwd=out, user=somebody, group=somebody, extra_groups=[],
                   env=dict(os.environ, VMM_CACHE=os.path.join(self.folder, "cache"), TMPDIR=out))
        self.assertEqual(done.stdout, b"65534\n65534\nkvm\n", done.stderr)
        self.assertIn(b"/etc/shadow", done.stderr)
        self.assertEqual(os.listdir(out), ["file"])
        self.assertEqual(os.stat(os.path.join(out, "file")).st_uid, somebody)


class Result(unittest.TextTestResult):
    passed = 0

    def addSuccess(self, test):
        super().addSuccess(test)
        self.passed += 1


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--kernel"]:
        os.environ["LAB_KERNEL"] = arguments[1]
        arguments = arguments[2:]
    program = unittest.main(argv=[sys.argv[0], *arguments], exit=False,
                            testRunner=unittest.TextTestRunner(stream=sys.stdout, verbosity=2, resultclass=Result))
    result = program.result
    print("%d passed, %d failed, %d skipped" % (
        result.passed, len(result.failures) + len(result.errors), len(result.skipped)), flush=True)
    return 0 if result.wasSuccessful() and result.testsRun else 1


if __name__ == "__main__":
    sys.exit(main())
