#!/usr/bin/env python3
"""How machines end by the Hyper-V interface: the crash registers and RESET, as the person who runs `vmm run` sees it.

The guest is tests/guests/hv_end_test.cc, told on its command line what to do. Needs what guests_test.py needs.
"""
import os
import subprocess
import tempfile
import unittest

import guests_test
import harness

CRASHED, REBOOTED = 44, 32

CONFIG = """machine: TEST
memory {{ size_mib: 64 }}
processors {{ count: {processors} }}
boot {{ kernel: "{kernel}" command_line: "only=TheMachineEndsAsItIsTold end={end}" }}
hyperv {{ enabled: true backing: {backing} }}
logging {{ level: WARNING }}
"""


def run(end, processors=2, backing="KERNEL"):
    """Exit status, what the guest said, and the monitor's standard error."""
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "vm.textproto")
        with open(config, "w") as out:
            out.write(CONFIG.format(processors=processors, backing=backing, end=end,
                                    kernel=os.path.join(guests_test.IMAGES, "hv_end_test.elf")))
        result = subprocess.run([harness.VMM, "run", "--config", config], stdin=subprocess.DEVNULL, capture_output=True,
                                timeout=harness.LIMIT)
    return result.returncode, result.stdout.decode(errors="replace"), result.stderr.decode(errors="replace")


class GuestEndsTest(unittest.TestCase):
    def assert_crash(self, end, *parts, **options):
        status, output, errors = run(end, **options)
        self.assertEqual(status, CRASHED, output + errors)
        self.assertNotIn("not ok", output)
        reports = [line for line in errors.splitlines() if "the guest reported a crash" in line]
        self.assertEqual(len(reports), 1, errors)
        for part in parts:
            self.assertIn(part, reports[0])
        return reports[0]

    def test_a_crash_is_reported_with_its_five_parameters(self):
        for backing in guests_test.BACKINGS:
            with self.subTest(backing=backing):
                report = self.assert_crash("crash", "0xc0de0000 (0xc0de0001, 0xc0de0002, 0x33, 0x44)", backing=backing)
                self.assertNotIn("it says", report)

    def test_a_crash_message_is_quoted_without_control_characters(self):
        report = self.assert_crash("crash-text", "it says: disk\\x1b[2J on fire\\n\\xff")
        self.assertTrue(report.isprintable(), report)

    def test_a_crash_message_of_a_page_is_cut(self):
        report = self.assert_crash("crash-page", "it says: " + "x" * 100, "...")
        self.assertLess(len(report), 2048)

    def test_a_crash_message_longer_than_a_page_is_not_read(self):
        self.assert_crash("crash-too-long", "its message is not in RAM, or longer than a page")

    def test_a_crash_message_outside_ram_is_not_read(self):
        self.assert_crash("crash-not-ram", "its message is not in RAM, or longer than a page")

    def test_a_crash_of_all_processors_at_once_is_reported_once(self):
        self.assert_crash("crash-everywhere", "0xc0de0000", processors=4)

    def test_the_reset_register_ends_the_machine_as_a_reboot(self):
        for backing in guests_test.BACKINGS:
            with self.subTest(backing=backing):
                status, output, errors = run("reset", backing=backing)
                self.assertEqual(status, REBOOTED, output + errors)
                self.assertNotIn("not ok", output)
                self.assertNotIn("crash", errors)


if __name__ == "__main__":
    unittest.main(verbosity=2)
