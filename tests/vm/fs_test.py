#!/usr/bin/env python3
"""Shared folders by Debian's own virtiofsd, unmodified: started by us, and started by somebody else.

Needs /dev/kvm, and to be root: virtiofsd must be.
"""
import hashlib
import os
import signal
import subprocess
import tempfile
import time
import unittest

import harness
from harness import Vm

VIRTIOFSD = "/usr/lib/qemu/virtiofsd"
MIB = 1 << 20


class FsTest(unittest.TestCase):
    def setUp(self):
        if os.geteuid() != 0 or not os.access(VIRTIOFSD, os.X_OK):
            self.skipTest("no virtiofsd, or not root")
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.shares = [os.path.join(self.folder.name, name) for name in ("one", "two")]
        for share in self.shares:
            os.mkdir(share)

    def virtiofsd(self, share):
        """One that we did not start."""
        sock = os.path.join(self.folder.name, "virtiofsd.sock")
        process = subprocess.Popen([VIRTIOFSD, f"--socket-path={sock}", "-o", f"source={share}"], stderr=subprocess.DEVNULL,
                                   start_new_session=True)
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        deadline = time.monotonic() + harness.LIMIT
        while not os.path.exists(sock):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        return sock

    def is_virtiofsd(self, pid):
        try:
            return os.readlink(f"/proc/{pid}/exe") == VIRTIOFSD
        except OSError:
            return False

    def test_a_guest_reads_and_writes_shares_of_both_kinds(self):
        content = [os.urandom(2 * MIB) for _ in self.shares]
        for share, data in zip(self.shares, content):
            with open(os.path.join(share, "from-host"), "wb") as file:
                file.write(data)
        shares = (f'--devices.fs=[{{tag: "ours" path: "{self.shares[0]}"}},'
                  f'{{tag: "theirs" socket: "{self.virtiofsd(self.shares[1])}"}}]')
        with Vm(shares) as vm:
            vm.boot()
            for tag, data in zip(("ours", "theirs"), content):
                self.assertEqual(vm.run(f"mkdir /tmp/{tag}; mount -t virtiofs {tag} /tmp/{tag}; echo status $?"), "status 0")
                self.assertEqual(vm.run(f"md5sum < /tmp/{tag}/from-host").split()[0], hashlib.md5(data).hexdigest())
                vm.run(f"mkdir /tmp/{tag}/folder; cat /tmp/{tag}/from-host /tmp/{tag}/from-host > /tmp/{tag}/folder/from-guest; "
                       f"mv /tmp/{tag}/from-host /tmp/{tag}/renamed; sync")
            self.assertEqual(vm.run("ls /tmp/ours").split(), ["folder", "renamed"])
            self.assertEqual(vm.run("umount /tmp/ours; umount /tmp/theirs; echo status $?"), "status 0")
            # And once more, after the device was stopped and started.
            self.assertEqual(vm.run("mount -t virtiofs ours /tmp/ours; echo status $?"), "status 0")
            self.assertEqual(vm.run("md5sum < /tmp/ours/renamed").split()[0], hashlib.md5(content[0]).hexdigest())
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
        for share, data in zip(self.shares, content):
            with open(os.path.join(share, "folder", "from-guest"), "rb") as file:
                self.assertEqual(file.read(), data + data)
            with open(os.path.join(share, "renamed"), "rb") as file:
                self.assertEqual(file.read(), data)

    def test_a_virtiofsd_that_dies_ends_the_machine_or_is_gone_as_configured(self):
        for policy, status in (("STOP", 38), ("DETACH", 0)):
            with Vm(f'--devices.fs={{tag: "ours" path: "{self.shares[0]}" on_failure: {policy}}}') as vm:
                vm.boot()
                if policy == "STOP":  # a mount that nobody serves any more would keep the guest from powering off
                    vm.run("mkdir /tmp/ours; mount -t virtiofs ours /tmp/ours")
                ours = [pid for pid in vm.children() if self.is_virtiofsd(pid)]
                self.assertEqual(len(ours), 1)
                # The one that serves is pid 1 of a namespace that the first one has made, and waits for.
                os.kill(harness.children_of(ours[0])[0], signal.SIGKILL)
                if policy == "DETACH":
                    deadline = time.monotonic() + harness.LIMIT
                    while "goes on without it" not in vm.errors:
                        self.assertLess(time.monotonic(), deadline, vm.errors)
                        vm._pump(0.2)
                    self.assertEqual(vm.run("echo still here"), "still here")
                    vm.type("poweroff")
                self.assertEqual(vm.end(), status, vm.errors)
                self.assertIn("device 'fs-ours'", vm.errors)
        # Nothing is left of them, the processes that they start for themselves included.
        deadline = time.monotonic() + harness.LIMIT
        while any(self.is_virtiofsd(pid) for pid in os.listdir("/proc") if pid.isdigit()):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.1)


if __name__ == "__main__":
    unittest.main(verbosity=2)
