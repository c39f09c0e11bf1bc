#!/usr/bin/env python3
"""Whole machines with virtio network devices: Debian's own driver against our backend over a TAP interface, over passt, and with QEMU in
front; what happens when the backend is killed.

Needs /dev/kvm, and root for interfaces. Addresses are those of documentation (RFC 5737), on interfaces that this test makes in a network
namespace of its own.
"""
import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import unittest

import harness
from harness import Vm

HOST, GUEST = "192.0.2.1", "192.0.2.2"
MAC = "52:54:00:12:34:56"
MIB = 1 << 20
USER = 12345


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def patterned(size):
    block = bytes(range(251)) * 4096
    return (block * (size // len(block) + 1))[:size]


class Server:
    """Takes connections, one after the other: keeps what comes, or sends `content` and closes; with `http` after a request."""

    def __init__(self, address, content=None, http=False):
        self.http = http
        self.socket = socket.create_server((address, 0))
        self.port = self.socket.getsockname()[1]
        self.content = content
        self.got = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                data = b""
                if self.http:
                    while b"\r\n\r\n" not in data:
                        data += connection.recv(1 << 16)
                    connection.sendall(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(self.content))
                if self.content is not None:
                    connection.sendall(self.content)
                    connection.shutdown(socket.SHUT_WR)
                while part := connection.recv(1 << 16):
                    data += part
                self.got.append(data)

    def wait(self, count=1, limit=harness.LIMIT):
        deadline = time.monotonic() + limit
        while len(self.got) < count:
            if time.monotonic() > deadline:
                raise AssertionError(f"{len(self.got)} connections in place of {count}")
            time.sleep(0.05)
        return self.got

    def close(self):
        self.socket.close()


@unittest.skipUnless(os.geteuid() == 0, "not root: no interface can be made")
class NetTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        # This process, and what it starts.
        if subprocess.run(["modprobe", "tun"], stderr=subprocess.DEVNULL).returncode != 0 and not os.path.exists("/dev/net/tun"):
            raise unittest.SkipTest("no TAP interfaces: the kernel has no tun module")
        import ctypes
        if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:  # CLONE_NEWNET
            raise unittest.SkipTest(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        ip("link", "set", "lo", "up")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def tap(self, name="vmmtap", queues=1):
        ip("tuntap", "add", "dev", name, "mode", "tap", *(["multi_queue"] if queues > 1 else []))
        self.addCleanup(ip, "link", "delete", name)
        ip("address", "add", f"{HOST}/24", "dev", name)
        ip("link", "set", name, "up")
        return name

    def serve(self, content=None, address=HOST, http=False):
        server = Server(address, content, http)
        self.addCleanup(server.close)
        return server

    def bring_up(self, vm):
        self.assertIn("eth0", vm.run("ls /sys/class/net"))
        vm.run(f"ip address add {GUEST}/24 dev eth0; ip link set eth0 up")

    def both_ways(self, vm, mib):
        """Bulk transfers with checksums, from the guest and to it."""
        content = patterned(mib * MIB)
        sink, source = self.serve(), self.serve(content)
        # `seq` is something that both sides can make.
        vm.run(f"seq 1 {mib * 140000} | nc {HOST} {sink.port}")
        expected = "".join(f"{n}\n" for n in range(1, mib * 140000 + 1)).encode()
        self.assertEqual(hashlib.md5(sink.wait()[0]).hexdigest(), hashlib.md5(expected).hexdigest())
        self.assertEqual(vm.run(f"nc {HOST} {source.port} < /dev/null | md5sum").split()[0], hashlib.md5(content).hexdigest())
        # The host begins.
        vm.run("(nc -l -p 77 < /etc/rc > /tmp/from_host; echo done > /tmp/listened) & true")
        with contextlib.closing(self.connect(GUEST, 77)) as connection:
            connection.sendall(content[:MIB])
            connection.shutdown(socket.SHUT_WR)
            self.assertIn(b"user space", connection.recv(4096))
            while connection.recv(4096):
                pass
        self.assertEqual(vm.run("while [ ! -e /tmp/listened ]; do sleep 1; done; md5sum < /tmp/from_host").split()[0],
                         hashlib.md5(content[:MIB]).hexdigest())

    def connect(self, address, port):
        deadline = time.monotonic() + 60
        while True:
            try:
                return socket.create_connection((address, port), timeout=60)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)

    def power_off(self, vm):
        self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
        vm.type("poweroff")
        self.assertEqual(vm.end(), 0, vm.errors)

    def test_a_guest_and_its_host_talk_over_a_tap_interface(self):
        tap = self.tap()
        with Vm(f'--devices.net={{tap: "{tap}" mac: "{MAC}" mtu: 1400}}', "--logging.level=DEBUG") as vm:
            vm.boot()
            self.assertEqual(vm.run("cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu").split(), [MAC, "1400"])
            self.bring_up(vm)
            self.assertRegex(vm.run(f"ping -c 3 -W 10 {HOST}"), "3 packets received")
            self.both_ways(vm, 2)
            packets = sum(int(n) for n in vm.run("cat /sys/class/net/eth0/statistics/[rt]x_packets").split())
            self.assertGreater(packets, 100)
            self.power_off(vm)
            # The data path: none of its kicks came to the monitor; its registers were used for set-up alone.
            self.assertRegex(vm.errors, r"device 'net0': \d+ register accesses, 0 notifications that left KVM")

    def test_offloads_are_negotiated_and_packets_are_larger_than_the_link(self):
        tap = self.tap()
        with Vm(f'--devices.net={{tap: "{tap}"}}') as vm:
            vm.boot()
            features = vm.run("cat /sys/class/net/eth0/device/features")
            for bit, name in ((0, "CSUM"), (1, "GUEST_CSUM"), (5, "MAC"), (7, "GUEST_TSO4"), (8, "GUEST_TSO6"), (11, "HOST_TSO4"),
                              (12, "HOST_TSO6"), (15, "MRG_RXBUF"), (16, "STATUS"), (17, "CTRL_VQ"), (29, "EVENT_IDX"), (32, "VERSION_1")):
                self.assertEqual(features[bit], "1", name)
            self.bring_up(vm)
            source = self.serve(patterned(8 * MIB))
            vm.run(f"nc {HOST} {source.port} < /dev/null > /dev/null")
            received = int(vm.run("cat /sys/class/net/eth0/statistics/rx_packets"))
            self.assertLess(received, 8 * MIB / 1448 / 2, "segments came one by one")
            self.power_off(vm)

    def test_queue_pairs_with_several_processors(self):
        tap = self.tap(queues=2)
        with Vm(f'--devices.net={{tap: "{tap}" queues: 2}}', "--processors.count=2") as vm:
            vm.boot()
            self.assertEqual(vm.run("ls -d /sys/class/net/eth0/queues/[rt]x-* | wc -l"), "4")
            self.bring_up(vm)
            contents = [patterned(MIB + n) for n in range(6)]
            servers = [self.serve(content) for content in contents]
            vm.run("".join(f"(nc {HOST} {server.port} < /dev/null | md5sum > /tmp/sum{n}) & " for n, server in enumerate(servers)) + "wait")
            self.assertEqual(vm.run("cat /tmp/sum?").split()[::2], [hashlib.md5(content).hexdigest() for content in contents])
            self.both_ways(vm, 1)
            self.power_off(vm)

    def test_an_interface_by_descriptor(self):
        import fcntl
        import struct
        tap = self.tap()
        fd = os.open("/dev/net/tun", os.O_RDWR)
        self.addCleanup(os.close, fd)
        fcntl.ioctl(fd, 0x400454CA, struct.pack("16sH22x", tap.encode(), 0x0002 | 0x1000 | 0x4000))  # TAP, NO_PI, VNET_HDR
        with Vm(f"--devices.net={{tap_fd: {fd}}}", pass_fds=[fd]) as vm:
            vm.boot()
            self.bring_up(vm)
            self.assertRegex(vm.run(f"ping -c 2 -W 10 {HOST}"), "2 packets received")
            self.power_off(vm)

    def test_a_killed_backend_is_started_again_under_load(self):
        tap = self.tap()
        with Vm(f'--devices.net={{tap: "{tap}" on_failure: RESTART}}') as vm:
            vm.boot()
            self.bring_up(vm)
            content = patterned(24 * MIB)
            source = self.serve(content)
            vm.type(f'(nc {HOST} {source.port} < /dev/null | md5sum; echo "@"sum done)')
            for kills in range(3):
                os.kill(vm.device("vmm-net"), signal.SIGKILL)
                vm.wait_for_log("works again", times=kills + 1)
            self.assertIn(hashlib.md5(content).hexdigest(), vm.wait_for(r"([0-9a-f]{32}) .*\r?\n@sum done").group(0))
            vm.wait_for(re.escape(harness.PROMPT))
            self.assertRegex(vm.run(f"ping -c 2 -W 10 {HOST}"), "2 packets received")
            self.power_off(vm)

    # A network that passt can look at: an interface with the way to everywhere.
    def outside(self):
        if not os.path.exists("/usr/bin/passt"):
            self.skipTest("no passt")
        tap = self.tap("outside")
        ip("route", "add", "default", "via", "192.0.2.254", "dev", tap)

    def use_passt(self, vm):
        """DHCP, connections from the guest, and passt killed in between. None to it: Debian 12's passt ends by SIGSEGV of one."""
        # wget, and not nc with no input: this passt ends a connection when the guest closes its half first.
        content = patterned(MIB)
        source, sink = self.serve(content, "127.0.0.1", http=True), self.serve(address="127.0.0.1")
        fetch = f"wget -q -O - http://192.0.2.254:{source.port}/ | md5sum"
        vm.boot()
        vm.run("ip link set eth0 up")
        # passt's DHCP: the host's own address, and the gateway, by which the host's loopback is reached.
        vm.run("printf '#!/bin/sh\\n[ \"$1\" = bound ] && ip address add $ip/24 dev eth0 && ip route add default via $router\\n' > /tmp/dhcp; "
               "chmod 755 /tmp/dhcp; udhcpc -i eth0 -n -q -f -s /tmp/dhcp 2>&1")
        self.assertIn(f"{HOST}/24", vm.run("ip address show dev eth0"))
        self.assertEqual(vm.run(fetch).split()[0], hashlib.md5(content).hexdigest())
        vm.run(f"seq 1 100000 | nc 192.0.2.254 {sink.port}")
        self.assertEqual(sink.wait()[0], "".join(f"{n}\n" for n in range(1, 100001)).encode())
        # passt is killed: the device ends too, and both are started again.
        passts = [pid for pid in vm.children() if "passt" in os.readlink(f"/proc/{pid}/exe")]
        self.assertEqual(len(passts), 1)
        os.kill(passts[0], signal.SIGKILL)
        vm.wait_for_log("works again")
        self.assertIn("its 'passt' ended by signal 9", vm.errors)
        self.assertEqual(vm.run(fetch).split()[0], hashlib.md5(content).hexdigest())
        self.power_off(vm)

    NET = "--devices.net={user {} mtu: 1500 on_failure: RESTART}"

    def test_passt_is_the_network_of_root_s_machine(self):
        self.outside()
        with Vm(self.NET) as vm:
            self.use_passt(vm)

    def test_a_guest_without_privileges_of_its_host_uses_passt(self):
        self.outside()
        if not shutil.which("setpriv"):
            self.skipTest("setpriv")
        # Where other users may read it: a build lies in root's own folders.
        os.chmod(self.folder, 0o755)
        program = shutil.copy(harness.VMM, self.folder)
        config = os.path.join(shutil.copytree(harness.GUEST, os.path.join(self.folder, "guest")), "vm.textproto")
        mode = stat.S_IMODE(os.stat("/dev/kvm").st_mode)
        os.chmod("/dev/kvm", 0o666)
        self.addCleanup(os.chmod, "/dev/kvm", mode)
        with Vm(command=["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", program, "run", "--config", config, self.NET]) as vm:
            self.use_passt(vm)

    def start_backend(self, *arguments):
        path = os.path.join(self.folder, "sock")
        backend = subprocess.Popen([harness.VMM, "device", "net", *arguments, "--socket", path], stderr=subprocess.PIPE)
        self.addCleanup(backend.stderr.close)
        self.addCleanup(backend.wait)
        self.addCleanup(backend.kill)
        deadline = time.monotonic() + 60
        while not os.path.exists(path):
            self.assertLess(time.monotonic(), deadline)
            self.assertIsNone(backend.poll())
            time.sleep(0.05)
        return backend, path

    def test_our_backend_serves_qemu(self):
        tap = self.tap()
        backend, path = self.start_backend("--tap", tap)
        command = ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "q35,memory-backend=ram,usb=off", "-m", "256M", "-smp", "2",
                   "-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-nodefaults", "-no-user-config", "-display", "none",
                   "-serial", "stdio", "-no-reboot", "-kernel", os.path.join(harness.GUEST, "vmlinuz"), "-initrd",
                   os.path.join(harness.GUEST, "initramfs.cpio"), "-append", "console=ttyS0 quiet panic=-1",
                   "-chardev", f"socket,id=net,path={path}", "-netdev", "vhost-user,id=net,chardev=net",
                   "-device", f"virtio-net-pci,netdev=net,mac={MAC}"]
        with Vm(command=command) as vm:
            vm.boot()
            self.assertEqual(vm.run("cat /sys/class/net/eth0/address"), MAC)
            self.bring_up(vm)
            self.assertRegex(vm.run(f"ping -c 2 -W 10 {HOST}"), "2 packets received")
            self.both_ways(vm, 1)
            vm.type("poweroff")
            self.assertEqual(vm.end(limit=180), 0, vm.errors)
        self.assertIsNone(backend.poll(), "the backend waits for the next front end")

    def test_a_backend_by_its_socket(self):
        tap = self.tap()
        _, path = self.start_backend("--tap", tap)
        with Vm(f'--devices.net={{socket: "{path}" mac: "{MAC}"}}') as vm:
            vm.boot()
            self.assertEqual(vm.run("cat /sys/class/net/eth0/address"), MAC)
            self.bring_up(vm)
            self.assertRegex(vm.run(f"ping -c 2 -W 10 {HOST}"), "2 packets received")
            self.power_off(vm)


if __name__ == "__main__":
    unittest.main(verbosity=2)
