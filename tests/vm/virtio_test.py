#!/usr/bin/env python3
"""Whole machines with virtio devices: Debian's own drivers against our backends, and what happens when a backend is killed.

Needs /dev/kvm.
"""
import fcntl
import hashlib
import os
import re
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
import unittest

import harness
from harness import Vm

MIB = 1 << 20


class VirtioTest(unittest.TestCase):
    # Each line is printed when its block has been written and made durable.
    WRITE_BLOCKS = ("i=0; while [ $i -lt {count} ]; do yes block-$i | dd of=/dev/vda bs=4k count=1 seek=$i iflag=fullblock conv=fsync,notrunc "
                    "2>/dev/null && echo \"@\"\"done $i@\"; i=$((i+1)); done; echo \"@\"\"all@\"")

    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def disk(self, name, mib=16, content=None):
        path = os.path.join(self.folder.name, name)
        with open(path, "wb") as file:
            file.write(content if content is not None else b"")
            file.truncate(mib * MIB)
        return path

    def power_off(self, vm):
        vm.type("poweroff")
        self.assertEqual(vm.end(), 0, vm.errors)

    def initramfs(self, **files):
        """The guest's, with more files: name="content"."""
        entries = []
        for name, content in files.items():
            path = os.path.join(self.folder.name, name)
            with open(path, "w") as file:
                file.write(content)
            entries.append(f"file:/{name}:755:{path}")
        more, both = os.path.join(self.folder.name, "more.cpio"), os.path.join(self.folder.name, "initramfs.cpio")
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "linux", "make_initramfs.py")
        subprocess.run(["python3", script, more, *entries], check=True)
        with open(both, "wb") as out:
            for name in (os.path.join(harness.GUEST, "initramfs.cpio"), more):
                with open(name, "rb") as part:
                    out.write(part.read())
                out.write(b"\0" * (-out.tell() % 512))
        return both

    def test_the_entropy_device_feeds_hwrng(self):
        with Vm("--devices.rng.enabled=true") as vm:
            vm.boot()
            self.assertRegex(vm.run("cat /sys/class/misc/hw_random/rng_current"), "virtio_rng")
            first = vm.run("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | md5sum")
            second = vm.run("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | md5sum")
            self.assertNotEqual(first, second)
            self.assertNotEqual(first.split()[0], hashlib.md5(b"").hexdigest())
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            self.power_off(vm)

    def test_a_disk_is_read_written_and_flushed_and_a_second_one_is_read_only(self):
        content = os.urandom(MIB)
        one, two = self.disk("one"), self.disk("two", content=content)
        blocks = (f'--devices.block=[{{path: "{one}" format: RAW serial: "disk-one" queues: 2}},'
                  f'{{path: "{two}" format: RAW read_only: true}}]')
        with Vm(blocks, "--processors.count=2", "--logging.level=DEBUG") as vm:
            vm.boot()
            self.assertEqual(vm.run("for file in vda/size vdb/size vda/serial vdb/ro; do cat /sys/block/$file; echo; done").split(),
                             [str(16 * MIB // 512)] * 2 + ["disk-one", "1"])
            self.assertEqual(vm.run("ls /sys/block/vda/mq | wc -l"), "2")
            self.assertEqual(vm.run("cat /sys/block/vda/queue/physical_block_size /sys/block/vda/queue/logical_block_size "
                                    "/sys/block/vda/queue/discard_granularity").split(), ["4096", "512", "4096"])
            # VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_MQ, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED.
            bits = vm.run("cat /sys/block/vda/device/features")
            self.assertEqual([bits[n] for n in (9, 12, 29, 34)], ["1"] * 4, bits)
            self.assertEqual(vm.run("dd if=/dev/vdb bs=64k count=16 2>/dev/null | md5sum").split()[0],
                             hashlib.md5(content).hexdigest())
            vm.run("dd if=/dev/vdb of=/dev/vda bs=64k count=16 seek=32 2>/dev/null; sync")
            self.assertRegex(vm.run("dd if=/dev/zero of=/dev/vdb bs=512 count=1 2>&1"), "not permitted|denied|[Rr]ead-only")
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            # The data path: hundreds of requests, and none of their kicks came to the monitor; its registers were used for set-up alone.
            self.assertGreater(sum(int(vm.run(f"cat /sys/block/{disk}/stat").split()[n]) for disk in ("vda", "vdb") for n in (0, 4)), 16)
            self.power_off(vm)
            counts = dict(re.findall(r"device '(block\d)': \d+ register accesses, (\d+) notifications that left KVM", vm.errors))
            self.assertEqual(counts, {"block0": "0", "block1": "0"}, vm.errors)
        with open(one, "rb") as file:
            file.seek(2 * MIB)
            self.assertEqual(file.read(MIB), content)

    def test_a_killed_block_backend_is_started_again_and_no_acknowledged_write_is_lost(self):
        path = self.disk("disk", mib=32)
        with Vm(f'--devices.block={{path: "{path}" format: RAW on_failure: RESTART}}') as vm:
            vm.boot()
            vm.type(self.WRITE_BLOCKS.format(count=400))
            for kill_at in (20, 60, 120):
                vm.wait_for(rf"@done {kill_at}@")
                os.kill(vm.device("vmm-block"), signal.SIGKILL)
            vm.wait_for("@all@", limit=600)
            vm.wait_for(re.escape(harness.PROMPT))
            done = {int(n) for n in re.findall(r"@done (\d+)@", vm.text)}
            self.assertEqual(done, set(range(400)))
            self.assertEqual(vm.errors.count("works again"), 3, vm.errors)
            self.power_off(vm)
        with open(path, "rb") as file:
            for i in range(400):
                expected = (f"block-{i}\n".encode() * 4096)[:4096]
                self.assertEqual(file.read(4096), expected, f"block {i}")

    def test_a_root_file_system_is_installed_and_booted_and_whole_after_kills(self):
        path = self.disk("root", mib=64)
        block = f'--devices.block={{path: "{path}" format: RAW on_failure: RESTART}}'
        with Vm(block) as vm:
            vm.boot()
            vm.run("mkdir /mnt; busybox mke2fs /dev/vda > /tmp/log 2>&1 && mount -t ext4 /dev/vda /mnt && cd /mnt && mkdir dev proc sys tmp root && "
                   "cp -a /bin /sbin /etc /lib /mnt/ && busybox ln -s /bin/busybox sbin/init; cd /; sync; umount /mnt")
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            self.power_off(vm)
        self.assertEqual(subprocess.run(["e2fsck", "-fn", path], capture_output=True).returncode, 0)

        # The kernel's block driver is a module: a few lines of an init find the disk and go on there.
        initramfs = self.initramfs(disk="#!/bin/sh\nmount -t devtmpfs devtmpfs /dev; mount -t sysfs sysfs /sys; insmod /lib/modules/virtio_blk.ko\n"
                                        "mkdir /new; mount -t ext4 /dev/vda /new && umount /sys && exec busybox switch_root /new /sbin/init\n")
        flags = (block, f"--boot.initramfs={initramfs}", "--boot.command_line=console=ttyS0 quiet panic=-1 rdinit=/disk")
        with Vm(*flags) as vm:
            vm.boot()
            self.assertRegex(vm.run("cat /proc/mounts"), r"/dev/vda / ext4 rw")
            vm.type("for i in 0 1 2 3 4 5 6 7 8 9; do mkdir /data$i; for k in 0 1 2 3 4 5 6 7; do yes $i-$k | head -c 100000 > /data$i/$k; done; sync; "
                    "echo \"@\"\"written $i@\"; done; echo \"@\"\"all@\"")
            for kill_at in (1, 3, 4, 7):
                vm.wait_for(rf"@written {kill_at}@")
                os.kill(vm.device("vmm-block"), signal.SIGKILL)
            vm.wait_for("@all@", limit=400)
            vm.wait_for(re.escape(harness.PROMPT))
            self.assertEqual(vm.errors.count("works again"), 4, vm.errors)
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            vm.run("sync; mount -o remount,ro /")
            self.power_off(vm)
        self.assertEqual(subprocess.run(["e2fsck", "-fn", path], capture_output=True).returncode, 0)

        with Vm(*flags) as vm:
            vm.boot()
            sums = {line.split()[1]: line.split()[0] for line in vm.run("md5sum /data*/*").splitlines()}
            expected = {f"/data{i}/{k}": hashlib.md5((f"{i}-{k}\n".encode() * 25000)[:100000]).hexdigest() for i in range(10) for k in range(8)}
            self.assertEqual(sums, expected)
            vm.run("mount -o remount,ro /")
            self.power_off(vm)

    def test_what_a_guest_discards_takes_no_room_on_the_host(self):
        path = self.disk("disk", content=os.urandom(8 * MIB), mib=8)
        before = os.stat(path).st_blocks
        with Vm(f'--devices.block={{path: "{path}" format: RAW}}') as vm:
            vm.boot()
            self.assertNotEqual(vm.run("cat /sys/block/vda/queue/discard_max_bytes"), "0")
            self.assertNotEqual(vm.run("cat /sys/block/vda/queue/write_zeroes_max_bytes"), "0")
            self.assertEqual(vm.run("busybox blkdiscard -o 1048576 -l 4194304 /dev/vda; echo status $?"), "status 0")
            self.power_off(vm)
        self.assertLessEqual(os.stat(path).st_blocks, before - 4 * MIB // 512)
        with open(path, "rb") as file:
            self.assertNotEqual(file.read(MIB), bytes(MIB))
            self.assertEqual(file.read(4 * MIB), bytes(4 * MIB))

    def test_a_block_device_of_the_host_is_a_disk(self):
        if os.geteuid() == 0:
            subprocess.run(["modprobe", "loop"], stderr=subprocess.DEVNULL)
        if os.geteuid() != 0 or not os.path.exists("/dev/loop-control"):
            self.skipTest("no loop devices here")
        content = os.urandom(MIB)
        path = self.disk("image", mib=16, content=content)
        loop = subprocess.run(["losetup", "--find", "--show", path], check=True, capture_output=True, text=True).stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", loop])
        with Vm(f'--devices.block={{path: "{loop}" format: RAW}}') as vm:
            vm.boot()
            self.assertEqual(vm.run("cat /sys/block/vda/size"), str(16 * MIB // 512))
            self.assertEqual(vm.run("dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum").split()[0], hashlib.md5(content).hexdigest())
            self.assertEqual(vm.run("dd if=/dev/vda of=/dev/vda bs=64k count=16 seek=32 conv=fsync 2>/dev/null; echo status $?"), "status 0")
            self.assertEqual(vm.run("busybox blkdiscard -o 0 -l 65536 /dev/vda; echo status $?"), "status 0")
            self.assertEqual(vm.run("dmesg -r | grep '^<[0-3]>'"), "")
            self.power_off(vm)
        with open(path, "rb") as file:
            self.assertEqual(file.read(65536), bytes(65536))
            file.seek(2 * MIB)
            self.assertEqual(file.read(MIB), content)

    def test_a_killed_backend_ends_the_machine_or_is_gone_as_configured(self):
        with Vm("--devices.rng.enabled=true") as vm:
            vm.boot()
            os.kill(vm.device("vmm-rng"), signal.SIGKILL)
            self.assertEqual(vm.end(), 38, vm.errors)
            self.assertIn("rng", vm.errors)
            self.assertIn("signal 9", vm.errors)
        path = self.disk("disk")
        with Vm(f'--devices.block={{path: "{path}" format: RAW on_failure: DETACH}}') as vm:
            vm.boot()
            os.kill(vm.device("vmm-block"), signal.SIGKILL)
            vm.wait_for_log("goes on without it")
            self.assertEqual(vm.run("echo still here"), "still here")
            self.power_off(vm)

    def test_a_stuck_backend_does_not_hang_a_processor_for_longer_than_its_bound(self):
        with Vm("--devices.rng.enabled=true", "--devices.rng.on_failure=DETACH") as vm:
            vm.boot()
            os.kill(vm.device("vmm-rng"), signal.SIGSTOP)
            # Unbinding resets the device: a question to the backend, which never answers.
            vm.run("for d in /sys/bus/virtio/drivers/virtio_rng/virtio*; do echo ${d##*/} > /sys/bus/virtio/drivers/virtio_rng/unbind; done")
            self.assertEqual(vm.run("echo still here"), "still here")
            self.power_off(vm)
            self.assertIn("rng", vm.errors)

    def test_the_console_is_a_pseudo_terminal_with_a_size(self):
        with Vm("--devices.console.output=PTY") as vm:
            vm.boot()
            name = re.search(r"the console is (/dev/pts/\d+)", vm.errors)
            self.assertIsNotNone(name, vm.errors)
            terminal = os.open(name.group(1), os.O_RDWR | os.O_NOCTTY)
            self.addCleanup(os.close, terminal)
            vm.run("echo from the guest > /dev/hvc0")
            self.assertEqual(self.read_line(terminal), "from the guest")
            vm.run("stty -echo < /dev/hvc0; (read line < /dev/hvc0; echo \"got $line\" > /tmp/line) & true")
            os.write(terminal, b"typed here\n")
            self.assertIn("got typed here", vm.run("while [ ! -s /tmp/line ]; do sleep 1; done; cat /tmp/line"))
            for rows, columns in ((31, 97), (40, 120)):
                fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                vm.run(f"while [ \"$(stty size < /dev/hvc0)\" != '{rows} {columns}' ]; do sleep 1; done")
            self.power_off(vm)

    def read_line(self, terminal):
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([terminal], [], [], 60)
            self.assertTrue(ready, f"nothing more on the console after {line}")
            line += os.read(terminal, 1)
        return line.decode().strip()

    def test_reserved_memory_is_in_no_device_process_and_the_guest_leaves_it_alone(self):
        content = os.urandom(MIB)
        path = self.disk("disk", content=content)
        with Vm(f'--devices.block={{path: "{path}" format: RAW}}', "--devices.rng.enabled=true",
                "--memory.size_mib=256", "--memory.reserved=[{start_mib: 128 size_mib: 4}, {start_mib: 96 size_mib: 2}]") as vm:
            vm.boot()
            ranges = vm.run("grep -i reserved /proc/iomem").lower()
            self.assertIn("06000000-061fffff : reserved", ranges)
            self.assertIn("08000000-083fffff : reserved", ranges)

            def files(pid):
                with open(f"/proc/{pid}/maps") as maps:
                    mapped = maps.read()
                return mapped + "".join(os.readlink(f"/proc/{pid}/fd/{fd}") + "\n" for fd in os.listdir(f"/proc/{pid}/fd"))

            self.assertIn("memfd:guest-ram-reserved", files(vm.process.pid))
            for name in ("vmm-block", "vmm-rng"):
                self.assertIn("memfd:guest-ram ", files(vm.device(name)))
            for pid in vm.children():
                self.assertNotIn("guest-ram-reserved", files(pid))
            self.assertEqual(vm.run("dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum").split()[0], hashlib.md5(content).hexdigest())
            # Most of memory is used, and no request goes to what is not the guest's.
            vm.run("mkdir -p /tmp/full; mount -t tmpfs -o size=100% none /tmp/full; dd if=/dev/zero of=/tmp/full/all bs=1M count=128 2>/dev/null; "
                   "dd if=/dev/vda of=/tmp/full/disk bs=64k 2>/dev/null; rm /tmp/full/*")
            self.power_off(vm)
            self.assertNotIn("queues stopped", vm.errors)

    def backend_for_qemu(self, path, sock):
        """Our block backend by itself, listening; and QEMU's command with it as its disk."""
        backend = subprocess.Popen([harness.VMM, "device", "block", "--path", path, "--serial", "for-qemu", "--socket", sock],
                                   stderr=subprocess.PIPE)
        self.addCleanup(backend.stderr.close)
        self.addCleanup(backend.wait)
        self.addCleanup(backend.kill)
        deadline = time.monotonic() + 60
        while not os.path.exists(sock):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        return backend, ["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-machine", "q35,memory-backend=ram,usb=off", "-m", "256M",
                         "-object", "memory-backend-memfd,id=ram,size=256M,share=on", "-nodefaults", "-no-user-config", "-display", "none",
                         "-serial", "stdio", "-no-reboot", "-kernel", os.path.join(harness.GUEST, "vmlinuz"), "-initrd",
                         os.path.join(harness.GUEST, "initramfs.cpio"), "-append", "console=ttyS0 quiet panic=-1",
                         "-chardev", f"socket,id=disk,path={sock},reconnect=1", "-device", "vhost-user-blk-pci,chardev=disk"]

    def test_our_block_backend_serves_qemu(self):
        content = os.urandom(MIB)
        path = self.disk("disk", content=content)
        backend, command = self.backend_for_qemu(path, os.path.join(self.folder.name, "sock"))
        with Vm(command=command) as vm:
            vm.boot()
            self.assertEqual(vm.run("cat /sys/block/vda/serial"), "for-qemu")
            self.assertEqual(vm.run("dd if=/dev/vda bs=64k count=16 2>/dev/null | md5sum").split()[0], hashlib.md5(content).hexdigest())
            vm.run("dd if=/dev/vda of=/dev/vda bs=64k count=16 seek=32 conv=fsync 2>/dev/null")
            vm.type("poweroff")
            self.assertEqual(vm.end(limit=180), 0, vm.errors)
        with open(path, "rb") as file:
            file.seek(2 * MIB)
            self.assertEqual(file.read(MIB), content)
        self.assertIsNone(backend.poll(), "the backend waits for the next front end")

    def test_our_block_backend_is_killed_behind_qemu_and_no_acknowledged_write_is_lost(self):
        # QEMU's front end keeps the in-flight region for the next process.
        path = self.disk("disk")
        backend, command = self.backend_for_qemu(path, os.path.join(self.folder.name, "sock"))
        with Vm(command=command) as vm:
            vm.boot()
            vm.type(self.WRITE_BLOCKS.format(count=120))
            for kill_at in (20, 60):
                vm.wait_for(rf"@done {kill_at}@")
                device, = harness.children_of(backend.pid)
                os.kill(device, signal.SIGKILL)
            vm.wait_for("@all@", limit=180)
            vm.wait_for(re.escape(harness.PROMPT))
            self.assertEqual({int(n) for n in re.findall(r"@done (\d+)@", vm.text)}, set(range(120)))
            vm.type("poweroff")
            self.assertEqual(vm.end(limit=180), 0, vm.errors)
        with open(path, "rb") as file:
            for i in range(120):
                self.assertEqual(file.read(4096), (f"block-{i}\n".encode() * 4096)[:4096], f"block {i}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
