#!/usr/bin/env python3
"""Debian's stock kernel on the Hyper-V interface: what it finds, and that it works with it."""
import re
import time
import unittest

from harness import Vm


class HypervTest(unittest.TestCase):
    def machine(self, backing, count):
        return Vm("--hyperv.enabled=true", f"--hyperv.backing={backing}", f"--processors.count={count}", "--logging.level=DEBUG")

    def end(self, vm):
        """Powers off; the numbers of the last words, summed over the processors."""
        vm.type("poweroff")
        self.assertEqual(vm.end(), 0, vm.errors)
        totals = {}
        for line in re.findall(r"virtual processor \d+: (exits .*|messages .*)", vm.errors):
            for name, number in re.findall(r"([A-Za-z-]+) (\d+)", line):
                totals[name] = totals.get(name, 0) + int(number)
        return totals

    def check_found(self, vm):
        log = vm.run("dmesg | grep -i hyper")
        self.assertIn("Hypervisor detected: Microsoft Hyper-V", log)
        self.assertIn("Using hypercall for remote TLB flush", log)
        self.assertIn("Using IPI hypercalls", log)
        self.assertEqual(vm.run("cat /sys/devices/system/clocksource/clocksource0/current_clocksource"),
                         "hyperv_clocksource_tsc_page")
        # Without kvmclock the wall clock is the RTC's.
        self.assertLess(abs(int(vm.run("date +%s")) - time.time()), 120)
        # One clock event device a processor, of the synthetic timer.
        timers = vm.run("grep 'Clock Event Device' /proc/timer_list")
        self.assertEqual(timers.count("Hyper-V clockevent"), int(vm.run("nproc")), timers)

    def check_work(self, vm, count):
        """Processes on all processors that fork, exec, map and unmap, for many IPIs and TLB flushes."""
        # One loop a processor in the background, each counting children that did what they should.
        for cpu in range(count):
            vm.run(f"(taskset -c {cpu} sh -c 'n=0; i=0; while [ $i -lt 60 ]; do i=$((i+1)); "
                   f"[ \"$(seq 1 50 | wc -l)\" = 50 ] && n=$((n+1)); done; echo $n' > /tmp/work{cpu}) & true")
        vm.run("wait")
        for cpu in range(count):
            self.assertEqual(vm.run(f"cat /tmp/work{cpu}"), "60")
        # Time goes on at one rate for all: a second asked for is a second by the wall clock of the guest.
        self.assertIn(int(vm.run("a=$(date +%s); sleep 2; b=$(date +%s); echo $((b - a))")), (2, 3))
        self.assertEqual(vm.run("dmesg | grep -E 'stall|lockup|hung task|BUG:'"), "")

    def boot(self, backing, count):
        with self.machine(backing, count) as vm:
            vm.boot()
            self.check_found(vm)
            self.check_work(vm, count)
            interrupts = vm.run("grep -E 'HVS|CAL|RES|TLB' /proc/interrupts")
            self.assertRegex(interrupts, r"HVS:\s+[1-9]\d*")
            totals = self.end(vm)
            # TLB flushes and IPIs came by hypercall, and no port or register was nobody's.
            if count > 1:
                self.assertGreater(totals["hypercalls"], 100, totals)

    def test_kernel_backing_one_processor(self):
        self.boot("KERNEL", 1)

    def test_kernel_backing_four_processors(self):
        self.boot("KERNEL", 4)

    def test_own_backing_two_processors(self):
        self.boot("OWN", 2)

    def test_panic_ends_as_a_guest_crash_or_panic(self):
        # Without VMBus Linux reports by pvpanic; the crash registers are a guest test's.
        with self.machine("KERNEL", 1) as vm:
            vm.boot().type("echo c > /proc/sysrq-trigger")
            self.assertIn(vm.end(), (36, 44), vm.errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
