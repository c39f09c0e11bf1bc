"""What the kernel counts by thread while a guest runs: exits of the guest (kvm:kvm_exit), exits to user space
(kvm:kvm_userspace_exit), system calls (raw_syscalls:sys_enter), and of these the requests of ioctl (syscalls:sys_enter_ioctl). Needs
root and tracefs. The numbers are those of the running kernel's interfaces."""
import os
import re
import subprocess

TRACING = "/sys/kernel/tracing"
EVENTS = {"exits": ("kvm/kvm_exit", "common_pid,exit_reason"), "user": ("kvm/kvm_userspace_exit", "common_pid,reason"),
          "calls": ("raw_syscalls/sys_enter", "common_pid,id")}
IOCTLS = {"ioctls": ("syscalls/sys_enter_ioctl", "common_pid,cmd")}
SVM = {0x60: "host interrupt", 0x31: "debug register", 0x64: "interrupt window", 0x78: "hlt", 0x7b: "port", 0x7c: "MSR", 0x81: "vmmcall", 0x400: "memory"}
REASON = {2: "port", 5: "hlt", 6: "memory", 7: "window", 10: "kick", 27: "Hyper-V", 29: "MSR read", 30: "MSR write", 39: "refused memory"}
IOCTL = 16
SYSCALL = {0: "read", 1: "write", 17: "pread64", 18: "pwrite64", 295: "preadv", 296: "pwritev", 7: "poll", 10: "mprotect", 16: "ioctl", 28: "madvise", 202: "futex", 232: "epoll_wait", 233: "epoll_ctl", 234: "tgkill",
           271: "ppoll", 281: "epoll_pwait", 286: "timerfd_settime", 24: "sched_yield", 44: "sendto", 45: "recvfrom", 47: "recvmsg", 46: "sendmsg", 200: "tkill",
           14: "rt_sigprocmask", 15: "rt_sigreturn", 128: "rt_sigtimedwait", 20: "writev"}
# By number within KVM's type: sizes and directions are part of the rest.
REQUEST = {0x80: "KVM_RUN", 0x81: "GET_REGS", 0x82: "SET_REGS", 0x83: "GET_SREGS", 0x84: "SET_SREGS", 0x86: "INTERRUPT", 0x88: "GET_MSRS", 0x89: "SET_MSRS",
           0x8e: "GET_LAPIC", 0x98: "GET_MP_STATE", 0x99: "SET_MP_STATE", 0x9f: "GET_VCPU_EVENTS", 0xa0: "SET_VCPU_EVENTS",
           0xa1: "GET_DEBUGREGS", 0xa2: "SET_DEBUGREGS", 0xa4: "GET_XSAVE", 0xa5: "SET_XSAVE", 0xa6: "GET_XCRS", 0xa7: "SET_XCRS", 0xcf: "GET_XSAVE2",
           0xd2: "SET_MEMORY_ATTRIBUTES", 0xd5: "PRE_FAULT_MEMORY"}
SIGNAL_MSI = 0x4020aea5


def request(command):
    if command == SIGNAL_MSI:
        return "SIGNAL_MSI"
    return REQUEST.get(command & 0xff, hex(command)) if command >> 8 & 0xff == 0xae else hex(command)


def start_counting(events):
    """Before any VM runs: the kernel patches its code for it."""
    if not os.path.isdir(TRACING + "/events"):
        subprocess.run(["mount", "-t", "tracefs", "none", TRACING], check=True)
    for event, keys in events.values():
        with open(f"{TRACING}/events/{event}/trigger", "w") as trigger:
            trigger.write(f"hist:keys={keys}:size=4096")


def counters(events):
    """{kind: {(thread, key): count}}"""
    found = {}
    for kind, (event, _) in events.items():
        with open(f"{TRACING}/events/{event}/hist") as file:
            found[kind] = {(int(m[1]), int(m[2])): int(m[3]) for m in re.finditer(
                r"common_pid: *(\d+), \w+: *(\d+) *\} hitcount: *(\d+)", file.read())}
    return found


KINDS = {"exits": "exits of the guest", "user": "exits to user space", "calls": "system calls of all its processes"}


def print_counts(title, counts):
    """Sums by kind, each with its six most frequent; `counts` are Counters by the names of KINDS, per operation."""
    print(f"{title}: " + ", ".join(f"{words} {sum(counts[kind].values()):.2f}" for kind, words in KINDS.items()))
    for kind, words in (("exits", SVM), ("user", REASON), ("calls", SYSCALL)):
        keys = [f"{words.get(key, key)} {value:.2f}" for key, value in counts[kind].most_common(6) if value >= 0.005]
        if keys:
            print(f"    {kind}: {', '.join(keys)}")
