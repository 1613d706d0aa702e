"""make bench [NAMES=part,part] [RUNS=n]: our figures beside PyTorch's for the same work, in the same run.

Outputs are compared before anything is timed. PyTorch runs at its better thread setting (1 or 2); where "default"
stands in a name, at its own default (a thread a core).
Runs alternate, medians are shown; ratio is peer / ours (larger is better), bar is the least ratio wanted, or for
a figure without a peer the largest value allowed. Writes build/bench/results.json.
"""
import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [os.path.join(ROOT, "tests"), os.path.join(ROOT, "tests", "process")]
from peer_fashion import idx_read  # noqa: E402
from runs import Run, STAGES  # noqa: E402

PROBE = os.path.join(ROOT, "build/release/bin/engine_probe")
SOURCE = "/usr/share/datasets/fashion-mnist"
PYTHON = "/usr/bin/python3"
MODEL = "inputs=784 loss=softmax_cross_entropy\nlinear out=256\nrelu\nlinear out=256\nrelu\nlinear out=10\n"
STEPS, SAMPLES = 1000, 4096

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


def engine_files(directory):
    images = idx_read(os.path.join(SOURCE, "train-images-idx3-ubyte")).numpy().reshape(-1, 784)
    labels = idx_read(os.path.join(SOURCE, "train-labels-idx1-ubyte")).numpy()
    images[:SAMPLES].tofile(os.path.join(directory, "features"))
    labels[:SAMPLES].tofile(os.path.join(directory, "targets.u8"))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(MODEL)
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)


def difference(directory, ours):
    a, b = (numpy.fromfile(os.path.join(directory, n), numpy.float32).astype(float) for n in (ours, "peer.f32"))
    return float(numpy.linalg.norm(a - b) / numpy.linalg.norm(b))


def engine_bench(name, unit, per, runs, ours, peer, result, tolerance, bars, penalty=False):
    """Alternate the two sides; `ours(directory, threads, check)` and `peer(...)` return the timings."""
    with tempfile.TemporaryDirectory() as directory:
        engine_files(directory)
        if penalty:
            penalty_files(directory)
        ours(directory, 1, True), peer(directory, 1, True)
        error = difference(directory, result)
        if error > tolerance:
            sys.exit("%s: outputs differ by %.2g (relative L2), more than %.0e" % (name, error, tolerance))
        mine, theirs = {1: [], 2: []}, {1: [], 2: []}
        for _ in range(runs):
            for threads in (1, 2):
                mine[threads].append(ours(directory, threads, False))
                theirs[threads].append(peer(directory, threads, False))

    def best(side, key):
        return min(statistics.median(t[key] for t in timings) for timings in side.values()) / per
    for key, label, bar in (("cpu_seconds", "CPU", bars[0]), ("seconds", "wall", bars[1])):
        record("%s-%s" % (name, label.lower()), unit + " " + label, best(mine, key) * 1e6, best(theirs, key) * 1e6,
               bar, "relative L2 %.1e" % error)


def penalty_files(directory):
    """Fisher information and theta* for the penalty: of the initial weights, moved a little."""
    output_of(PROBE, "fisher", directory, "batch=256")
    sums = numpy.fromfile(os.path.join(directory, "fisher_sums.f32"), numpy.float32)
    (sums / SAMPLES).astype(numpy.float32).tofile(os.path.join(directory, "fisher.f32"))
    weights = numpy.fromfile(os.path.join(directory, "weights.f32"), numpy.float32)
    (weights * numpy.float32(0.99)).tofile(os.path.join(directory, "star.f32"))


def bench_step(runs, strength=0.0, name="fashion-step"):
    def ours(directory, threads, check):
        return output_of(PROBE, "train", directory, "steps=%d" % (10 if check else STEPS), "threads=%d" % threads,
                         "lambda=%g" % strength)

    def peer(directory, threads, check):
        return output_of(PYTHON, os.path.join(HERE, "peer_engine.py"), "train", directory, threads,
                         10 if check else STEPS, *([strength] if strength else []))
    engine_bench(name, "us a step", STEPS, runs, ours, peer, "trained.f32", 1e-5, (1.5, 1.0), strength > 0)


def bench_step_ewc(runs):
    bench_step(runs, 2000.0, "fashion-step-ewc")


def bench_fisher(runs):
    def ours(directory, threads, check):
        return output_of(PROBE, "fisher", directory, "batch=256", "threads=%d" % threads)

    def peer(directory, threads, check):
        return output_of(PYTHON, os.path.join(HERE, "peer_engine.py"), "fisher", directory, threads, 0)
    engine_bench("fashion-fisher", "us a sample", SAMPLES, runs, ours, peer, "fisher_sums.f32", 1e-5, (10.0, 10.0))


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


def pipeline_ours(directory):
    """finetune.sh as a user calls it (built, data prepared): everything it starts is counted."""
    shutil.rmtree(directory, ignore_errors=True)
    cpu, wall = children_cpu_s(), time.perf_counter()
    run = Run(directory)
    watch = PssWatch(run)
    watch.start()
    report = run.finish(300)
    watch.join()
    tasks = {t["name"]: t for t in report["tasks"]}
    return {"wall_s": time.perf_counter() - wall, "cpu_s": children_cpu_s() - cpu, "daemons_cpu_s": report["cpu_seconds"],
            "pss": watch.peak, "a_after_a": tasks["A"]["after_own_training"], "a_with": tasks["A"]["final"],
            "a_without": tasks["A"]["final_without_ewc"], "b_with": tasks["B"]["final"],
            "b_without": tasks["B"]["final_without_ewc"]}


def pipeline_peer(threads):
    cpu, wall = children_cpu_s(), time.perf_counter()
    peer = output_of(PYTHON, os.path.join(HERE, "peer_fashion.py"), SOURCE, threads)
    return {**peer, "wall_s": time.perf_counter() - wall, "cpu_s": children_cpu_s() - cpu}


def bench_pipeline(runs):
    with tempfile.TemporaryDirectory() as directory:
        pipeline_ours(os.path.join(directory, "warm"))
        mine, theirs = [], {1: [], 2: []}
        for _ in range(runs):
            mine.append(pipeline_ours(os.path.join(directory, "run")))
            for threads in (1, 2):
                theirs[threads].append(pipeline_peer(threads))
    one, other = mine[0], theirs[1][0]
    keys = ("a_after_a", "a_with", "a_without", "b_with", "b_without")
    compared = "; ".join("%s %.1f / %.1f %%" % (k, 100 * one[k], 100 * other[k]) for k in keys)
    if abs(one["a_after_a"] - other["a_after_a"]) > 0.03 or abs(one["b_without"] - other["b_without"]) > 0.03:
        sys.exit("fashion-pipeline: the two did not do the same work: " + compared)

    def best(key):
        return min(statistics.median(t[key] for t in timings) for timings in theirs.values())

    def median(key):
        return statistics.median(t[key] for t in mine)
    default = statistics.median(t["cpu_s"] for t in theirs[2])
    record("fashion-pipeline-cpu", "CPU s, all processes", median("cpu_s"), best("cpu_s"), 3.0, compared)
    record("fashion-pipeline-cpu-default", "CPU s, all processes", median("cpu_s"), default, 3.0, compared)
    record("fashion-pipeline-wall", "s", median("wall_s"), best("wall_s"), 1.0, compared)
    record("fashion-pipeline-memory", "MiB (PSS of %d stages; peer RSS)" % len(STAGES), median("pss") / 2 ** 20,
           best("peak_rss_bytes") / 2 ** 20, None, compared, smaller_bar=200.0)


BENCHES = {"fashion-step": bench_step, "fashion-step-ewc": bench_step_ewc, "fashion-fisher": bench_fisher,
           "fashion-pipeline": bench_pipeline}


def table_print():
    print("%-30s %12s %12s %8s %8s %6s  %s" % ("name", "ours", "peer", "ratio", "bar", "holds", "unit"))
    for r in results:
        print("%-30s %12.4g %12.4g %8s %8.4g %6s  %s" % (
            r["name"], r["ours"], r["peer"], "%.2f" % r["ratio"] if r["ratio"] else "-", r["bar"],
            "yes" if r["holds"] else "NO", r["unit"]))
    for text in sorted({"%s: %s" % (r["name"].rsplit("-", 1)[0], r["outputs"]) for r in results}):
        print("outputs compared:", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default="", help="parts of names, separated by commas; default: all")
    parser.add_argument("--runs", type=int, default=3, help="repeats; medians are shown (default 3)")
    arguments = parser.parse_args()
    chosen = [n for n in BENCHES if not arguments.names or any(p in n for p in arguments.names.split(",") if p)]
    if not chosen:
        sys.exit("no benchmark is named like %s; there are: %s" % (arguments.names, ", ".join(BENCHES)))
    for name in chosen:
        print("running", name, "...", file=sys.stderr)
        BENCHES[name](arguments.runs)
    table_print()
    os.makedirs(os.path.join(ROOT, "build/bench"), exist_ok=True)
    with open(os.path.join(ROOT, "build/bench/results.json"), "w") as f:
        json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
