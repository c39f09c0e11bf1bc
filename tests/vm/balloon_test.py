#!/usr/bin/env python3
"""The balloon with Debian's own driver: the host's memory, not the guest's word, is what is looked at.

Needs /dev/kvm, and the right to look at the monitor's descriptors.
"""
import os
import re
import signal
import time
import unittest

import harness
from harness import Vm

MIB = 1 << 20


def backed_mib(pid):
    """How much of the machine's memory file is there."""
    folder = f"/proc/{pid}/fd"
    for fd in os.listdir(folder):
        try:
            if "guest-ram (" in os.readlink(f"{folder}/{fd}"):
                return os.stat(f"{folder}/{fd}").st_blocks * 512 / MIB
        except OSError:
            continue
    raise AssertionError(f"process {pid} has no guest RAM")


class BalloonTest(unittest.TestCase):
    def fill_and_free(self, vm, mib=96):
        vm.run(f"dd if=/dev/zero of=/tmp/fill bs=1M count={mib} 2>/dev/null; rm /tmp/fill")

    def wait_until(self, what, condition, vm):
        deadline = time.monotonic() + harness.LIMIT
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"{what}; {backed_mib(vm.process.pid):.0f} MiB are there\n{vm.errors}")
            vm._pump(0.5)

    def test_inflation_shrinks_the_hosts_memory_and_deflation_brings_it_back(self):
        flags = ("--devices.balloon.enabled=true", "--devices.balloon.target_mib=128", "--devices.balloon.no_free_page_reporting=true",
                 "--devices.balloon.stats_seconds=1", "--logging.level=DEBUG", "--memory.size_mib=256")
        with Vm(*flags) as vm:
            vm.boot()
            pid = vm.process.pid
            vm.run("rmmod virtio_balloon")  # takes all pages back
            self.fill_and_free(vm)
            before = backed_mib(pid)
            vm.run("insmod /lib/modules/virtio_balloon.ko")
            self.wait_until("the balloon does not fill", lambda: backed_mib(pid) <= before - 64, vm)
            after = backed_mib(pid)
            print(f"memory of the machine on the host: {before:.0f} MiB, with a balloon of 128 MiB {after:.0f} MiB", flush=True)
            vm.run("sleep 3; rmmod virtio_balloon")
            self.fill_and_free(vm)
            self.assertGreater(backed_mib(pid), after + 32, "what is taken back can be used")
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            told = re.search(r"balloon: target 128 MiB, held (\d+) MiB; given back (\d+) MiB, pages refused 0", vm.errors)
            self.assertIsNotNone(told, vm.errors)
            self.assertGreaterEqual(int(told.group(2)), 128)
            self.assertRegex(vm.errors, r"; the guest had \d+ MiB free")

    def test_free_pages_go_back_by_themselves(self):
        # Of a machine with trust levels, whose RAM is in one file more.
        with Vm("--devices.balloon.enabled=true", "--memory.size_mib=256", "--devices.balloon.on_failure=RESTART", "--hyperv.enabled=true",
                "--hyperv.vsm.enabled=true") as vm:
            vm.boot()
            pid = vm.process.pid
            vm.run("dd if=/dev/zero of=/tmp/fill bs=1M count=96 2>/dev/null")
            full = backed_mib(pid)
            vm.run("rm /tmp/fill")
            self.wait_until("free pages are not given back", lambda: backed_mib(pid) <= full - 64, vm)
            print(f"memory of the machine on the host: {full:.0f} MiB with 96 MiB of files, {backed_mib(pid):.0f} MiB without", flush=True)
            # A device that is started again goes on.
            process = vm.device("vmm-balloon")
            self.assertLessEqual(harness.private_kib(process), 2048)
            os.kill(process, signal.SIGKILL)
            vm.run("dd if=/dev/zero of=/tmp/fill bs=1M count=96 2>/dev/null; sync")
            full = backed_mib(pid)
            vm.run("rm /tmp/fill")
            self.wait_until("free pages are not given back any more", lambda: backed_mib(pid) <= full - 64, vm)
            self.assertIn("works again", vm.errors)
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
