#!/usr/bin/env python3
"""Whole machines with Debian's stock kernel: boot, console, processors, every way to end, and the serial process's death.

Needs /dev/kvm. Each case is one or two boots; tools/test runs them all in one lab.
"""
import os
import signal
import termios
import time
import unittest

import harness
from harness import Vm


class BootTest(unittest.TestCase):
    def power_off(self, vm):
        vm.type("poweroff")
        self.assertEqual(vm.end(), 0, vm.errors)

    def test_pvh_kernel_boots_to_a_prompt_that_answers_and_powers_off_with_status_0(self):
        with Vm() as vm:
            vm.boot()
            self.assertEqual(vm.run("echo $((6 * 7))"), "42")
            self.assertRegex(vm.run("uname -r"), r"^6\.12\..*-cloud-amd64$")
            self.assertEqual(vm.run("nproc"), "1")
            self.assertIn("kvm-clock", vm.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource") +
                          vm.run("cat /sys/devices/system/clocksource/clocksource0/available_clocksource"))
            # Nothing that the kernel calls an error: tables, CPUID and devices are what it expects.
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            self.assertEqual(vm.run("dmesg | grep -iE 'ACPI.*(error|warning)'"), "")
            self.power_off(vm)

    def test_bzimage_boots_by_the_64_bit_protocol(self):
        with Vm("--boot.kernel=" + os.path.join(harness.GUEST, "vmlinuz")) as vm:
            vm.boot()
            self.assertEqual(vm.run("echo $((6 * 7))"), "42")
            self.power_off(vm)

    def smp(self, count):
        with Vm(f"--processors.count={count}") as vm:
            vm.boot()
            self.assertEqual(vm.run("nproc"), str(count))
            for cpu in range(count):
                # The last field but 13 of stat is the processor that the process last ran on.
                self.assertEqual(vm.run(f"taskset -c {cpu} sh -c 'i=0; while [ $i -lt 2000 ]; do i=$((i+1)); done; "
                                        "cut -d\" \" -f39 /proc/self/stat'"), str(cpu))
            self.assertEqual(vm.run("grep -c ^processor /proc/cpuinfo"), str(count))
            self.power_off(vm)

    def test_two_processors_all_work(self):
        self.smp(2)

    def test_four_processors_all_work(self):
        self.smp(4)

    def test_reboot_ends_with_status_32(self):
        with Vm() as vm:
            vm.boot().type("reboot -f")
            self.assertEqual(vm.end(), 32, vm.errors)

    def test_triple_fault_ends_with_status_34(self):
        with Vm("--boot.command_line=console=ttyS0 quiet reboot=t") as vm:
            vm.boot().type("reboot -f")
            self.assertEqual(vm.end(), 34, vm.errors)

    def test_kernel_panic_ends_with_status_36(self):
        with Vm() as vm:
            vm.boot().type("echo c > /proc/sysrq-trigger")
            self.assertEqual(vm.end(), 36, vm.errors)
            self.assertIn("panic", vm.errors)

    def test_signals_end_the_machine_leave_no_process_and_give_the_terminal_back(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with Vm(terminal=True) as vm:
                vm.wait_for("vmm-guest: user space is up")
                self.assertNotEqual(termios.tcgetattr(vm.slave)[3] & termios.ICANON, vm.modes[3] & termios.ICANON)
                children = vm.children()
                self.assertEqual(len(children), 1)
                vm.kill(number)
                self.assertEqual(vm.end(), 128 + number)
                self.assertEqual(termios.tcgetattr(vm.slave), vm.modes)
                self.assertFalse(any(harness.alive(child) for child in children))

    def test_sigkill_of_the_monitor_leaves_no_process(self):
        with Vm() as vm:
            vm.wait_for("vmm-guest: user space is up")
            children = vm.children()
            vm.kill()
            vm.end()
            deadline = time.monotonic() + 30
            while any(harness.alive(child) for child in children):
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.1)

    def test_ctrl_a_x_stops_the_machine_from_its_terminal(self):
        with Vm(terminal=True) as vm:
            vm.boot()
            self.assertEqual(vm.run("echo typed at a terminal"), "typed at a terminal")
            os.write(vm.input, b"\x01x")
            self.assertEqual(vm.end(), 42, vm.errors)
            self.assertEqual(termios.tcgetattr(vm.slave), vm.modes)

    def test_a_killed_serial_process_ends_the_machine_with_status_38_and_its_name(self):
        with Vm() as vm:
            vm.boot().type("yes writing")
            vm.wait_for("writing\r?\nwriting")
            os.kill(vm.children()[0], signal.SIGKILL)
            self.assertEqual(vm.end(), 38, vm.errors)
            self.assertIn("serial", vm.errors)
            self.assertIn("signal 9", vm.errors)

    def test_a_killed_serial_process_is_detached_where_the_configuration_says_so(self):
        with Vm("--devices.serial.on_failure=DETACH") as vm:
            # The guest powers itself off later, from behind the dead console: it went on.
            vm.boot().type("(sleep 5; poweroff -f) & yes writing")
            vm.wait_for("writing\r?\nwriting")
            os.kill(vm.children()[0], signal.SIGKILL)
            self.assertEqual(vm.end(limit=180), 0, vm.errors)
            self.assertIn("serial", vm.errors)

    def test_a_stuck_serial_process_does_not_hang_the_machine(self):
        with Vm() as vm:
            vm.boot().type("yes writing")
            vm.wait_for("writing\r?\nwriting")
            os.kill(vm.children()[0], signal.SIGSTOP)
            self.assertEqual(vm.end(), 38, vm.errors)
            self.assertIn("serial", vm.errors)

    def test_serial_output_to_a_file(self):
        path = f"/tmp/serial-{os.getpid()}.log"
        with Vm("--devices.serial.output=FILE", f"--devices.serial.path={path}",
                "--boot.command_line=console=ttyS0 panic=-1 rdinit=/bin/poweroff") as vm:
            # It ends at once, and the kernel panics for want of an init; panic=-1 makes that a reset.
            self.assertEqual(vm.end(limit=180), 32, vm.errors)
        with open(path) as log:
            self.assertIn("Linux version 6.12", log.read())
        os.unlink(path)


if __name__ == "__main__":
    unittest.main(verbosity=2)
