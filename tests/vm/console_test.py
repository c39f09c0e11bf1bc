#!/usr/bin/env python3
"""The person's terminal as the virtio console: Debian's kernel with console=hvc0, a shell on it, sizes, the escape key.

Needs /dev/kvm.
"""
import fcntl
import os
import struct
import termios
import unittest

from harness import Vm

FLAGS = ("--devices.serial.output=NULL", "--devices.console.output=STDIO",
         "--boot.command_line=console=hvc0 quiet panic=-1")


class ConsoleTest(unittest.TestCase):
    def resize(self, vm, rows, columns):
        fcntl.ioctl(vm.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def test_the_guests_terminal_is_the_persons_and_follows_its_size(self):
        with Vm(*FLAGS, terminal=True) as vm:
            self.resize(vm, 30, 100)
            vm.boot()
            self.assertEqual(vm.run("cat /sys/class/tty/console/active").split()[-1], "hvc0")
            for rows, columns in ((31, 97), (50, 132)):
                self.resize(vm, rows, columns)
                vm.run(f"while [ \"$(stty size < /dev/hvc0)\" != '{rows} {columns}' ]; do sleep 1; done")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)
            self.assertEqual(termios.tcgetattr(vm.slave)[:4], vm.modes[:4], "the terminal is as it was")

    def test_the_escape_key_ends_the_machine(self):
        with Vm(*FLAGS, terminal=True) as vm:
            vm.boot()
            self.assertEqual(vm.run("echo typed"), "typed")
            os.write(vm.input, b"\x01x")
            self.assertEqual(vm.end(), 42, vm.errors)

    def test_pipes_do_as_well(self):
        with Vm(*FLAGS) as vm:
            vm.boot()
            self.assertEqual(vm.run("echo over a pipe"), "over a pipe")
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            vm.type("poweroff")
            self.assertEqual(vm.end(), 0, vm.errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
