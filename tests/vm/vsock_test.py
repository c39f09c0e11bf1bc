#!/usr/bin/env python3
"""Virtio sockets with Debian's own driver: both directions, large streams, refusals, a killed device.

Needs /dev/kvm.
"""
import hashlib
import os
import signal
import socket
import tempfile
import threading
import unittest

import harness
from harness import Vm

TOOL = os.path.join(os.environ.get("VMM_GUESTS", ""), "linux", "vsock_tool")
MIB = 1 << 20


def read_all(connection):
    data = b""
    while chunk := connection.recv(65536):
        data += chunk
    return data


def read_line(connection):
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line.decode()


class VsockTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="vs")
        self.addCleanup(self.folder.cleanup)
        self.path = os.path.join(self.folder.name, "vm.vsock")
        self.initramfs = harness.initramfs_with(self.folder.name, {"/bin/vsock_tool": TOOL})

    def vm(self, *flags):
        return Vm(f"--devices.vsock.path={self.path}", f"--boot.initramfs={self.initramfs}", *flags)

    def serve(self, port, answer):
        """Takes one connection of the guest's; `answer` is called with all that it said."""
        listening = socket.socket(socket.AF_UNIX)
        self.addCleanup(listening.close)
        listening.settimeout(harness.LIMIT)
        listening.bind(f"{self.path}_{port}")
        listening.listen(1)

        def run():
            connection, _ = listening.accept()
            with connection:
                connection.settimeout(harness.LIMIT)
                connection.sendall(answer(read_all(connection)))

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        self.addCleanup(thread.join, 10)

    def connect(self, port):
        connection = socket.socket(socket.AF_UNIX)
        self.addCleanup(connection.close)
        connection.settimeout(harness.LIMIT)
        connection.connect(self.path)
        connection.sendall(f"CONNECT {port}\n".encode())
        return connection

    def test_both_sides_connect_and_large_streams_arrive_whole(self):
        with self.vm() as vm:
            vm.boot()
            # Guest to host, with the answer after the guest's half close.
            self.serve(52, lambda said: b"host heard " + hashlib.md5(said).hexdigest().encode())
            said = vm.run("yes abcdefg | dd bs=1k count=2000 iflag=fullblock 2>/dev/null | vsock_tool connect 52")
            expected = hashlib.md5((b"abcdefg\n" * 256_000)[:2_048_000]).hexdigest()
            self.assertEqual(said.strip(), "host heard " + expected)
            # Nobody at the port: a refusal, at once.
            self.assertRegex(vm.run("vsock_tool connect 53 < /dev/null; echo status $?"), "(?s)[Rr]eset.*status 1")
            # Host to guest.
            vm.type("vsock_tool echo 1000 2 & true")
            vm.wait_for("vsock_tool: listening")
            data = os.urandom(2 * MIB)
            connection = self.connect(1000)
            self.assertRegex(read_line(connection), r"^OK \d+\n$")
            sender = threading.Thread(target=lambda: (connection.sendall(data), connection.shutdown(socket.SHUT_WR)))
            sender.start()
            back = read_all(connection)
            sender.join()
            self.assertEqual(hashlib.md5(back).digest(), hashlib.md5(data).digest())
            # A port that nobody listens on, and a greeting that is none.
            self.assertEqual(self.connect(1001).recv(1), b"")
            nonsense = self.connect("1000 please")
            self.assertEqual(nonsense.recv(1), b"")
            self.assertLessEqual(harness.private_kib(vm.device("vmm-vsock")), 2048)
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
        self.assertEqual([pid for pid in os.listdir("/proc") if pid.isdigit() and self.is_connector(pid)], [])

    def is_connector(self, pid):
        try:
            with open(f"/proc/{pid}/comm") as comm:
                return comm.read().strip() == "vmm-vsock-conn" and harness.alive(int(pid))
        except OSError:
            return False

    def test_a_killed_device_loses_its_connections_tells_the_guest_and_goes_on(self):
        with self.vm("--devices.vsock.on_failure=RESTART") as vm:
            vm.boot()
            vm.type("vsock_tool echo 1000 3 & true")
            vm.wait_for("vsock_tool: listening")
            before = self.connect(1000)
            self.assertRegex(read_line(before), r"^OK \d+\n$")
            before.sendall(b"ping")
            self.assertEqual(before.recv(4), b"ping")
            os.kill(vm.device("vmm-vsock"), signal.SIGKILL)
            self.assertEqual(before.recv(1), b"")
            # The guest's end is reset, so that it takes the next connection; who connected meanwhile waits in the socket's queue.
            after = self.connect(1000)
            answer = read_line(after)
            vm._pump(1)
            self.assertRegex(answer, r"^OK \d+\n$", vm.errors + vm.text[-600:])
            after.sendall(b"pong")
            self.assertEqual(after.recv(4), b"pong")
            after.close()
            self.serve(52, lambda said: b"heard " + said)
            self.assertEqual(vm.run("echo again | vsock_tool connect 52").strip(), "heard again")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            self.assertIn("works again", vm.errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
