#!/usr/bin/env python3
"""Our block device and QEMU's virtio-blk, side by side: the same Debian kernel and initramfs, the same raw image in memory, one
virtual processor, in turn. Prints; asserts nothing.

bench/block_load.cc is the load: random reads and writes of 4 KiB at depths of 1 and 16, and long ones of 128 KiB, past the guest's
page cache. Rounds for rates first, then one in which the kernel counts exits of the guest, exits to user space and system calls of
each program's processes while the guest's console is silent. Then each device process's memory, and what a device costs at start.
QEMU has an iothread, and its cache is the host's, as ours is (cache=writeback).

usage: virtio_block.py VMM GUEST_FOLDER BLOCK_LOAD [ROUNDS [DEVICE_ARGUMENT...]]
  DEVICE_ARGUMENT: for `vmm device block`, which then runs by itself and not under `vmm run`, to compare settings
"""
import collections
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "vm"))
import boot
import kernel_counts

MIB = 1 << 20
IMAGE_MIB = 64
SECONDS = 1.5
# name: kind, depth, bytes
LOADS = {"random read, depth 1": ("read", 1, 4096), "random read, depth 16": ("read", 16, 4096),
         "random write, depth 1": ("write", 1, 4096), "random write, depth 16": ("write", 16, 4096),
         "long reads": ("seqread", 4, 131072), "long writes": ("seqwrite", 4, 131072)}
COUNTED = ("random read, depth 1", "random read, depth 16", "random write, depth 16")


def add_to_initramfs(guest, load, folder, name="block_load"):
    """The kernel unpacks one archive after the other."""
    extra, both = os.path.join(folder, "extra.cpio"), os.path.join(folder, "initramfs.cpio")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "examples", "linux", "make_initramfs.py")
    subprocess.run([sys.executable, script, extra, f"file:/bin/{name}:755:{load}"], check=True)
    with open(both, "wb") as out:
        for name in (os.path.join(guest, "initramfs.cpio"), extra):
            with open(name, "rb") as part:
                shutil.copyfileobj(part, out)
            out.write(b"\0" * (-out.tell() % 512))
    return both


def ours(vmm, guest, initramfs, images, socket=None):
    command = [vmm, "run", "--config", os.path.join(guest, "vm.textproto"), f"--boot.kernel={guest}/vmlinux",
               f"--boot.initramfs={initramfs}", "--logging.level=DEBUG"]
    if images:
        blocks = ",".join(f'{{path: "{image}" format: RAW}}' if socket is None else f'{{socket: "{socket}"}}' for image in images)
        command.append(f"--devices.block=[{blocks}]")
    return command


def qemus(guest, initramfs, images):
    command = ["qemu-system-x86_64", "-accel", "kvm", "-M", "q35,usb=off", "-cpu", "host", "-smp", "1", "-m", "512", "-nodefaults",
               "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", f"{guest}/vmlinuz", "-initrd", initramfs,
               "-append", boot.COMMAND_LINE]
    for i, image in enumerate(images):
        command += ["-object", f"iothread,id=thread{i}", "-drive", f"file={image},if=none,id=disk{i},format=raw,cache=writeback",
                    "-device", f"virtio-blk-pci,drive=disk{i},iothread=thread{i}"]
    return command


def tasks(pids):
    found = []
    for pid in pids:
        try:
            found += [int(task) for task in os.listdir(f"/proc/{pid}/task")]
        except OSError:
            pass
    return found


def load(vm, name, pids, counting):
    """(operations a second, {kind: Counter of keys per operation})"""
    kind, depth, size = LOADS[name]
    vm.type(f"block_load /dev/vda {kind} {depth} {size} {SECONDS}")
    vm.wait_for("ready\r?\n")
    before = kernel_counts.counters(kernel_counts.EVENTS) if counting else None
    vm.type("")
    # The line's own echo is over before the measuring matters; the program says nothing meanwhile.
    match = vm.wait_for(r"ops (\d+) ns (\d+)\r?\n|a request ended.*\n|[a-z_]+: [A-Z].*\n")
    if match.group(1) is None:
        raise AssertionError(match.group(0))
    counts = collections.defaultdict(collections.Counter)
    if counting:
        running = tasks(pids)
        for what, values in kernel_counts.counters(kernel_counts.EVENTS).items():
            for (task, key), value in values.items():
                if task in running and value != before[what].get((task, key), 0):
                    counts[what][key] += (value - before[what].get((task, key), 0)) / int(match.group(1))
    vm.type("")
    vm.wait_for(re.escape(harness.PROMPT))
    return int(match.group(1)) / int(match.group(2)) * 1e9, counts


def run(command, extra_pid, counting, names):
    with harness.Vm(command=command) as vm:
        vm.boot()
        pids = [vm.process.pid, *harness.children_of(vm.process.pid), *extra_pid]
        found = {name: load(vm, name, pids, counting) for name in names}
        memory = {}
        for pid in pids:
            with open(f"/proc/{pid}/comm") as comm:
                memory[comm.read().strip()] = harness.private_kib(pid)
        vm.type("poweroff")
        vm.end(limit=180)
    return found, memory, vm.errors


def startup(vmm, guest, initramfs, image, rounds):
    """Seconds to user space with so many disks; milliseconds from a device's start to the end of its handshake."""
    times, handshakes = collections.defaultdict(list), []
    images = []
    for i in range(3):
        images.append(f"{image}.{i}")
        shutil.copyfile(image, images[-1])
    for _ in range(rounds):
        for count in (0, 1, 3):
            command = ours(vmm, guest, initramfs, images[:count])
            begin = boot.boot(command)
            if begin is not None:
                times[count].append(begin)
    with harness.Vm(command=ours(vmm, guest, initramfs, images)) as vm:
        vm.boot()
        handshakes += [int(us) / 1000 for us in re.findall(r"started device 'block\d' \(pid \d+\) in (\d+) us", vm.errors)]
        vm.kill()
        vm.end()
    return times, handshakes


def main(arguments):
    if len(arguments) < 3:
        sys.exit(__doc__)
    vmm, guest, block_load = arguments[:3]
    rounds = int(arguments[3]) if len(arguments) > 3 else 2
    device_arguments = arguments[4:]
    os.environ.setdefault("VMM_BINARY", vmm)
    os.environ.setdefault("VMM_GUEST", guest)
    global harness
    import harness
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        initramfs = add_to_initramfs(guest, block_load, folder)
        image = os.path.join(folder, "disk")
        with open(image, "wb") as file:
            for _ in range(IMAGE_MIB):
                file.write(os.urandom(MIB))

        def one(name, counting):
            names = COUNTED if counting else LOADS
            if name == "QEMU":
                return run(qemus(guest, initramfs, [image]), [], counting, names)
            if not device_arguments:
                return run(ours(vmm, guest, initramfs, [image]), [], counting, names)
            socket = os.path.join(folder, "socket")
            backend = subprocess.Popen([vmm, "device", "block", "--path", image, "--socket", socket, *device_arguments])
            while not os.path.exists(socket):
                time.sleep(0.05)
            # Its process comes with the front end: found by what it is called.
            result = run(ours(vmm, guest, initramfs, [image], socket), [backend.pid], counting, names)
            backend.kill()
            backend.wait()
            return result

        machines = ["vmm"] + (["QEMU"] if shutil.which("qemu-system-x86_64") and not device_arguments else [])
        rates = {name: collections.defaultdict(list) for name in machines}
        for part in range(rounds):
            for name in machines[part % len(machines):] + machines[:part % len(machines)]:
                found, memory, _ = one(name, False)
                for what, (rate, _) in found.items():
                    rates[name][what].append(rate)
                if name == "vmm":
                    ours_memory = memory
        print(f"operations a second, {rounds} rounds, median (the lab's: only ratios mean anything)")
        for what in LOADS:
            values = {name: statistics.median(rates[name][what]) for name in machines}
            print(f"  {what:24}" + "".join(f"{name:>6} {value:9.0f}" for name, value in values.items()))
        for what in LOADS:
            if "QEMU" in machines:
                print(f"ratio block {what}: {statistics.median(rates['vmm'][what]) / statistics.median(rates['QEMU'][what]):.2f} "
                      "times QEMU's operations per second")
        for name, kib in ours_memory.items():
            if name != "vmm":
                print(f"block device process {name}: private memory {kib / 1024:.2f} MiB")
        sys.stdout.flush()
        kernel_counts.start_counting(kernel_counts.EVENTS)
        for name in machines:
            found, _, errors = one(name, True)
            for what in COUNTED:
                kernel_counts.print_counts(f"per operation, {what}, {name}", found[what][1])
            if name == "vmm":
                for device, notifications in re.findall(r"device '(\w+)': \d+ register accesses, (\d+) notifications that left KVM", errors):
                    print(f"notifications that came to the monitor from {device}: {notifications}")
        sys.stdout.flush()
        if not device_arguments:
            times, handshakes = startup(vmm, guest, initramfs, image, rounds)
            medians = {count: statistics.median(values) for count, values in times.items()}
            print("exec to user space with 0, 1, 3 disks: " + ", ".join(f"{medians[count]:.2f} s" for count in sorted(medians)))
            if 3 in medians and 0 in medians:
                print(f"start-up cost of a disk, of the boot without: {(medians[3] - medians[0]) / 3 / medians[0]:.3f}")
            if handshakes:
                print(f"a device process from its start to the end of the handshake, median: {statistics.median(handshakes):.1f} ms")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
