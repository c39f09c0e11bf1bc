#!/usr/bin/env python3
"""The freestanding guests of tests/guests in the TEST machine: each with 1, 2 and 4 processors, on both Hyper-V backings. Those named
vsm_* are offered VTL1, and run on one backing, as timers of VTL0 are not their subject, but by each way to protect pages that the host
has (docs/design.md, section 5), or those that VMM_VSM_WAYS names. By way B they also hold the access decoder against KVM's own word of
where a fault was. With 2 processors the machine has a virtio device too, so that pages which VTL1 protects leave the file that guest RAM
is in for devices, and come back to it.

With VMM_SANITIZED in the environment VMM_BINARY has been built with AddressSanitizer (tests/kvm_suite --sanitize): it is
not confined and can start no device's process, since those are static, so that the machine has no serial port, and its virtio device is
started here, by VMM_DEVICE_BINARY. A guest is one test then: its status says that all have passed, its crash message what has not.

Every TEST of a guest is a test here: GUEST_VPS_BACKING.test_NAME, or GUEST_VPS_WAY.test_NAME. A machine runs once, when its first test is asked for. What the
guest prints is checked against what its source registers, so that a guest that ends early has not passed.

    guests_test.py hv_msr_test_2vp_own.test_VpIndexIsReadOnly        one of them (inside the lab)

Needs /dev/kvm and root (or a user who may make user namespaces).
"""
import contextlib
import glob
import json
import os
import re
import subprocess
import tempfile
import time
import unittest

import harness

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + "/guests"
IMAGES = os.environ.get("VMM_GUESTS", os.path.join(os.path.dirname(os.path.dirname(FOLDER)), "bazel-bin/tests/guests"))
PROCESSORS = (1, 2, 4)
BACKINGS = ("KERNEL", "OWN")
VSM_WAYS = ("HOST_MAPPING", "PRIVATE_ATTRIBUTE")
# vmm/run/stats_text.h
AGREEMENT = r"KVM named the page of (\d+), another was found first (\d+), unexplained (\d+)"
ALL_PASSED, SOME_FAILED, HOST_LACKS = 1, 3, 8
# Those that take all access away from pages: by way B, KVM names some.
NO_ACCESS = ("vsm_intercept_test", "vsm_protect_test", "vsm_routes_test", "vsm_storm_test")
# A byte of a guest's output costs about a millisecond in the lab.
LINES = os.environ.get("VMM_GUEST_LINES", "short")

SANITIZED = "VMM_SANITIZED" in os.environ
# Not 1, with which sanitizers end a program: a guest whose tests have all passed ends it with that too.
SANITIZER_FAILED = 99
SANITIZER_OPTIONS = f"exitcode={SANITIZER_FAILED}:abort_on_error=0:handle_abort=1"
# What a dynamic executable cannot have, and a process less.
SANITIZER_CONFIG = "devices {{ serial {{ disabled: true }} {device}}}\nsandbox {{ waive: EMPTY_ROOT waive: SECCOMP }}\n"
# For VTL1 beside a device that has guest RAM.
WITH_DEVICE = 2  # processors
DEVICE_CONFIG = "devices { rng { enabled: true } }\n"
WITHDRAWN = r"page protections: (\d+) pages protected now, (\d+) withdrawn from devices"

CONFIG = """machine: TEST
memory {{ size_mib: 64 }}
processors {{ count: {processors} }}
boot {{ kernel: "{kernel}" command_line: "backing={backing_name} lines={lines}{arguments}" }}
hyperv {{ enabled: true backing: {backing} {vsm}}}
logging {{ level: DEBUG }}
{more}"""


def offers_vsm(guest):
    return guest.startswith("vsm_")


def ways():
    """Of those that are asked for, by their names in hyperv.vsm.protection: why this host has not got it, or None."""
    asked = os.environ.get("VMM_VSM_WAYS", " ".join(VSM_WAYS)).split()
    check = subprocess.run([harness.VMM, "check", "--json"], capture_output=True, timeout=harness.LIMIT)
    found = {way["choice"]: None if way["available"] else way["reason"] for way in json.loads(check.stdout)["protections"]}
    return {way: found.get(way, "vmm check does not name it") for way in asked}


class Outcome:
    """What one machine said: its lines by test, and its exit status."""

    def __init__(self, guest, processors, backing="KERNEL", arguments="", vsm=""):
        with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
            config = os.path.join(folder, "vm.textproto")
            with open(config, "w") as out:
                out.write(CONFIG.format(processors=processors, backing=backing, backing_name=backing.lower(), lines=LINES, arguments=arguments,
                                        vsm=f"vsm {{ enabled: true {vsm} }} " if vsm else "",
                                        more=self.more(stack, folder, bool(vsm) and processors == WITH_DEVICE),
                                        kernel=os.path.join(IMAGES, guest + ".elf")))
            try:
                environment = {**os.environ, "ASAN_OPTIONS": SANITIZER_OPTIONS, "UBSAN_OPTIONS": SANITIZER_OPTIONS}
                result = subprocess.run([harness.VMM, "run", "--config", config], stdin=subprocess.DEVNULL, capture_output=True,
                                        timeout=harness.LIMIT, env=environment)
                self.status, output, errors = result.returncode, result.stdout, result.stderr
            except subprocess.TimeoutExpired as expired:
                self.status, output, errors = "none: it did not end", expired.stdout or b"", expired.stderr or b""
        self.text = output.decode(errors="replace").replace("\r", "")
        self.errors = errors.decode(errors="replace")
        self.lines = {}  # by test
        self.ended = []
        name = None
        for line in self.text.splitlines():
            if line.startswith("# test "):
                name = line[len("# test "):]
                self.lines[name] = []
            elif line.startswith("# end "):
                self.ended.append(line[len("# end "):])
                name = None
            elif name is not None:
                self.lines[name].append(line)

    @staticmethod
    def more(stack, folder, with_device):
        if not SANITIZED:
            return DEVICE_CONFIG if with_device else ""
        if not with_device:
            return SANITIZER_CONFIG.format(device="")
        socket = os.path.join(folder, "rng")
        device = stack.enter_context(subprocess.Popen([os.environ["VMM_DEVICE_BINARY"], "device", "rng", "--socket", socket]))
        stack.callback(device.kill)
        deadline = time.monotonic() + harness.LIMIT
        while not os.path.exists(socket):
            assert device.poll() is None and time.monotonic() < deadline, "the device does not start"
            time.sleep(0.01)
        return SANITIZER_CONFIG.format(device=f'rng {{ enabled: true socket: "{socket}" }} ')

    def tail(self):
        return f"exit status {self.status}; the end of the output:\n" + self.text[-1500:] + "\n--- errors:\n" + self.errors[-1500:]


def registered(guest):
    with open(f"{FOLDER}/{guest}.cc") as source:
        return re.findall(r"^TEST\((\w+)\)", source.read(), re.MULTILINE)


def publish(case, name):
    assert name not in globals(), name
    case.__name__ = case.__qualname__ = name
    globals()[name] = case


def make_sanitized_case(guest, processors, variant, **machine):
    class Case(unittest.TestCase):
        def test_all_pass_and_no_sanitizer_finds_anything(self):
            outcome = Outcome(guest, processors, **machine)
            self.assertEqual(outcome.status, ALL_PASSED, outcome.tail())
            self.assertNotRegex(outcome.errors, "ERROR: .*Sanitizer|runtime error")

    publish(Case, f"{guest}_{processors}vp_{variant.lower()}")


def make_case(guest, processors, variant, **machine):
    if SANITIZED:
        return make_sanitized_case(guest, processors, variant, **machine)

    class Case(unittest.TestCase):
        outcome = None

        @classmethod
        def setUpClass(cls):
            cls.outcome = Outcome(guest, processors, **machine)

        def test__the_guest_ran_to_its_end(self):
            self.assertEqual(self.outcome.ended, registered(guest), self.outcome.tail())
            failed = any(line.startswith("not ok") for lines in self.outcome.lines.values() for line in lines)
            self.assertEqual(self.outcome.status, SOME_FAILED if failed else ALL_PASSED, self.outcome.tail())

    def test__kvm_and_the_decoder_name_the_same_page(self):
        named, other_first, unexplained = (
            sum(map(int, numbers)) for numbers in zip(*re.findall(AGREEMENT, self.outcome.errors), strict=True))
        self.assertEqual((other_first, unexplained), (0, 0), self.outcome.tail())
        if guest in NO_ACCESS:
            self.assertGreater(named, 0, self.outcome.tail())

    def test__devices_have_no_page_that_is_protected(self):
        counts = re.findall(WITHDRAWN, self.outcome.errors)
        self.assertEqual(len(counts), 1, self.outcome.tail())
        self.assertEqual(*counts[0], self.outcome.tail())

    if "vsm" in machine and processors == WITH_DEVICE:
        Case.test__devices_have_no_page_that_is_protected = test__devices_have_no_page_that_is_protected
    if "PRIVATE_ATTRIBUTE" in machine.get("vsm", ""):
        Case.test__kvm_and_the_decoder_name_the_same_page = test__kvm_and_the_decoder_name_the_same_page

    def make_test(name):
        def test(self):
            lines = self.outcome.lines.get(name)
            self.assertIsNotNone(lines, f"did not run; {self.outcome.tail()}")
            bad = [line for line in lines if line.startswith("not ok")]
            self.assertEqual(bad, [], "\n" + "\n".join(bad))
            self.assertIn(name, self.outcome.ended, f"did not end; {self.outcome.tail()}")
            good = [line for line in lines if line.startswith("ok ")]
            self.assertNotEqual(good, [], "asserted nothing")
            skips = [line.split(" - SKIP ", 1)[1] for line in good if " - SKIP " in line]
            if skips:
                self.skipTest(skips[0])
        return test

    for name in registered(guest):
        setattr(Case, "test_" + name, make_test(name))
    publish(Case, f"{guest}_{processors}vp_{variant.lower()}")


class Ends(unittest.TestCase):
    """How a TEST machine may end, and the exit status of each."""

    def ends(self, how, status):
        only = " only=TheMachineEndsAsTheCommandLineSays end="
        outcome = Outcome("machine_test", 2, arguments=only + how)
        self.assertEqual(outcome.status, status, outcome.tail())
        self.assertEqual(outcome.ended, [], outcome.tail())

    def test_a_byte_is_the_value(self):
        self.ends("byte", 0x7f << 1 | 1)

    def test_a_word_anywhere_in_the_port_is_cut_to_the_systems_8_bits(self):
        self.ends("word", (0x102 << 1 | 1) & 0xff)

    def test_a_long_too(self):
        self.ends("long", 7)

    def test_the_shutdown_port_powers_off(self):
        self.ends("shutdown", 0)

    def test_a_triple_fault_is_none_of_the_guests_values(self):
        self.ends("triple", 34)


def guests():
    names = [os.path.basename(path)[:-len(".cc")] for path in sorted(glob.glob(FOLDER + "/*.cc"))]
    chosen = os.environ.get("VMM_GUEST_PATTERN", "")
    return [name for name in names if chosen in name]


def make_cases():
    host = ways() if any(map(offers_vsm, guests())) else {}
    for guest in guests():
        for processors in PROCESSORS:
            if not offers_vsm(guest):
                for backing in BACKINGS:
                    make_case(guest, processors, backing, backing=backing)
                continue
            for way, missing in host.items():
                if missing is None:
                    make_case(guest, processors, way, vsm=f"protection: {way}")
    for way, missing in host.items():
        if missing is None and "vsm_protect_test" in guests():
            # What cannot be enforced, rounded: everything else is the same, so one machine does.
            make_case("vsm_protect_test", 1, way + "_round", vsm=f"protection: {way} unenforceable: ROUND", arguments=" execute=rounded")
        elif missing is not None:
            make_missing_case(way, missing)


def make_missing_case(way, missing):
    """A host without a way says so, before anything runs; and the tests that it cannot run are seen to be left out."""

    class Case(unittest.TestCase):
        def test_a_machine_that_asks_for_it_does_not_start(self):
            outcome = Outcome("vsm_protect_test", 1, vsm=f"protection: {way}")
            self.assertEqual(outcome.status, HOST_LACKS, outcome.tail())
            self.assertIn("as hyperv.vsm.protection says: " + missing, outcome.errors)

        def test_guests(self):
            self.skipTest(f"this host has no {way}: {missing}")

    publish(Case, f"without_{way.lower()}")


make_cases()


if __name__ == "__main__":
    unittest.main(verbosity=2)
