#!/usr/bin/env python3
"""What trust levels cost: calls and returns, intercepts, protections, on 1, 2 and 4 processors (tests/guests/bench/vtl_bench.cc), beside
the cheapest exit of the same machine and beside a bare KVM program that does to a page what an intercept ends in
(bench/mprotect_floor.cc). No other monitor has these levels on KVM. Prints; asserts nothing.

First rounds for times, in which nothing is traced; then one for counts (kernel_counts.py). All processors do the same at once, and an
operation's counts are those of all virtual processors' threads, divided by all operations. Needs root and tracefs.

usage: vtl.py VMM GUEST.elf FLOOR [ROUNDS]
"""
import collections
import os
import re
import select
import statistics
import subprocess
import sys
import tempfile
import time

import kernel_counts
from kernel_counts import REASON, SVM, SYSCALL

EVENTS = {**kernel_counts.EVENTS, **kernel_counts.IOCTLS}
PROCESSORS = (1, 2, 4)
TIMEOUT = 120
ALL_PASSED = 1
SCENARIOS = {
    "port": "write to a port that nobody has",
    "hypercall": "hypercall that is refused",
    "call": "VTL call and return",
    "call-fast": "VTL call and fast return",
    "call-vector": "  VTL0 changed a vector register before",
    "call-debug": "  VTL0 changed a debug register before",
    "intercept": "intercept, VTL1's handler, the access again",
    "intercept-open": "  of a VTL1 that can be interrupted at its entry",
    "intercept-skip": "  handler skips the instruction (1 hypercall)",
    "intercept-lift": "  handler frees the page, VTL0 calls to protect it",
    "intercept-msr": "intercept of an MSR, skipped (1 hypercall)",
    "intercept-port": "intercept of a port, skipped (1 hypercall)",
    "protect-1": "protect a page, a page a call: each page",
    "protect-16": "protect 16 pages a call: each page",
    "protect-510": "protect 510 pages a call, all it has room for: each page",
}
# Exits to user space that the operation cannot do without.
LEAST_EXITS = {"call": 2, "call-fast": 2, "intercept": 2, "intercept-open": 2}

CONFIG = """machine: TEST
memory {{ size_mib: 64 }}
processors {{ count: {processors} }}
boot {{ kernel: "{guest}" command_line: "lines=short marks=1" }}
hyperv {{ enabled: true vsm {{ enabled: true }} }}
logging {{ level: WARNING }}
"""


class Scenario:
    def __init__(self):
        self.results = {}
        self.operations = 0
        self.counts = None  # {kind: Counter by key}, of the virtual processors' threads
        self.others = 0     # system calls of all other threads


def processors_of(pid):
    """Threads of the process that are virtual processors, and the rest."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/comm") as comm:
            found[int(task)] = re.fullmatch(r"vp-\d+", comm.read().strip()) is not None
    return found


def difference(before, after, threads):
    counts = {kind: collections.Counter() for kind in EVENTS}
    others = 0
    for kind, values in after.items():
        for (task, key), value in values.items():
            new = value - before[kind].get((task, key), 0)
            if threads.get(task):
                counts[kind][key] += new
            elif task in threads and kind == "calls":
                others += new
    return counts, others


def run(vmm, guest, processors, counting, folder):
    """{scenario: Scenario}, and what is wrong with the run, if anything."""
    config = os.path.join(folder, "vm.textproto")
    with open(config, "w") as out:
        out.write(CONFIG.format(guest=guest, processors=processors))
    child = subprocess.Popen([vmm, "run", "--config", config], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    found = collections.defaultdict(Scenario)
    text, wrong, before, name = b"", [], None, ""
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
                sys.stderr.write(f"{processors}: {line}\n")
            if line.startswith("# begin ") or line == "#.":
                if counting and line == "#.":
                    after = kernel_counts.counters(EVENTS)
                    found[name].counts, found[name].others = difference(before, after, processors_of(child.pid))
                elif line != "#.":
                    name = words[2]
                    before = kernel_counts.counters(EVENTS) if counting else None
                child.stdin.write(b"\n")
                child.stdin.flush()
            elif line.startswith("# result "):
                found[words[2]].results = dict(zip(words[3::2], map(int, words[4::2])))
                found[words[2]].operations = found[words[2]].results["operations"]
            elif line.startswith(("not ok", "Bail out!")):
                wrong.append(line)
    if child.poll() is None and not ready:
        wrong.append("it does not end")
        child.kill()
    status = child.wait()
    if status != ALL_PASSED:
        wrong.append(f"exit status {status}")
        wrong += child.stderr.read().decode(errors="replace").strip().splitlines()[-5:]
    return found, wrong


def floor(program):
    result = subprocess.run([program], capture_output=True, text=True, timeout=TIMEOUT)
    found = {words[2]: int(words[4]) for words in map(str.split, result.stdout.splitlines()) if len(words) > 4}
    return found, [] if result.returncode == 0 else [f"mprotect_floor: {result.stderr.strip()}"]


def table(title, rows, columns, cells):
    print(f"\n{title}")
    width = max(len(text) for text in SCENARIOS.values()) + 2
    print(" " * width + "".join(f"{f'{column} VP':>12}" for column in columns))
    for row in rows:
        print(f"{SCENARIOS[row]:{width}}" + "".join(f"{cells(column, row):>12}" for column in columns))


def show_times(runs, floors):
    medians = {n: {name: statistics.median([found[name].results["median"] for found in runs[n] if "median" in found[name].results] or [0])
                   for name in SCENARIOS} for n in PROCESSORS}
    table("microseconds, medians (the lab's: only ratios mean anything)", SCENARIOS, PROCESSORS,
          lambda n, name: f"{medians[n][name] / 1000:.2f}")
    table("times a write to a port that nobody has", list(SCENARIOS)[1:], PROCESSORS,
          lambda n, name: f"{medians[n][name] / medians[n]['port']:.2f}" if medians[n]["port"] else "-")
    port, refused = (statistics.median([found[name] for found in floors if name in found] or [0]) for name in ("floor-port", "floor-refused"))
    print(f"\na bare KVM program, microseconds: port write {port / 1000:.2f}, refused store that frees its page and protects it again "
          f"{refused / 1000:.2f}")
    one = medians[1]
    if port and refused and one["port"] and one["call"] and one["protect-1"]:
        print(f"ratio vtl call and return beside a port write: {one['call'] / one['port']:.2f}")
        print(f"ratio vtl port write beside a bare KVM program's: {one['port'] / port:.2f}")
        print(f"ratio vtl intercept that frees its page beside a bare KVM program's refused store: {one['intercept-lift'] / refused:.2f}")
        print(f"ratio vtl page protected in the longest call beside a page a call: {one['protect-510'] / one['protect-1']:.4f}")


def each(found, kind):
    return sum(found.counts[kind].values()) / found.operations if found.counts and found.operations else None


def number(value):
    return "-" if value is None else f"{value:.3f}"


def show_counts(runs):
    for kind, title in (("user", "exits to user space, an operation"), ("exits", "exits of the guest, an operation (the host's own interrupts too)"),
                        ("calls", "system calls of the processor's thread, an operation (KVM_RUN among them)")):
        table(title, SCENARIOS, PROCESSORS, lambda n, name, kind=kind: number(each(runs[n][name], kind)))
    table("system calls of other threads, an operation", SCENARIOS, PROCESSORS, lambda n, name: number(
        runs[n][name].others / runs[n][name].operations if runs[n][name].operations else None))
    print("\nwhat they are, an operation:")
    for name in SCENARIOS:
        for n in PROCESSORS:
            found = runs[n][name]
            if not found.counts or not found.operations:
                continue
            calls = found.counts["calls"].copy()
            calls[kernel_counts.IOCTL] = 0
            named = collections.Counter({SYSCALL.get(key, f"call {key}"): value for key, value in calls.items()})
            for key, value in found.counts["ioctls"].items():
                named[kernel_counts.request(key)] += value
            parts = []
            for what, counter in (("exits", collections.Counter({SVM.get(key, hex(key)): v for key, v in found.counts["exits"].items()})),
                                  ("to user space", collections.Counter({REASON.get(key, key): v for key, v in found.counts["user"].items()})),
                                  ("calls", named)):
                texts = [f"{key} {value / found.operations:.3f}" for key, value in counter.most_common(12)
                         if value / found.operations >= 0.01 or name.startswith("protect-") and value / found.operations >= 0.001]
                parts.append(f"{what}: {', '.join(texts) or 'none'}")
            print(f"  {name}, {n} VP: " + "; ".join(parts))
    print()
    for name in SCENARIOS:
        for n in PROCESSORS:
            for kind, words in (("user", "exits to user space"), ("calls", "system calls")):
                value = each(runs[n][name], kind)
                if value is not None:
                    print(f"vtl {name} {n} VP, {words} per operation: {value:.3f}")
    print()
    for name, least in LEAST_EXITS.items():
        values = [each(runs[n][name], "user") for n in PROCESSORS]
        if None not in values:
            print(f"vtl {name}: at most {max(values):.3f} exits to user space, of {least} that it cannot do without; "
                  f"most beyond them: {max(values) - least:.3f}")


def main(arguments):
    if len(arguments) < 4:
        sys.exit(__doc__)
    vmm, guest, program = arguments[1:4]
    rounds = int(arguments[4]) if len(arguments) > 4 else 2
    times, counts, floors, complaints = {n: [] for n in PROCESSORS}, {}, [], []
    with tempfile.TemporaryDirectory() as folder:
        for part in range(rounds + 1):
            counting = part == rounds
            if counting:
                kernel_counts.start_counting(EVENTS)
            else:
                found, wrong = floor(program)
                floors.append(found)
                complaints += wrong
            for n in PROCESSORS:
                begin = time.monotonic()
                found, wrong = run(vmm, guest, n, counting, folder)
                if counting:
                    counts[n] = found
                else:
                    times[n].append(found)
                complaints += [f"{n} processors: {line}" for line in wrong]
                sys.stderr.write(f"{n} processors, {'counts' if counting else 'times'}: {time.monotonic() - begin:.1f} s\n")
    print(f"{rounds} rounds for times, medians of processor 0's; all processors at once, two of the host")
    show_times(times, floors)
    show_counts(counts)
    for line in complaints:
        print(f"remark: {line}")
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
