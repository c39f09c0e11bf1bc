#!/usr/bin/env python3
"""SIGKILL to each device process at each stage of its life: at its start, under load, at the end of the machine.

The thousand kills under load, with every completion checked, are devices/virtio/block:block_process_test's; the network's are net_test.py's.
Needs /dev/kvm.
"""
import os
import re
import signal
import tempfile
import threading
import time
import unittest

import harness
from harness import Vm, children_of, name_of

MIB = 1 << 20
# Each device with a command that keeps it busy and says "done" when it got what it asked for.
USES = {
    "vmm-block": "dd if=/dev/zero of=/dev/vda bs=4k count=16 oflag=direct 2>/dev/null && echo done",
    "vmm-rng": "dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c | grep -q 256 && echo done",
    "vmm-console": "for i in 1 2 3 4; do echo line $i > /dev/hvc0; done && echo done",
    "vmm-balloon": "cat /proc/meminfo > /dev/null && echo done",
    "vmm-net": "ip link set eth0 up; ip address add 192.0.2.2/24 dev eth0 2>/dev/null; ping -c 2 -W 1 192.0.2.1 > /dev/null 2>&1; "
               "[ -e /sys/class/net/eth0 ] && echo done",
}


class KillTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def flags(self, on_failure):
        disk = os.path.join(self.folder.name, "disk")
        with open(disk, "wb") as file:
            file.truncate(4 * MIB)
        return (f'--devices.block={{path: "{disk}" format: RAW on_failure: {on_failure}}}',
                "--devices.rng.enabled=true", f"--devices.rng.on_failure={on_failure}",
                "--devices.console.output=PTY", f"--devices.console.on_failure={on_failure}",
                "--devices.balloon.enabled=true", f"--devices.balloon.on_failure={on_failure}",
                # Made for the machine's life; nobody answers.
                f'--devices.net={{tap: "vmmkill0" on_failure: {on_failure}}}')

    def kill_when_it_appears(self, vm, name, delay):
        """From a thread, as early as it can be seen."""
        def watch():
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and vm.process.poll() is None:
                for pid in children_of(vm.process.pid):
                    if name_of(pid) == name:
                        time.sleep(delay)
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            pass
                        return
        thread = threading.Thread(target=watch)
        thread.start()
        return thread

    def test_killed_at_its_start_the_machine_does_not_start_or_gets_another(self):
        for name in [*USES, "vmm-serial"]:
            for delay in (0, 0.002, 0.02):
                with self.subTest(device=name, delay=delay):
                    flags = self.flags("RESTART") if name != "vmm-serial" else ()
                    with Vm(*flags) as vm:
                        killer = self.kill_when_it_appears(vm, name, delay)
                        killer.join()
                        # Before the machine runs it is an error, told and in time; afterwards its policy decides.
                        deadline = time.monotonic() + 60
                        while vm.process.poll() is None and "works again" not in vm.errors and time.monotonic() < deadline:
                            vm._pump(0.1)
                        if vm.process.poll() is None:
                            self.assertIn("works again", vm.errors)
                            vm.kill(signal.SIGTERM)
                            self.assertEqual(vm.end(), 128 + signal.SIGTERM, vm.errors)
                        else:
                            self.assertNotEqual(vm.end(), 0)
                            self.assertIn(name.replace("vmm-", ""), vm.errors)

    def test_killed_under_load_each_is_started_again_and_nothing_is_left_waiting(self):
        with Vm(*self.flags("RESTART"), "--processors.count=2") as vm:
            vm.boot()
            killed = 0
            for _ in range(5):
                for name, command in USES.items():
                    vm.type(f'{command}; echo "@"after-{killed}"@"')
                    os.kill(vm.device(name), signal.SIGKILL)
                    vm.wait_for(rf"@after-{killed}@")
                    killed += 1
                    vm.wait_for_log("works again", times=killed)
            vm.wait_for(re.escape(harness.PROMPT))
            for name, command in USES.items():
                self.assertEqual(vm.run(command), "done", name)
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            print(f"{killed} kills under load, each device used again", flush=True)

    def test_killed_at_the_machine_s_end_it_ends_all_the_same(self):
        for name in [*USES, "vmm-serial"]:
            with self.subTest(device=name):
                with Vm(*self.flags("STOP")) as vm:
                    vm.boot()
                    pid = vm.device(name)
                    vm.type("poweroff")
                    if name != "vmm-serial":
                        vm.wait_for("Power down|reboot")
                    os.kill(pid, signal.SIGKILL)
                    # 38: the device failed before the guest was gone.
                    self.assertIn(vm.end(), (0, 38), vm.errors)
                    self.assertEqual(children_of(vm.process.pid), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
