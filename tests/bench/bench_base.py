"""What all benchmarks stand on: where things are, the list of results, what processes took."""
import json
import os
import resource
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests", "process")]
PROBE = os.path.join(ROOT, "build/release/bin/engine_probe")
SOURCE = "/usr/share/datasets/fashion-mnist"
PYTHON = "/usr/bin/python3"
results = []


def record(name, unit, ours, peer, bar, compared, smaller_bar=None):
    """One row; with a peer the ratio must reach `bar`, without one `ours` must stay below smaller_bar."""
    ratio = peer / ours if peer is not None else None
    holds = ratio >= bar if smaller_bar is None else ours <= smaller_bar
    results.append({"name": name, "unit": unit, "ours": ours, "peer": peer, "ratio": ratio,
                    "bar": bar if smaller_bar is None else smaller_bar, "holds": bool(holds), "outputs": compared})


def output_of(*command):
    out = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    if out.returncode:
        sys.exit("%s failed:\n%s%s" % (command, out.stdout, out.stderr))
    return json.loads(out.stdout.strip().splitlines()[-1])


class PssWatch(threading.Thread):
    """Largest sum of proportional set sizes over the processes of a run, four samples a second."""

    def __init__(self, run):
        super().__init__(daemon=True)
        self.run_watched, self.peak = run, 0

    def run(self):
        while self.run_watched.process.poll() is None:
            total = 0
            for pid in self.run_watched.processes():
                try:
                    with open("/proc/%d/smaps_rollup" % pid) as f:
                        total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
                except OSError:
                    pass
            self.peak = max(self.peak, total * 1024)
            time.sleep(0.25)


def children_cpu_s():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


SHARED = os.path.join(os.path.dirname(ROOT), "shared", "data")
