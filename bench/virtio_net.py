#!/usr/bin/env python3
"""Our network device and QEMU's virtio-net over a TAP interface each, side by side: the same Debian kernel and initramfs, one virtual
processor, in turn; QEMU without vhost, as a program's own device, and with the kernel's (vhost-net) where the host has it. Prints; asserts
nothing.

bench/net_load.cc is the load and its other end: a TCP connection from the guest and one to it as fast as they go, and round trips of a
byte. Rounds for rates first, then one in which the kernel counts exits of the guest, exits to user space and system calls of each program's
processes while the guest's console is silent.

Interfaces are made in a network namespace of the program's own, with addresses of documentation (RFC 5737).

usage: virtio_net.py VMM GUEST_FOLDER NET_LOAD [ROUNDS]
"""
import collections
import ctypes
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "vm"))
import boot
import kernel_counts
import virtio_block

HOST, GUEST, PORT = "192.0.2.1", "192.0.2.2", 5000
SECONDS = 2
LOADS = {"from the guest": "send", "to the guest": "receive", "round trips": "echo"}


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


def ours(vmm, guest, initramfs, tap):
    return [vmm, "run", "--config", os.path.join(guest, "vm.textproto"), f"--boot.kernel={guest}/vmlinux", f"--boot.initramfs={initramfs}",
            "--logging.level=DEBUG", f'--devices.net={{tap: "{tap}"}}']


def qemus(guest, initramfs, tap, vhost):
    return ["qemu-system-x86_64", "-accel", "kvm", "-M", "q35,usb=off", "-cpu", "host", "-smp", "1", "-m", "512", "-nodefaults",
            "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", f"{guest}/vmlinuz", "-initrd", initramfs,
            "-append", boot.COMMAND_LINE, "-netdev", f"tap,id=net,ifname={tap},script=no,downscript=no,vhost={'on' if vhost else 'off'}",
            "-device", "virtio-net-pci,netdev=net"]


def packets(tap):
    with open("/proc/thread-self/net/dev") as file:  # this namespace's, which /sys is not
        fields = re.search(rf"{tap}: *(.*)", file.read()).group(1).split()
    return int(fields[1]) + int(fields[9])


def load(vm, kind, tap, pids, counting):
    """(bytes or round trips a second, of them a packet, {kind: Counter of keys per packet})"""
    vm.type(f"net_load {kind} {HOST} {PORT} {SECONDS}")
    vm.wait_for("ready\r?\n")
    before, packets_before = kernel_counts.counters(kernel_counts.EVENTS) if counting else None, packets(tap)
    vm.type("")
    match = vm.wait_for(r"ops (\d+) ns (\d+)\r?\n|[a-z ]+: [A-Z].*\n")
    if match.group(1) is None:
        raise AssertionError(match.group(0))
    count = packets(tap) - packets_before
    counts = collections.defaultdict(collections.Counter)
    if counting:
        running = virtio_block.tasks(pids)
        for what, values in kernel_counts.counters(kernel_counts.EVENTS).items():
            for (task, key), value in values.items():
                if task in running and value != before[what].get((task, key), 0):
                    counts[what][key] += (value - before[what].get((task, key), 0)) / count
    vm.type("")
    vm.wait_for(re.escape(harness.PROMPT))
    return int(match.group(1)) / int(match.group(2)) * 1e9, int(match.group(1)) / count, counts


def run(command, tap, counting):
    with harness.Vm(command=command) as vm:
        vm.boot()
        vm.run(f"ip address add {GUEST}/24 dev eth0; ip link set eth0 up; ping -c 1 -W 10 {HOST}")
        # vhost-net's work is a kernel thread's, or one of the process: counted where it is the latter.
        pids = [vm.process.pid, *harness.children_of(vm.process.pid)]
        found = {name: load(vm, kind, tap, pids, counting) for name, kind in LOADS.items()}
        memory = {}
        for pid in pids:
            with open(f"/proc/{pid}/comm") as comm:
                memory[comm.read().strip()] = harness.private_kib(pid)
        vm.type("poweroff")
        vm.end(limit=180)
    return found, memory, vm.errors


def main(arguments):
    if len(arguments) < 3:
        sys.exit(__doc__)
    vmm, guest, net_load = arguments[:3]
    rounds = int(arguments[3]) if len(arguments) > 3 else 2
    os.environ.setdefault("VMM_BINARY", vmm)
    os.environ.setdefault("VMM_GUEST", guest)
    global harness
    import harness
    subprocess.run(["modprobe", "tun"], stderr=subprocess.DEVNULL)
    with_vhost = subprocess.run(["modprobe", "vhost_net"], stderr=subprocess.DEVNULL).returncode == 0
    virtio_block.harness = harness
    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000) != 0:  # CLONE_NEWNET
        sys.exit(f"virtio_net.py: no network namespace: {os.strerror(ctypes.get_errno())}")
    ip("link", "set", "lo", "up")
    tap = "benchtap"
    ip("tuntap", "add", "dev", tap, "mode", "tap")
    ip("address", "add", f"{HOST}/24", "dev", tap)
    ip("link", "set", tap, "up")
    server = subprocess.Popen([net_load, "serve", HOST, str(PORT)])
    machines = ["vmm", "QEMU"] + (["vhost-net"] if with_vhost and os.path.exists("/dev/vhost-net") else [])
    if not shutil.which("qemu-system-x86_64"):
        machines = ["vmm"]
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        initramfs = virtio_block.add_to_initramfs(guest, net_load, folder, "net_load")

        def one(name, counting):
            command = ours(vmm, guest, initramfs, tap) if name == "vmm" else qemus(guest, initramfs, tap, name == "vhost-net")
            return run(command, tap, counting)

        rates = {name: collections.defaultdict(list) for name in machines}
        for part in range(rounds):
            for name in machines[part % len(machines):] + machines[:part % len(machines)]:
                found, memory, _ = one(name, False)
                for what, (rate, each, _) in found.items():
                    rates[name][what].append((rate, each))
                if name == "vmm":
                    ours_memory = memory
        print(f"a second, {rounds} rounds, median (the lab's: only ratios mean anything)")
        medians = {name: {what: statistics.median(rate for rate, _ in rates[name][what]) for what in LOADS} for name in machines}
        for what in LOADS:
            trips = what == "round trips"
            print(f"  {what:16}" + "".join(f"{name:>10} {medians[name][what] / (1 if trips else 1e6):8.1f} {'' if trips else 'MB'}" for name in machines) +
                  ("" if trips else "; bytes a packet: " + ", ".join(f"{name} {rates[name][what][-1][1]:.0f}" for name in machines)))
        for name in machines[1:]:
            for what in LOADS:
                print(f"ratio net {what}, beside {name}: {medians['vmm'][what] / medians[name][what]:.2f}")
        for name, kib in ours_memory.items():
            if name != "vmm":
                print(f"network device process {name}: private memory {kib / 1024:.2f} MiB")
        sys.stdout.flush()
        kernel_counts.start_counting(kernel_counts.EVENTS)
        for name in machines:
            found, _, errors = one(name, True)
            for what, (_, _, counts) in found.items():
                kernel_counts.print_counts(f"per packet, {what}, {name}", counts)
            if name == "vmm":
                for device, notifications in re.findall(r"device '(net\d)': \d+ register accesses, (\d+) notifications that left KVM", errors):
                    print(f"notifications that came to the monitor from {device}: {notifications}")
            sys.stdout.flush()
    server.kill()
    server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
