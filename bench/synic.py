#!/usr/bin/env python3
"""Delivery through the SynIC, side by side: the same guest program (tests/guests/bench/synic_bench.cc) under vmm with both backings
and under QEMU with its Hyper-V test device, in turn. Prints; asserts nothing.

First rounds for times, in which nothing is traced; then one for counts, in which the kernel counts exits of the guest
(kvm:kvm_exit), exits to user space (kvm:kvm_userspace_exit) and system calls (raw_syscalls:sys_enter) by thread. The guest says
where a scenario begins and ends and waits there until the counters are read. Needs root, tracefs and four processors' worth of KVM.

usage: synic.py VMM GUEST.elf [ROUNDS]
"""
import collections
import os
import re
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import kernel_counts
from kernel_counts import EVENTS, REASON, SVM, SYSCALL

TARGET, POSTERS = 1, {"burst3": (2, 3, 0)}
BURSTS = {"burst1": "BurstOfOne", "burst3": "BurstOfThree"}
TIMEOUT, RETRIES = 60, 2

CONFIG = """machine: TEST
memory {{ size_mib: 64 }}
processors {{ count: 4 }}
boot {{ kernel: "{guest}" command_line: "{arguments}" }}
hyperv {{ enabled: true backing: {backing} }}
logging {{ level: WARNING }}
"""
HYPERV = ("hv-relaxed,hv-vpindex,hv-time,hv-runtime,hv-frequencies,hv-vapic,hv-synic,hv-stimer,hv-stimer-direct,hv-reset")


class Machine:
    """`command(arguments)` starts it with that command line of the guest; the VP number is the group in `thread`."""

    def __init__(self, name, command, thread):
        self.name, self.command, self.thread = name, command, thread


def machines(vmm, guest, folder):
    def ours(backing):
        def command(arguments):
            config = os.path.join(folder, f"{backing}.textproto")
            with open(config, "w") as out:
                out.write(CONFIG.format(guest=guest, arguments=arguments, backing=backing))
            return [vmm, "run", "--config", config]
        return Machine(f"vmm {backing}", command, r"vp-(\d+)")

    found = [ours("KERNEL"), ours("OWN")]
    qemu = shutil.which("qemu-system-x86_64")
    if qemu:
        found.append(Machine("QEMU", lambda arguments: [
            qemu, "-name", "bench,debug-threads=on", "-accel", "kvm", "-M", "pc", "-cpu", f"host,{HYPERV}", "-smp", "4", "-m", "64",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio", "-device", "hyperv-testdev",
            "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-kernel", guest, "-append", arguments], r"CPU (\d+)/KVM"))
    return found


class Scenario:
    def __init__(self):
        self.results = {}
        self.messages = 0
        self.seconds = 0.0
        self.counts = None  # {kind: {"target"|"poster"|"others": Counter by key}}


def roles(machine, pid, scenario):
    """Threads of the process by what they do in the scenario."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as comm:
            match = re.fullmatch(machine.thread, comm.read().strip())
        number = int(match[1]) if match else None
        if number is None:
            found[int(task)] = "others"
        elif number == TARGET:
            found[int(task)] = "target"
        elif number in POSTERS.get(scenario, (2,)):
            found[int(task)] = "posters"
    return found


def run(machine, counting, only=""):
    """{scenario: Scenario}, and what is wrong with the run, if anything."""
    child = subprocess.Popen(machine.command("lines=short marks=1" + only), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    found = collections.defaultdict(Scenario)
    text, wrong, before, begin = b"", [], None, 0.0
    deadline = time.monotonic() + TIMEOUT
    while True:
        ready, _, _ = select.select([child.stdout], [], [], max(0, deadline - time.monotonic()))
        data = os.read(child.stdout.fileno(), 65536) if ready else b""
        if not data:
            break
        text += data
        *lines, text = text.split(b"\n")
        for line in (line.decode(errors="replace").strip() for line in lines):
            words = line.split()
            if os.environ.get("VMM_BENCH_VERBOSE"):
                sys.stderr.write(f"{machine.name}: {line}\n")
            if line.startswith("# mark "):
                name, edge = words[2], words[3]
                if edge == "begin":
                    before, begin = (kernel_counts.counters(EVENTS) if counting else None), time.monotonic()
                else:
                    found[name].seconds = time.monotonic() - begin
                    found[name].messages = int(words[4])
                    if counting:
                        after, role = kernel_counts.counters(EVENTS), roles(machine, child.pid, name)
                        counts = {kind: collections.defaultdict(collections.Counter) for kind in EVENTS}
                        for kind, values in after.items():
                            for (task, key), value in values.items():
                                if task in role:
                                    counts[kind][role[task]][key] += value - before[kind].get((task, key), 0)
                        found[name].counts = counts
                child.stdin.write(b"\n")
                child.stdin.flush()
            elif line.startswith("# result "):
                for i in range(3, len(words) - 1, 2):
                    found[words[2]].results.setdefault(words[i], []).append(int(words[i + 1]))
            elif line.startswith(("not ok", "Bail out!")) or line.startswith("# vector"):
                wrong.append(line)
    if child.poll() is None and not ready:
        wrong.append("it does not end")
        child.kill()
    status = child.wait()
    if status != 1:
        wrong.append(f"exit status {status}")
        errors = child.stderr.read().decode(errors="replace").strip().splitlines()
        wrong += [line for line in errors[-5:] if "warning" not in line]
        if status == -11:
            log = subprocess.run(["dmesg"], capture_output=True, text=True).stdout
            wrong += [line for line in log.splitlines() if "segfault" in line][-1:]
    return found, wrong


def run_all(machine, counting):
    """Bursts that a machine did not survive are tried again."""
    begin = time.monotonic()
    found, wrong = run(machine, counting)
    for scenario, test in BURSTS.items():
        for _ in range(RETRIES):
            if "taken" in found[scenario].results:
                break
            again, more = run(machine, counting, f" only={test}")
            # What it said before it ended counts.
            again[scenario].results["per_second"] = [*found[scenario].results.get("per_second", ()),
                                                     *again[scenario].results.get("per_second", ())]
            found[scenario] = again[scenario]
            wrong += more
    sys.stderr.write(f"{machine.name}, {'counts' if counting else 'times'}: {time.monotonic() - begin:.1f} s\n")
    return found, wrong


def table(title, rows, columns, cells):
    print(f"\n{title}")
    width = max(len(row) for row, _ in rows) + 2
    print(" " * width + "".join(f"{column:>16}" for column in columns))
    for row, key in rows:
        print(f"{row:{width}}" + "".join(f"{cells(column, key):>16}" for column in columns))


def show_times(runs, names):
    def middle(name, key):
        values = [value for found in runs[name] for value in found[key[0]].results.get(key[1], [])]
        return statistics.median(values) if values else None

    def microseconds(name, key):
        value = middle(name, key)
        return "-" if value is None else f"{value / 1000:.1f}"

    def number(name, key):
        value = middle(name, key)
        return "-" if value is None else f"{value:.0f}"

    rows = []
    for what, scenario, first, second in (
            ("post to handler, free slot, auto-EOI", "free", "handler", "the poster's hypercall"),
            ("post to handler, free slot, EOI", "free-eoi", "handler", "the poster's hypercall"),
            ("EOM to handler of the next, busy slot", "busy", "handler", "the write of EOM"),
            ("signal to handler, event", "event", "handler", "the sender's hypercall")):
        other = "eom" if scenario == "busy" else "call"
        rows += [(f"{what}: median", (scenario, f"{first}_median")), ("  99th percentile", (scenario, f"{first}_p99")),
                 (f"  {second}: median", (scenario, f"{other}_median"))]
    table("microseconds (the lab's: only ratios mean anything)", rows, names, microseconds)
    rows = []
    for title, scenario in (("one in flight, who waits halts", "stream"), ("burst, 1 poster", "burst1"), ("burst, 3 posters", "burst3")):
        rows += [(f"{title}: messages a second", (scenario, "per_second")), ("  posts refused", (scenario, "refused")),
                 ("  messages lost", (scenario, "lost")), ("  doubled", (scenario, "doubled"))]
    for way in ("message", "direct"):
        rows += [(f"1 kHz timer, {way}: ticks", (f"timer-{way}", "ticks")), ("  in milliseconds", (f"timer-{way}", "elapsed_ms"))]
    table("numbers", rows, names, number)
    print()
    # Its best pace is the one that suits the one message that it stages.
    paces = [value for value in (middle("QEMU", (scenario, "per_second")) for scenario in ("stream", "burst1", "burst3")) if value]
    for name in names:
        if name == "QEMU":
            continue
        ours = middle(name, ("burst1", "per_second"))
        if ours and paces:
            print(f"ratio synic {name} burst of 1 beside QEMU at the pace that suits it: {ours / max(paces):.2f} times")
        for what, scenario, key, better in (
                ("burst 1 poster", "burst1", "per_second", 1), ("burst 3 posters", "burst3", "per_second", 1),
                ("one in flight", "stream", "per_second", 1),
                ("free slot", "free", "handler_median", -1), ("busy slot", "busy", "handler_median", -1),
                ("event", "event", "handler_median", -1)):
            ours, theirs = middle(name, (scenario, key)), middle("QEMU", (scenario, key))
            if ours and theirs:
                unit = "QEMU's messages per second" if better > 0 else "of QEMU's time"
                print(f"ratio synic {name} {what}: {ours / theirs:.2f} times {unit}" if better > 0 else
                      f"ratio synic {name} {what}: {ours / theirs:.3f} {unit}")


def show_counts(runs, names):
    def total(name, scenario, kind, role):
        counts = runs[name][scenario].counts
        return None if counts is None else sum(counts[kind][role].values())

    def each(name, key):
        scenario, kind, role = key
        value, messages = total(name, scenario, kind, role), runs[name][scenario].messages
        return "-" if value is None or not messages else f"{value / messages:.2f}"

    def rate(name, key):
        scenario, kind, role = key
        value, results = total(name, scenario, kind, role), runs[name][scenario]
        seconds = results.results.get("elapsed_ms", [0])[0] / 1000 or results.seconds
        return "-" if value is None or not seconds else f"{value / seconds:.0f}"

    kinds = (("exits", "exits of the guest"), ("user", "exits to user space"), ("calls", "system calls"))
    for scenario, title in (("free", "free slot, auto-EOI"), ("free-eoi", "free slot, EOI"),
                            ("busy", "busy slot (two messages, one EOM each round)"), ("event", "event"), ("stream", "one in flight, who waits halts"),
                            ("burst1", "burst, 1 poster"),
                            ("burst3", "burst, 3 posters")):
        rows = [(f"{role}: {what}", (scenario, kind, role)) for role in ("target", "posters") for kind, what in kinds]
        rows.append(("other threads: system calls", (scenario, "calls", "others")))
        table(f"a message: {title}", rows, names, each)
    for scenario, title in (("idle", "a processor that spins (the host's own interrupts)"), ("timer-message", "1 kHz timer by message"),
                            ("timer-direct", "1 kHz timer, direct")):
        rows = [(f"target: {what}", (scenario, kind, "target")) for kind, what in kinds]
        rows.append(("other threads: system calls", (scenario, "calls", "others")))
        table(f"a second: {title}", rows, names, rate)
    print("\nwhat they are, a message or tick:")
    for scenario in ("free", "free-eoi", "busy", "event", "stream", "burst1", "burst3", "timer-message", "timer-direct"):
        for name in names:
            found = runs[name][scenario]
            if found.counts is None or not found.messages:
                continue
            parts = []
            for kind, role, words in (("exits", "target", SVM), ("user", "target", REASON), ("calls", "target", SYSCALL),
                                      ("calls", "posters", SYSCALL), ("calls", "others", SYSCALL)):
                keys = [f"{words.get(key, key)} {count / found.messages:.2f}"
                        for key, count in found.counts[kind][role].most_common(5) if count / found.messages >= 0.01]
                if keys:
                    parts.append(f"{role} {kind}: {', '.join(keys)}")
            print(f"  {scenario}, {name}: " + "; ".join(parts))
    print()
    for name in names:
        for what, scenario in (("free slot", "free"), ("busy slot", "busy"), ("one in flight", "stream"), ("burst 1 poster", "burst1")):
            def everybody(of):
                values = [total(of, scenario, "calls", role) for role in ("target", "posters", "others")]
                messages = runs[of][scenario].messages
                return sum(values) / messages if None not in values and messages else None
            ours, theirs = everybody(name), everybody("QEMU") if "QEMU" in names else None
            if name != "QEMU" and ours and theirs:
                print(f"ratio synic {name} {what}, system calls of all threads per message: {ours / theirs:.3f} of QEMU's")
    for name in names:
        for what, scenario in (("free slot", "free"), ("burst 1 poster", "burst1")):
            for kind, words in (("user", "exits to user space"), ("calls", "system calls")):
                value, messages = total(name, scenario, kind, "target"), runs[name][scenario].messages
                if value is not None and messages:
                    print(f"target {name} {what}, {words} per message: {value / messages:.3f}")
        for way in ("message", "direct"):
            found = runs[name][f"timer-{way}"]
            value = total(name, f"timer-{way}", "exits", "target")
            if value is not None and found.messages:
                print(f"timer {name} {way}, exits per tick: {value / found.messages:.2f}")


def main(arguments):
    if len(arguments) < 2:
        sys.exit(__doc__)
    rounds = int(arguments[2]) if len(arguments) > 2 else 3
    with tempfile.TemporaryDirectory() as folder:
        everybody = machines(arguments[0], arguments[1], folder)
        names = [machine.name for machine in everybody]
        times = {name: [] for name in names}
        counts = {}
        complaints = []
        for part in range(rounds + 1):
            counting = part == rounds
            if counting:
                kernel_counts.start_counting(EVENTS)
            for machine in everybody[part % len(everybody):] + everybody[:part % len(everybody)]:
                found, wrong = run_all(machine, counting)
                if counting:
                    counts[machine.name] = found
                else:
                    times[machine.name].append(found)
                complaints += [f"{machine.name}: {line}" for line in wrong]
    print(f"{rounds} rounds for times, medians; the same guest program, four processors, two of the host")
    show_times(times, names)
    show_counts(counts, names)
    for line, times_said in collections.Counter(complaints).items():
        print(f"remark: {line}" + (f" ({times_said} times)" if times_said > 1 else ""))
    bad = [line for line in complaints if line.startswith("vmm ") and re.search("not ok|Bail out|exit status -", line)]
    missing = [name for name in names if name.startswith("vmm ") and
               any("lost" not in found[burst].results for burst in BURSTS for found in [*times[name], counts[name]])]
    return 1 if bad or missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
