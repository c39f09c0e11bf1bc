"""Starts the soak guest of Virtual Trust Levels and shows what it says as it says it. tests/soak is how to run it.

usage: vsm_soak.py VMM GUEST.elf [--minutes N] [--seed N] [--processors N] [--first N] [--rounds N] [--backing KERNEL|OWN]
                   [--protection HOST_MAPPING|PRIVATE_ATTRIBUTE] [--devices] [--storm]

--storm: GUEST is vsm_storm_test, of which all processors fault without a pause.
--devices: with a virtio device, which guest RAM is shared with: what VTL1 protects moves out of its reach and back.
"""
import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time

CONFIG = """machine: TEST
memory {{ size_mib: 64 }}
processors {{ count: {processors} }}
boot {{ kernel: "{guest}" command_line: "lines=short backing={backing_name} seed={seed} first={first} {length}" }}
hyperv {{ enabled: true backing: {backing} vsm {{ enabled: true {protection}}} }}
devices {{ rng {{ enabled: {devices} }} }}
logging {{ level: WARNING }}
"""
ALL_PASSED = 1
# Beyond what was asked for, after the last sign of life: the guest gives up what it waits for earlier than that.
SILENCE = 300
# The monitor's own memory and descriptors are looked at from the first minute on; all that it needs was there by then.
WARM_UP = 60
MOST_GROWTH_KIB = 1024


def usage_of(pid):
    """Of a process: its private memory in KiB, its open descriptors. None once it is gone."""
    try:
        with open(f"/proc/{pid}/status") as status:
            anonymous = next(int(line.split()[1]) for line in status if line.startswith("RssAnon:"))
        return anonymous, len(os.listdir(f"/proc/{pid}/fd"))
    except (OSError, StopIteration):
        return None


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("vmm")
    parser.add_argument("guest")
    parser.add_argument("--minutes", type=float, default=6)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--processors", type=int, default=4)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--backing", choices=("KERNEL", "OWN"), default="KERNEL")
    parser.add_argument("--protection", choices=("HOST_MAPPING", "PRIVATE_ATTRIBUTE"), default="")
    parser.add_argument("--devices", action="store_true")
    parser.add_argument("--storm", action="store_true")
    wanted = parser.parse_args()
    only = "only=AStormLosesNothingAndStaysFair " * wanted.storm
    length = only + f"rounds={wanted.rounds}" if wanted.rounds else only + f"seconds={max(1, int(wanted.minutes * 60))}"
    print(f"soak: seed {wanted.seed}, {wanted.processors} processors, {wanted.backing} {wanted.protection}{' devices' * wanted.devices}, from round {wanted.first}, {length}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        config = os.path.join(folder, "vm.textproto")
        with open(config, "w") as out:
            out.write(CONFIG.format(processors=wanted.processors, guest=wanted.guest, seed=wanted.seed, first=wanted.first, length=length,
                                    backing=wanted.backing, backing_name=wanted.backing.lower(), devices=str(wanted.devices).lower(), protection=wanted.protection and f"protection: {wanted.protection} "))
        begin = time.monotonic()
        child = subprocess.Popen([wanted.vmm, "run", "--config", config], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        alive = [begin]

        def watch():
            while child.poll() is None:
                if time.monotonic() - alive[0] > SILENCE:
                    print(f"soak: FAILED: nothing was said for {SILENCE} seconds", flush=True)
                    child.kill()
                    return
                time.sleep(1)

        threading.Thread(target=watch, daemon=True).start()
        warm, last = None, None
        for line in child.stdout:
            alive[0] = time.monotonic()
            if alive[0] - begin >= WARM_UP:
                last = usage_of(child.pid) or last
                warm = warm or last
            text = line.decode(errors="replace").strip()
            if text.startswith(("#", "not ok", "Bail out!")):
                print(text, flush=True)
        status = child.wait()
    took = time.monotonic() - begin
    if warm:
        print(f"soak: the monitor's private memory {warm[0]} KiB and {warm[1]} descriptors after {WARM_UP} s, {last[0]} KiB and {last[1]} at the end")
        if last[0] > warm[0] + MOST_GROWTH_KIB or last[1] > warm[1]:
            print("soak: FAILED: the monitor has grown")
            return 1
    if status == ALL_PASSED:
        print(f"soak: passed; seconds: {took:.0f}")
        return 0
    print(f"soak: FAILED with status {status} after {took:.0f} s; again: tests/soak --seed {wanted.seed} --processors {wanted.processors} "
          f"--backing {wanted.backing} {wanted.protection and f'--protection {wanted.protection} '}{'--devices ' * wanted.devices}{'--storm ' * wanted.storm}--first ROUND --rounds 1")
    return 1


if __name__ == "__main__":
    sys.exit(main())
