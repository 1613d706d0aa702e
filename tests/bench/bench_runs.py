"""Whole runs: pipelines beside the same training in PyTorch, and recipes beside each other."""
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

from bench_base import HERE, PROBE, PYTHON, PssWatch, ROOT, SHARED, SOURCE, children_cpu_s, output_of, record
from bench_engine import STEPS, engine_files
from bench_molecules import molecules_ours
from descriptors import descriptors_write
from runs import Run, STAGES

STEADY_MODEL = ("graphs inputs=52 edge_inputs=5 loss=cosine\n" + "gcn out=128 edges=true\nrelu\n" * 5 +
                "pool kind=mean_sum\nlinear out=1000\n")
STEADY_STEPS = 400


def steady_files(directory, data):
    """MassBank's graphs of the training part, in any order: batches of very different sizes."""
    import h5py
    with h5py.File(data) as f:
        g = {name: f["train/" + name][:] for name in f["train"]}
    order = numpy.random.default_rng(2).permutation(len(g["targets"]))[:STEADY_STEPS * 64]
    parts = {}
    for name, axis in (("node", 0), ("edge", 1)):
        ptr = g[name + "_ptr"].astype(int)
        parts[name] = numpy.concatenate([numpy.arange(ptr[i], ptr[i + 1]) for i in order])
        lengths = numpy.diff(ptr)[order]
        numpy.concatenate([[0], numpy.cumsum(lengths)]).astype("u8").tofile(os.path.join(directory, name + "_ptr.u64"))
    for name, values in (("features", g["node_features"][parts["node"]].astype("f4")),
                         ("edges.f32", g["edge_features"][parts["edge"]].astype("f4")),
                         ("sources.u32", g["edge_index"][0, parts["edge"]].astype("u4")),
                         ("ends.u32", g["edge_index"][1, parts["edge"]].astype("u4")),
                         ("targets.f32", g["targets"][order].astype("f4"))):
        values.tofile(os.path.join(directory, name))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(STEADY_MODEL)
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)


def bench_steady(runs):
    """Nodes a CPU second, averaged over windows of a CPU second: the least spread of the runs."""
    if not os.path.exists(os.path.join(SHARED, "massbank/massbank_mh.txt.zst")):
        print("gcn-steady: no MassBank records in ../shared/data", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as directory:
        data, spreads = os.path.join(directory, "massbank.h5"), []
        molecules_ours(os.path.join(SHARED, "massbank/massbank_mh.txt.zst"), data, [])
        steady_files(directory, data)
        for _ in range(runs):
            output_of(PROBE, "train", directory, "f32=1", "batch=64", "slice=64", "threads=1", "steps=%d" % STEADY_STEPS)
            clock = numpy.fromfile(os.path.join(directory, "clock.f64")).reshape(-1, 2)
            seconds, nodes = clock[1:, 0] - clock[0, 0], numpy.cumsum(clock[1:, 1])
            at = numpy.searchsorted(seconds, numpy.arange(int(seconds[-1]) + 1))
            averages = numpy.diff(nodes[at]) / numpy.diff(seconds[at])
            spreads.append(averages.max() / averages.min())
        sizes = clock[:, 1]
    record("gcn-steady", "largest / smallest average of nodes a CPU second over 1 s", min(spreads), None, None,
           "batches of %d to %d nodes, %d windows" % (sizes.min(), sizes.max(), len(averages)), smaller_bar=1.5)


STRUCTURES = "/usr/share/openms/CHEMISTRY/HMDB2StructMapping.tsv"
# Rates are each side's best of 5e-4, 1e-3, 2e-3, 4e-3, 8e-3 with seed 1 (the recipe's of 1e-3 and more).
RECIPE = ("training.scheduler_type=onecycle", "training.learning_rate=8e-3", "training.batch_size=32",
          "training.gradient_accumulation_steps=2", "training.use_swa=true", "training.swa_lr=2e-4", "training.swa_start_epoch=3", "training.max_grad_norm=1")
PLAIN = ("training.scheduler_type=constant", "training.learning_rate=4e-3", "training.batch_size=64",
         "training.use_swa=false", "training.max_grad_norm=0")


def bench_recipe(runs):
    """Does the recipe learn better? One-cycle, accumulation, averaging and clipping against a constant rate: the
    validation loss of a graph network on 12,000 molecules (descriptors.py) after 4 epochs, three seeds each."""
    losses = {"recipe": [], "constant": []}
    with tempfile.TemporaryDirectory() as directory:
        source = os.path.join(directory, "molecules.tsv")
        with open(STRUCTURES) as f, open(source, "w") as out:
            out.writelines(line for line, _ in zip(f, range(12000)))
        config = os.path.join(directory, "descriptors.yaml")
        descriptors_write(config, "tasks: [{name: descriptors, epochs: 4}]\n")
        for seed in (1, 2, 3):
            for name, settings in (("recipe", RECIPE), ("constant", PLAIN)):
                words = [w for s in (*settings, "seed=%d" % seed, "data.source=" + source,
                                     "data.file=" + os.path.join(directory, "molecules.h5"), "training.metric=loss")
                         for w in ("--set", s)]
                run = Run(os.path.join(directory, "%s-%d" % (name, seed)), "--config", config, *words)
                losses[name].append(run.finish(600)["tasks"][0]["final"])
    print("validation loss, seeds 1 to 3:", json.dumps(losses), file=sys.stderr)
    record("recipe-molecules", "validation loss; peer: a constant rate", statistics.mean(losses["recipe"]),
           statistics.mean(losses["constant"]), 1.0, "-")


def bench_start(runs):
    """From the start of the supervisor to the first finished step of pipelines/fashion.yaml, its data being prepared."""
    seconds = []
    for k in range(2 * runs + 1):
        with tempfile.TemporaryDirectory() as directory:
            run, began = Run(os.path.join(directory, "run"), "--set", "tasks.A.epochs=1"), None
            while not os.path.exists(run.path("lineage")) or os.path.getsize(run.path("lineage")) < 32:
                if began is None and os.path.exists(run.path("supervisor")):
                    began = time.monotonic()
                if run.process.poll() is not None:
                    sys.exit("start: the run ended before its first step:\n" + run.output())
                time.sleep(0.001)
            seconds += [time.monotonic() - began] if k else []  # the first one prepares the data
            run.process.terminate()
            run.process.wait()
    record("start-to-first-step", "s", statistics.median(seconds), None, None, "-", smaller_bar=0.3)


def bench_busy(runs):
    """A training step while another process keeps a core of the two busy, against the same step alone."""
    with tempfile.TemporaryDirectory() as directory:
        engine_files(directory)
        alone, beside = [], []
        for _ in range(2 * runs + 1):
            alone.append(output_of(PROBE, "train", directory, "steps=%d" % STEPS, "threads=2")["cpu_seconds"])
            with subprocess.Popen([PYTHON, "-c", "while True: pass"]) as other:
                beside.append(output_of(PROBE, "train", directory, "steps=%d" % STEPS, "threads=2")["cpu_seconds"])
                other.kill()
    record("fashion-step-busy", "CPU time beside a busy process / alone", statistics.median(beside) / statistics.median(alone),
           None, None, "-", smaller_bar=1.3)


def bench_continual(runs):
    """Five permuted tasks with as many seeds: what EWC keeps (of five seeds at most), and what storing its state at 5 % error
    costs. A difference of a thousandth in F moves a run's average by 0.7 points (deviation), so that a difference of 0.3 takes
    some forty seeds to see: the standard error says what was seen."""
    gains, losses, bytes_each = [], [], []
    alone = "continual_learning.compare_without_ewc=false"
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(1, runs + 1):
            both = []
            for name, settings in (("stored", () if seed <= 5 else (alone,)), ("exact", (
                    "continual_learning.ewc_config.fisher_computation.use_compression=false", alone))):
                words = [w for s in ("seed=%d" % seed, *settings) for w in ("--set", s)]
                both.append(Run(os.path.join(directory, name + str(seed)), *words, script="continual.sh").finish(1200))
            bytes_each.append(max(s["bytes_per_parameter"] for s in both[0]["ewc_state"]))
            stored, exact = (report["continual"] for report in both)
            average = 100 * stored["own"]["average"]
            losses.append(100 * exact["own"]["average"] - average)
            if seed <= 5:
                gains.append(average - 100 * stored["without_ewc"]["average"])
            print("continual: seed %d: average accuracy %.2f %%, uncompressed %.2f %%%s" % (
                seed, average, average + losses[-1],
                ", without EWC %.2f %%" % (average - gains[-1]) if seed <= 5 else ""))
    compared = "%d seeds" % runs
    error = statistics.stdev(losses) / len(losses) ** 0.5 if runs > 1 else float("nan")
    record("continual-without-ewc", "points of average accuracy above that with EWC", -statistics.mean(gains), None, None,
           "%d seeds" % len(gains), smaller_bar=-20)
    record("continual-compressed", "points of average accuracy lost by 5 % error", statistics.mean(losses), None, None,
           compared + ", standard error %.2f" % error, smaller_bar=0.3)
    record("continual-state", "bytes a parameter of a Fisher file", max(bytes_each), None, None, compared, smaller_bar=0.6)


def bench_fragments(runs):
    """pipelines/fragments.yaml with as many seeds, the worst of them: what the metabolites lose with EWC and without, what
    the compounds pay for it, and how long it takes with the preparation of the data."""
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        for seed in range(1, runs + 1):
            run = os.path.join(directory, str(seed))
            settings = ("seed=%d" % seed, "data.file=%s-b.h5" % run, "tasks.metabolites.file=%s-a.h5" % run)
            wall = time.perf_counter()
            a, b = Run(run, "--config", os.path.join(ROOT, "pipelines/fragments.yaml"),
                       *(word for s in settings for word in ("--set", s))).finish(1800)["tasks"]
            rows.append((100 * (a["after_own_training"] - a["final"]), 100 * (a["final_without_ewc"] - a["after_own_training"]),
                         100 * (b["final_without_ewc"] - b["final"]), time.perf_counter() - wall))
            print("fragments: seed %d: metabolites %.4f, then %.4f, without EWC %.4f; compounds %.4f, without %.4f" % (
                seed, a["after_own_training"], a["final"], a["final_without_ewc"], b["final"], b["final_without_ewc"]))
    worst, compared = [max(column) for column in zip(*rows)], "%d seeds" % runs
    for name, unit, value, bar in zip(
            ("kept", "forgotten", "price", "wall"),
            ("points of cosine lost on the first task", "points gained on it without EWC",
             "points of cosine that EWC costs the second task", "s, with preparation"), worst, (5, -12, 2.5, 120)):
        record("fragments-" + name, unit, value, None, None, compared, smaller_bar=bar)


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
            "wait_share": report["data_wait_share"],
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
    record("fashion-pipeline-wait", "share of the training time spent waiting for data", median("wait_share"), None, None,
           compared, smaller_bar=0.01)
    record("fashion-pipeline-wall", "s", median("wall_s"), best("wall_s"), 1.0, compared)
    record("fashion-pipeline-memory", "MiB (PSS of %d stages; peer RSS)" % len(STAGES), median("pss") / 2 ** 20,
           best("peak_rss_bytes") / 2 ** 20, None, compared, smaller_bar=200.0)
