"""Mutated files for the loader's reader: fuzz.py COUNT [SEED [SECONDS_MAX]]

Builds the AddressSanitizer variant, makes the bases (bases.py) and runs one fuzz_reader a core, each with its own share
and seed. Prints what each says and the sum; files that ended a reader by our fault are kept in build/fuzz. The exit
code is 1 if there is one.
"""
import os
import re
import subprocess
import sys

FUZZ = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(FUZZ))
COUNTS = ("mutations", "served", "rejected", "limited", "faulted in libhdf5", "died", "a second")


def bases_make(directory):
    subprocess.run([sys.executable, os.path.join(FUZZ, "bases.py"), directory], check=True)
    return sorted(os.path.join(directory, n) for n in os.listdir(directory) if n.endswith(".h5"))


def fuzz(variant, count, seed, seconds, directory, processes):
    """{name of a count: sum over the processes}; what they print goes to standard output."""
    program = os.path.join(ROOT, "build", variant, "bin/fuzz_reader")
    bases = bases_make(os.path.join(directory, "bases"))
    shares = [count // processes + (i < count % processes) for i in range(processes)]
    running = [subprocess.Popen([program, str(seed + i), str(share), str(seconds), directory, *bases],
                                stdout=subprocess.PIPE, text=True) for i, share in enumerate(shares)]
    sums = dict.fromkeys(COUNTS, 0)
    for process in running:
        text = process.communicate()[0]
        print(text, end="")
        last = text.splitlines()[-1] if text else ""
        found = re.fullmatch(", ".join(r"(\d+) " + name for name in COUNTS), last)
        if not found:
            raise SystemExit("fuzz_reader ended with code %d and no counts" % process.returncode)
        for name, value in zip(COUNTS, found.groups()):
            sums[name] += int(value)
    return sums


def main(count, seed=1, seconds=3600):
    subprocess.run(["make", "-s", "VARIANT=asan", "build/asan/bin/fuzz_reader"], cwd=ROOT, check=True)
    directory = os.path.join(ROOT, "build/fuzz")
    sums = fuzz("asan", int(count), int(seed), float(seconds), directory, len(os.sched_getaffinity(0)))
    print("all: " + ", ".join("%d %s" % (sums[name], name) for name in COUNTS))
    return 1 if sums["died"] else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
