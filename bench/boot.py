#!/usr/bin/env python3
"""Boot time and memory, side by side with QEMU's microvm machine in one run: same kernel, initramfs, memory, command line,
one virtual processor, serial console. Prints; asserts nothing.

From exec of the monitor to the first line of user space. Rounds alternate, so that a slow moment hits both.

usage: boot.py VMM GUEST_FOLDER [ROUNDS]
"""
import os
import re
import select
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "vm"))

MARKER = b"vmm-guest: user space is up"
COMMAND_LINE = "console=ttyS0 quiet panic=-1"
MEMORY_MIB = 512
HYPERV = "vmm, vmlinux, Hyper-V"


def commands(vmm, guest):
    initramfs = os.path.join(guest, "initramfs.cpio")
    found = {}
    qemu = shutil.which("qemu-system-x86_64")
    for image in ("vmlinux", "vmlinuz"):
        kernel = os.path.join(guest, image)
        found[f"vmm, {image}"] = [vmm, "run", "--config", os.path.join(guest, "vm.textproto"), f"--boot.kernel={kernel}",
                                  f"--memory.size_mib={MEMORY_MIB}", f"--boot.command_line={COMMAND_LINE}"]
        if image == "vmlinux":
            found[HYPERV] = found["vmm, vmlinux"] + ["--hyperv.enabled=true"]
        if qemu:
            found[f"QEMU microvm, {image}"] = [
                qemu, "-accel", "kvm", "-M", "microvm", "-cpu", "host", "-m", str(MEMORY_MIB), "-smp", "1", "-nodefaults",
                "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-kernel", kernel, "-initrd",
                initramfs, "-append", COMMAND_LINE]
    return found


def boot(command, inspect=None):
    """Seconds to the marker; None if it does not come."""
    begin = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                             start_new_session=True)
    text = b""
    seconds = None
    while time.monotonic() - begin < 180:
        ready, _, _ = select.select([child.stdout], [], [], 5)
        if not ready:
            continue
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            break
        text += data
        if MARKER in text:
            seconds = time.monotonic() - begin
            break
    if seconds is None:
        sys.stderr.write(f"no user space from {command[0]}: {text[-300:]!r} {child.stderr.read1(2000)!r}\n")
    elif inspect:
        time.sleep(3)  # the guest is at its prompt
        inspect(child.pid)
    child.send_signal(signal.SIGTERM)
    try:
        child.wait(20)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    return seconds


def failure(command):
    """Seconds from SIGKILL of the serial process, while the guest writes, to the monitor's end; and its exit status."""
    import harness
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                             start_new_session=True)
    text = b""
    while b"guest# " not in text:
        data = os.read(child.stdout.fileno(), 65536)
        if not data:
            return None, child.wait()
        text += data
    child.stdin.write(b"yes writing\n")
    child.stdin.flush()
    for _ in range(50):
        os.read(child.stdout.fileno(), 65536)
    begin = time.monotonic()
    os.kill(harness.children_of(child.pid)[0], signal.SIGKILL)
    status = child.wait()
    return time.monotonic() - begin, status


def memory(pid):
    import harness
    print(f"  monitor: private memory beyond guest RAM {harness.private_kib(pid) / 1024:.2f} MiB")
    for child in harness.children_of(pid):
        with open(f"/proc/{child}/comm") as comm:
            print(f"  device process {comm.read().strip()}: private memory {harness.private_kib(child) / 1024:.2f} MiB")


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    os.environ.setdefault("VMM_BINARY", arguments[0])
    os.environ.setdefault("VMM_GUEST", arguments[1])
    rounds = int(arguments[2]) if len(arguments) > 2 else 3
    runs = commands(arguments[0], arguments[1])
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, command in runs.items():
            seconds = boot(command)
            if seconds is not None:
                times[name].append(seconds)
    print(f"exec to the first line of user space, {rounds} rounds, median (least .. most):")
    medians = {}
    for name, values in times.items():
        if values:
            medians[name] = statistics.median(values)
            print(f"  {name:24} {medians[name]:7.2f} s  ({min(values):.2f} .. {max(values):.2f})")
        else:
            print(f"  {name:24} did not boot")
    for image in ("vmlinux", "vmlinuz"):
        ours, theirs = medians.get(f"vmm, {image}"), medians.get(f"QEMU microvm, {image}")
        if ours and theirs:
            print(f"ratio boot {image}: {ours / theirs:.3f} of QEMU's time")
    if medians.get(HYPERV) and medians.get("vmm, vmlinux"):
        print(f"ratio boot Hyper-V: {medians[HYPERV] / medians['vmm, vmlinux']:.3f} of the time without its interface")
    print("memory, once booted:")
    boot(runs["vmm, vmlinux"], memory)
    seconds, status = failure(runs["vmm, vmlinux"])
    if seconds is not None:
        print(f"SIGKILL of the serial process while the guest writes, to the monitor's end with status {status}:")
        print(f"  seconds to the end: {seconds:.3f}")
    return 0 if medians else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
