#!/usr/bin/env python3
"""What `vmm run` answers on hosts without a usable KVM, and to what is refused before KVM is asked: exact status and message.

Each case runs the real program in a mount namespace with a /dev of its own, so that this machine's /dev/kvm, if it has one,
plays no part and no guest ever starts. Rows of the table are printed; tests/vm/bad_images_test.py has those that need KVM.
"""
import os
import re
import subprocess
import sys
import tempfile
import unittest

CONFIG_REFUSED, HOST_LACKS = 4, 8
VMM = os.path.realpath(os.environ.get("VMM_BINARY") or os.path.join(os.environ.get("TEST_SRCDIR", ""),
                                                                    os.environ.get("TEST_WORKSPACE", ""), "vmm/vmm"))

# A /dev in memory, over this machine's; the null device is the real one. `$2` makes, or does not make, kvm in it.
DEV = """
exec 9>/dev/null
mount -t tmpfs -o mode=755 dev /dev && touch /dev/null && mount --bind /proc/self/fd/9 /dev/null && exec 9>&- || exit 99
eval "$1" || exit 98
shift
exec "$@"
"""


def in_own_dev(make_kvm, command):
    # Without root, a user namespace makes us root of our own mounts.
    user = [] if os.geteuid() == 0 else ["--map-root-user"]
    return ["unshare", *user, "--mount", "sh", "-c", DEV, "-", make_kvm, *command]


class HostInputsTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        probe = subprocess.run(in_own_dev(":", ["true"]), capture_output=True, text=True)
        if probe.returncode != 0:
            raise unittest.SkipTest(f"no mount namespaces here: {probe.stderr.strip()}")

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.kernel = self.file("kernel", b"looked at only when KVM is there")
        self.config = self.file("vm.textproto", f'memory {{ size_mib: 64 }} boot {{ kernel: "{self.kernel}" }}'.encode())

    def file(self, name, data):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as out:
            out.write(data)
        return path

    def refused(self, status, message, *flags, kvm=":", under=()):
        result = subprocess.run(in_own_dev(kvm, [*under, VMM, "run", "--config", self.config, *flags]),
                                stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=60)
        host = "no /dev/kvm" if kvm == ":" else kvm
        print(f"| `{host}` | `{' '.join([*under, *flags])}` | {result.returncode} | {result.stderr.strip()} |"
              .replace(self.folder, "."), file=sys.stderr)
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertTrue(re.fullmatch(f"vmm: {message}\n", result.stderr), f"{result.stderr!r} is not {message!r}")
        self.assertEqual(result.stdout, "")

    def test_no_kvm(self):
        self.refused(HOST_LACKS, r"open /dev/kvm: this host has no KVM \(module not loaded, virtualization off in the "
                                 r"firmware, or a guest without nested virtualization\)")

    def test_no_permission(self):
        # Root without its capabilities is held to the mode as anybody is.
        self.refused(HOST_LACKS, r"open /dev/kvm: no permission \(usually: be a member of the group 'kvm'\)",
                     kvm="touch /dev/kvm && chmod 0 /dev/kvm", under=("setpriv", "--bounding-set=-all"))

    def test_a_device_that_is_not_kvm(self):
        self.refused(HOST_LACKS, "use /dev/kvm: it is not KVM: ask for its API version: Inappropriate ioctl for device",
                     kvm="touch /dev/kvm && mount --bind /dev/null /dev/kvm")

    def test_a_file_that_is_not_kvm(self):
        self.refused(HOST_LACKS, "use /dev/kvm: it is not KVM: ask for its API version: Inappropriate ioctl for device",
                     kvm="touch /dev/kvm")

    def test_a_folder_that_is_not_kvm(self):
        self.refused(HOST_LACKS, "open /dev/kvm: Is a directory", kvm="mkdir /dev/kvm")

    def test_check_says_the_same(self):
        result = subprocess.run(in_own_dev(":", [VMM, "check"]), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                timeout=60)
        self.assertEqual(result.returncode, HOST_LACKS, result.stderr)
        self.assertIn("this host has no KVM", result.stdout)

    def test_more_memory_than_the_host_has(self):
        self.refused(CONFIG_REFUSED, r"--memory\.size_mib=1048576: memory\.size_mib: is more than the host's memory of \d+ "
                                     r"MiB \(1048576\); memory\.overcommit: true allows it", "--memory.size_mib=1048576", "--memory.prefault=true")

    def test_overcommit_does_not_go_with_prefault(self):
        self.refused(CONFIG_REFUSED, r".*memory\.overcommit: contradicts memory\.prefault",
                     "--memory.size_mib=1048576", "--memory.prefault=true", "--memory.overcommit=true")

    def test_a_serial_file_that_cannot_be_written(self):
        path = self.file("serial", b"")
        os.chmod(path, 0o400)
        self.refused(CONFIG_REFUSED, rf'.*devices\.serial\.path: is not writable \("{path}"\)', "--devices.serial.output=FILE",
                     f"--devices.serial.path={path}", under=("setpriv", "--bounding-set=-all"))

    def test_a_serial_file_in_a_folder_that_is_not_there(self):
        path = os.path.join(self.folder, "nowhere", "serial")
        self.refused(CONFIG_REFUSED, rf'.*devices\.serial\.path: there is no folder "{os.path.dirname(path)}"',
                     "--devices.serial.output=FILE", f"--devices.serial.path={path}")

    def test_namespaces_waived_without_the_empty_root(self):
        self.refused(CONFIG_REFUSED, r".*sandbox\.waive: .*waive both or none", "--sandbox.waive=NAMESPACES")


if __name__ == "__main__":
    unittest.main(verbosity=2)
