#!/usr/bin/env python3
"""What a machine's monitor and device process have given up, seen from outside while its guest runs: filters, capabilities, descriptors,
and that a waiver leaves out its layer and no other. Needs /dev/kvm, and to be root; one case is an ordinary user's.
"""
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
import unittest

import harness
from harness import Vm, children_of, name_of

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
    # An ordinary user cannot empty the bounding set, and no_new_privs keeps him from using it.
    def each_thread(self, pid, seccomp="2", no_capabilities=True, bounding=True):
        threads = threads_of(pid)
        for fields in threads:
            self.assertEqual(fields["NoNewPrivs"], "1", fields["Name"])
            self.assertEqual(fields["Seccomp"], seccomp, fields["Name"])
            for name in SETS:
                if no_capabilities and (bounding or name != "CapBnd"):
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
        with Vm("--sandbox.mode=LOG", *self.virtio()) as vm:
            vm.boot()
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            self.assertIn("sandbox.mode is LOG", vm.errors)
            self.assertEqual(vm.errors.count("LET THROUGH"), 1, vm.errors)  # the warning's own

    # Virtio devices, each with a command by which the guest uses it: what it prints says that it works.
    USES = {
        "vmm-block": ("dd if=/dev/vda bs=4k count=4 iflag=direct 2>/dev/null | wc -c", "16384"),
        "vmm-rng": ("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c", "64"),
        "vmm-console": ("echo to the console > /dev/hvc0 && echo written", "written"),
        "vmm-balloon": ("ls /sys/bus/virtio/drivers/virtio_balloon | grep -c virtio", "1"),
    }
    # A TAP interface, which takes a right that an ordinary user has not.
    ROOTS_USES = {"vmm-net": ("ip link set eth0 up && echo up", "up")}

    def virtio(self, owner=None):
        """Flags of a machine that has them, all to be started again."""
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        disk = os.path.join(folder.name, "disk")
        with open(disk, "wb") as file:
            file.truncate(1 << 20)
        if owner is not None:
            os.chmod(folder.name, 0o755)
            os.chown(disk, owner, owner)
        tap = ("--devices.net={tap: \"vmmconf0\" on_failure: RESTART}",) if owner is None else ()
        return (*tap, f'--devices.block={{path: "{disk}" format: RAW on_failure: RESTART}}',
                "--devices.rng.enabled=true", "--devices.rng.on_failure=RESTART",
                "--devices.console.output=PTY", "--devices.console.on_failure=RESTART",
                "--devices.balloon.enabled=true", "--devices.balloon.on_failure=RESTART")

    def started_again_while_confined(self, vm, bounding=True):
        uses = {**self.USES, **(self.ROOTS_USES if bounding else {})}
        self.each_thread(vm.process.pid, bounding=bounding)
        names = sorted(name_of(pid) for pid in vm.children())
        self.assertEqual(names, sorted([*uses, "vmm-serial", "vmm-spawner"]))
        spawner = vm.device("vmm-spawner")
        self.assertEqual({fields["NoNewPrivs"] for fields in threads_of(spawner)}, {"1"})
        self.assertEqual(sorted(os.listdir(f"/proc/{spawner}/fd")), ["0", "1", "2", "3"])
        for name, (command, printed) in uses.items():
            for time_killed in (1, 2):
                pid = vm.device(name)
                self.each_thread(pid)
                self.assertEqual(vm.run(command), printed, name)
                os.kill(pid, signal.SIGKILL)
                vm.wait_for_log(f"works again (restart {time_killed})", times=list(uses).index(name) + 1)
            self.each_thread(vm.device(name))
            self.assertEqual(vm.run(command), printed, name)
        self.each_thread(vm.process.pid, bounding=bounding)

    def test_a_machine_with_virtio_devices_is_confined_and_they_are_started_again(self):
        with Vm(*self.virtio(), "--processors.count=2") as vm:
            vm.boot()
            self.started_again_while_confined(vm)
            # Without the spawner nothing is started any more, and that is all.
            os.kill(vm.device("vmm-spawner"), signal.SIGKILL)
            os.kill(vm.device("vmm-rng"), signal.SIGKILL)
            vm.wait_for_log("the spawner is gone", times=2)
            self.assertEqual(vm.run(self.USES["vmm-block"][0]), self.USES["vmm-block"][1])
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            self.assertNotIn("system call", vm.errors)

    def test_a_backend_of_somebody_else_s_is_connected_to_again(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        socket = os.path.join(folder.name, "rng")

        def backend():
            process = subprocess.Popen([harness.VMM, "device", "rng", "--socket", socket])
            self.addCleanup(process.wait)
            self.addCleanup(process.kill)
            deadline = time.monotonic() + 60
            while not os.path.exists(socket):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.05)
            return process

        theirs = backend()
        use, printed = self.USES["vmm-rng"]
        with Vm(f"--devices.rng.socket={socket}", "--devices.rng.enabled=true", "--devices.rng.on_failure=RESTART") as vm:
            vm.boot()
            self.each_thread(vm.process.pid)
            self.assertEqual(vm.run(use), printed)
            os.kill(children_of(theirs.pid)[0], signal.SIGKILL)
            vm.wait_for_log("works again (restart 1)")
            self.assertEqual(vm.run(use), printed)
            # Gone with its socket, and back with another one of the same name.
            jailed = children_of(theirs.pid)[0]
            theirs.kill()
            theirs.wait()
            while harness.alive(jailed):  # it ends with who started it
                time.sleep(0.05)
            os.unlink(socket)
            vm.wait_for_log("No such file")
            backend()
            vm.wait_for_log("works again (restart 2)")
            self.assertEqual(vm.run(use), printed)
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            self.assertNotIn("system call", vm.errors)

    def test_an_ordinary_user_s_machine_is_as_confined(self):
        if not shutil.which("setpriv"):
            self.skipTest("setpriv")
        # Where other users may read it: a build lies in root's own folders.
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        os.chmod(folder.name, 0o755)
        program = shutil.copy(harness.VMM, folder.name)
        config = os.path.join(shutil.copytree(harness.GUEST, os.path.join(folder.name, "guest")), "vm.textproto")
        mode = stat.S_IMODE(os.stat("/dev/kvm").st_mode)
        os.chmod("/dev/kvm", 0o666)
        self.addCleanup(os.chmod, "/dev/kvm", mode)
        with Vm(command=["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", program, "run", "--config", config,
                         *self.virtio(owner=USER)]) as vm:
            vm.boot()
            self.started_again_while_confined(vm, bounding=False)
            for fields in threads_of(vm.process.pid):
                self.assertEqual(fields["Uid"].split()[0], str(USER))
                self.assertEqual((fields["NoNewPrivs"], fields["Seccomp"], fields["CapEff"], fields["CapPrm"]), ("1", "2", NONE, NONE))
            self.each_thread(vm.device("vmm-serial"))
            # Not dumpable: what it is, is root's to look at.
            self.assertEqual(os.stat(f"/proc/{vm.process.pid}/environ").st_uid, 0)
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
