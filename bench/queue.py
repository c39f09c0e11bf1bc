#!/usr/bin/env python3
"""The SynIC message queue against its rivals, from one run of message_queue_benchmark: nanoseconds a message, and ratios.

usage: queue.py BENCHMARK_BINARY
"""
import json
import re
import subprocess
import sys

RIVALS = {"MutexDeque": "mutex + deque", "SharedMutexRing": "mutex + ring", "BoostLockfree": "boost::lockfree",
          "BoundedMpmc": "bounded MPMC ring", "BoundedMpmcRung": "bounded MPMC ring with a doorbell"}
OURS = {"Ours": "ours", "OursRoomEach": "ours, that room for each producer"}
SHAPES = {"Post": "a post, nobody contending", "PostAndTake": "post and take in turn, one thread",
          "Threads": "streams of threads", "Processes": "streams of processes"}


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    output = subprocess.run([arguments[1], "--benchmark_format=json"], stdout=subprocess.PIPE, check=True).stdout
    found = {}  # shape, payload, producers -> queue -> ns
    for row in json.loads(output)["benchmarks"]:
        match = re.match(r"(\w+)<(\w+)>/(\d+)(?:/(\d+))?/", row["name"])
        if match:
            shape, queue, payload, producers = match.groups()
            found.setdefault((shape, int(payload), int(producers or 0)), {})[queue] = row["median_ns"]
    least = {}
    for (shape, payload, producers), queues in found.items():
        where = SHAPES[shape] + (f", {producers} producers" if producers else "") + f", {payload} bytes"
        print(f"{where}:")
        for queue, ns in queues.items():
            print(f"  {({**OURS, **RIVALS}).get(queue, queue):36} {ns:8.1f} ns")
        for queue, name in RIVALS.items():
            if queue in queues:
                ratio = queues[queue] / queues["Ours"]
                key = (SHAPES[shape], name)
                least[key] = min(least.get(key, ratio), ratio)
    print(f"uncontended post of 24 bytes, median: {found['Post', 24, 0]['Ours']:.2f} ns")
    print(f"uncontended post of a full message, median: {found['Post', 240, 0]['Ours']:.2f} ns")
    for (shape, name), ratio in least.items():
        print(f"least ratio of {name} to ours, {shape}: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
