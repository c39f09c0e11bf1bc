#!/usr/bin/env python3
"""What a machine's monitor and device process have given up, seen from outside while its guest runs: filters, capabilities, descriptors,
and that a waiver leaves out its layer and no other. Needs /dev/kvm, and to be root; one case is an ordinary user's.
"""
import os
import shutil
import stat
import subprocess
import unittest

import harness
from harness import Vm

UP = "vmm-guest: user space is up"
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
NONE = "0" * 16
USER = 12345


def threads_of(pid):
    """Name and /proc status of each thread."""
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as file:
            fields = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
        found.append(fields)
    return found


class ConfinementTest(unittest.TestCase):
    def each_thread(self, pid, seccomp="2", no_capabilities=True):
        threads = threads_of(pid)
        for fields in threads:
            self.assertEqual(fields["NoNewPrivs"], "1", fields["Name"])
            self.assertEqual(fields["Seccomp"], seccomp, fields["Name"])
            for name in SETS:
                if no_capabilities:
                    self.assertEqual(fields[name], NONE, (fields["Name"], name))
        return sorted(fields["Name"] for fields in threads)

    def test_every_thread_is_confined_and_the_guest_does_not_notice(self):
        read, write = os.pipe()  # what a careless parent leaves open
        with Vm("--processors.count=2", pass_fds=(read, write)) as vm:
            vm.boot()
            names = self.each_thread(vm.process.pid)
            for name in ("vmm", "event-loop", "vp-0", "vp-1"):
                self.assertIn(name, names)
            self.each_thread(vm.children()[0])
            descriptors = os.listdir(f"/proc/{vm.process.pid}/fd")
            for fd in (read, write):
                self.assertNotIn(str(fd), descriptors)
            self.assertEqual(vm.run("echo $((6 * 7))"), "42")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            self.assertNotIn("sandbox", vm.errors)
        os.close(read)
        os.close(write)

    def test_a_waiver_leaves_out_its_layer_and_says_so(self):
        with Vm("--sandbox.monitor.waive=SECCOMP") as vm:
            vm.wait_for(UP)
            self.each_thread(vm.process.pid, seccomp="0")
            self.each_thread(vm.children()[0])
            self.assertIn("the configuration waives SECCOMP for the monitor", vm.errors)
        with Vm("--sandbox.monitor.waive=CAPABILITIES,LANDLOCK,UNDUMPABLE") as vm:
            vm.wait_for(UP)
            self.each_thread(vm.process.pid, no_capabilities=False)
            self.assertEqual({fields["CapEff"] for fields in threads_of(vm.process.pid)}, {threads_of("self")[0]["CapEff"]})
            self.assertIn("waives LANDLOCK, CAPABILITIES, UNDUMPABLE for the monitor", vm.errors)

    def test_device_processes_without_namespaces_can_still_be_ended(self):
        with Vm("--sandbox.waive=NAMESPACES,EMPTY_ROOT") as vm:
            vm.boot()
            self.assertIn("the configuration waives NAMESPACES, EMPTY_ROOT for device processes", vm.errors)
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)

    def test_log_mode_warns_and_finds_no_call_that_a_policy_lacks(self):
        with Vm("--sandbox.mode=LOG") as vm:
            vm.boot()
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            self.assertIn("sandbox.mode is LOG", vm.errors)
            self.assertEqual(vm.errors.count("LET THROUGH"), 1, vm.errors)  # the warning's own

    def test_an_ordinary_user_s_machine_is_as_confined(self):
        if not shutil.which("setpriv") or subprocess.run(
                ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "test", "-x", harness.VMM]).returncode != 0:
            self.skipTest("a vmm that other users may run")
        mode = stat.S_IMODE(os.stat("/dev/kvm").st_mode)
        os.chmod("/dev/kvm", 0o666)
        self.addCleanup(os.chmod, "/dev/kvm", mode)
        with Vm(prefix=["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]) as vm:
            vm.boot()
            for fields in threads_of(vm.process.pid):
                self.assertEqual(fields["Uid"].split()[0], str(USER))
                self.assertEqual((fields["NoNewPrivs"], fields["Seccomp"], fields["CapEff"], fields["CapPrm"]), ("1", "2", NONE, NONE))
            self.each_thread(vm.children()[0])
            # Not dumpable: what it is, is root's to look at.
            self.assertEqual(os.stat(f"/proc/{vm.process.pid}/environ").st_uid, 0)
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
