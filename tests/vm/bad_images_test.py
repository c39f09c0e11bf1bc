#!/usr/bin/env python3
"""What `vmm run` answers to images and hosts that will not do, once /dev/kvm has been opened: exact status and message.

No guest starts here, so a case costs one start of the program. The rest of the table needs no KVM: tests/host_inputs_test.py.
Needs /dev/kvm and root (or a user who may make user namespaces).
"""
import os
import re
import struct
import subprocess
import tempfile
import unittest

import harness

IMAGE_REFUSED, HOST_LACKS, NO_RESOURCES = 6, 8, 10


def elf_without_note():
    """A loadable ELF of one page at 16 MiB, as PVH wants it but for the note."""
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0x1000000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0x1000, 0x1000000, 0x1000000, 0x1000, 0x1000, 0x1000)
    return (header + segment).ljust(0x1000, b"\0") + b"\xf4" * 0x1000


class BadImagesTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def file(self, name, data=b"", bytes=None):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as out:
            out.write(data)
            if bytes is not None:
                out.truncate(bytes)
        return path

    def guest(self, name, bytes):
        with open(os.path.join(harness.GUEST, name), "rb") as image:
            return image.read(bytes)

    def refused(self, status, pattern, *flags, under=()):
        command = [*under, harness.VMM, "run", "--config", os.path.join(harness.GUEST, "vm.textproto"), *flags]
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
                                timeout=harness.LIMIT)
        lines = result.stderr.splitlines()
        row = f"| `{' '.join([*under, *flags])}` | {result.returncode} | {result.stderr.strip()} |"
        print(row.replace(self.folder.name, ".").replace(harness.GUEST, "guest"))
        self.assertEqual(result.returncode, status, result.stderr)
        self.assertEqual(len(lines), 1, result.stderr)
        self.assertTrue(re.fullmatch("vmm: " + pattern, lines[0]), f"{lines[0]!r} is not {pattern!r}")
        self.assertEqual(result.stdout, "")

    def test_a_kernel_of_random_bytes(self):
        kernel = self.file("noise", b"\x01\x02\x03\x04" + os.urandom(65532))
        self.refused(IMAGE_REFUSED, f"load kernel '{kernel}': neither an ELF file nor a bzImage: 65536 bytes that begin with "
                                    "01 02 03 04", f"--boot.kernel={kernel}")

    def test_a_bzimage_cut_short(self):
        kernel = self.file("cut", self.guest("vmlinuz", 40000))
        self.refused(IMAGE_REFUSED, rf"load kernel '{kernel}': setup header says \d+ bytes of kernel at offset \d+, "
                                    "the file has 40000 bytes", f"--boot.kernel={kernel}")

    def test_a_vmlinux_cut_short(self):
        kernel = self.file("cut", self.guest("vmlinux", 1 << 20))
        self.refused(IMAGE_REFUSED, rf"load kernel '{kernel}': ELF segment 0 is \d+ bytes at offset \d+, the file has "
                                    "1048576 bytes", f"--boot.kernel={kernel}")

    def test_an_elf_file_without_the_pvh_note(self):
        kernel = self.file("bare", elf_without_note())
        self.refused(IMAGE_REFUSED, rf"load kernel '{kernel}': an ELF file without the PVH entry note \(Xen, type 18\): built "
                                    r"without CONFIG_PVH\?", f"--boot.kernel={kernel}")

    def test_a_linux_kernel_in_the_test_machine(self):
        kernel = os.path.join(harness.GUEST, "vmlinuz")
        self.refused(IMAGE_REFUSED, f"load kernel '{kernel}': no multiboot header in the first 8192 bytes: the TEST machine starts "
                                    "no other", f"--boot.kernel={kernel}", "--machine=TEST")

    def test_a_64_bit_elf_file_in_the_test_machine(self):
        # A header that adds up, in a file of the wrong class.
        kernel = self.file("wide", elf_without_note()[:0x100] + struct.pack("<III", 0x1badb002, 0, -0x1badb002 & 0xffffffff)
                           + bytes(0x2000))
        self.refused(IMAGE_REFUSED, rf"load kernel '{kernel}': ELF class 2 for machine 62, a multiboot kernel is of class 1 "
                                    r"\(32-bit\) for 3 \(386\): objcopy -O elf32-i386 makes one", f"--boot.kernel={kernel}",
                     "--machine=TEST", "--boot.initramfs=" + self.file("module", b"A=1\n"))

    def test_an_initramfs_that_does_not_fit_beside_the_kernel(self):
        initramfs = self.file("large", bytes=100 << 20)
        self.refused(NO_RESOURCES, f"load initramfs '{initramfs}': it has 104857600 bytes, the largest free part of guest RAM "
                                   r"below 0x[0-9a-f]+ beside the kernel has \d+ bytes",
                     "--boot.kernel=" + os.path.join(harness.GUEST, "vmlinuz"), f"--boot.initramfs={initramfs}",
                     "--memory.size_mib=128")

    def test_a_kernel_that_does_not_fit(self):
        self.refused(NO_RESOURCES, r"load kernel '.*': ELF segment \d+ wants \d+ bytes at 0x[0-9a-f]+, which are not all "
                                   "free RAM between 1 MiB and the end of low RAM", "--memory.size_mib=64")

    def test_huge_pages_that_the_host_has_not_reserved(self):
        self.refused(NO_RESOURCES, "back guest RAM with 536870912 bytes of memory: No space left on device",
                     "--memory.huge_pages=SIZE_2M")

    def test_memory_that_may_not_be_locked(self):
        self.refused(NO_RESOURCES, r"lock 134217728 bytes of guest RAM in memory \(RLIMIT_MEMLOCK\): Cannot allocate memory",
                     "--memory.lock=true", "--memory.size_mib=128", under=("setpriv", "--bounding-set=-all", "prlimit", "--memlock=65536"))

    def test_a_serial_output_that_nobody_reads(self):
        fifo = os.path.join(self.folder.name, "fifo")
        os.mkfifo(fifo)
        self.refused(HOST_LACKS, f"open serial output '{fifo}': No such device or address", "--devices.serial.output=FILE",
                     f"--devices.serial.path={fifo}")

    def test_a_host_without_user_namespaces(self):
        inside = 'echo 0 >/proc/sys/user/max_user_namespaces && exec "$@"'
        self.refused(HOST_LACKS, "start device 'serial': create the namespaces: No space left on device "
                                 r"\(user.max_user_namespaces is 0\)", under=("unshare", "-Ur", "sh", "-c", inside, "-"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
