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


def engine_bench(name, unit, per, runs, ours, peer, result, tolerance, bars, penalty=False, files=engine_files):
    """Alternate the two sides; `ours(directory, threads, check)` and `peer(...)` return the timings. Returns the last
    of each."""
    with tempfile.TemporaryDirectory() as directory:
        files(directory)
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
    return mine[1][-1], theirs[1][-1]


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


LSTM_MODEL = "inputs=2048 loss=mean_squared_error\nsequence steps=64\nlstm out=128 layers=2\npool kind=last\nlinear out=1\n"
LSTM_STEPS, LSTM_ROWS = 8, 256


def lstm_files(directory, rows=LSTM_ROWS):
    random = numpy.random.default_rng(1)
    random.normal(size=(rows, 2048)).astype(numpy.float32).tofile(os.path.join(directory, "features"))
    random.normal(size=(rows, 1)).astype(numpy.float32).tofile(os.path.join(directory, "targets.f32"))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(LSTM_MODEL)
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)


def bench_lstm(runs):
    """LSTM 32 -> 2 x 128 -> 1, 64 steps, batch 64 in two slices. PyTorch's products are those of the machine's BLAS."""
    def ours(directory, threads, check):
        return output_of(PROBE, "train", directory, "f32=1", "batch=64", "slice=32", "threads=%d" % threads,
                         "steps=%d" % (3 if check else LSTM_STEPS))

    def peer(directory, threads, check):
        return output_of(PYTHON, os.path.join(HERE, "peer_lstm.py"), directory, threads, 3 if check else LSTM_STEPS)
    mine, theirs = engine_bench("lstm-step", "us a step", LSTM_STEPS, runs, ours, peer, "trained.f32", 1e-5, (1.3, 2.0),
                                files=lstm_files)
    record("lstm-step-memory", "MiB, largest resident; peer: PyTorch's", mine["peak_rss_bytes"] / 2 ** 20,
           theirs["peak_rss_bytes"] / 2 ** 20, None, "-", smaller_bar=40.0)


WIDE, SWEEP_STEPS = 4096, 10


def sweep_files(directory):
    """One linear layer with 16.8 million parameters, and something to protect."""
    random = numpy.random.default_rng(1)
    for name, rows, low in (("features", 8, -1), ("targets.f32", 8, -1), ("fisher.f32", WIDE + 1, 0)):
        random.uniform(low, 1, size=(rows, WIDE)).astype(numpy.float32).tofile(os.path.join(directory, name))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write("inputs=%d loss=mean_squared_error\nlinear out=%d\n" % (WIDE, WIDE))
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)
    weights = numpy.fromfile(os.path.join(directory, "weights.f32"), numpy.float32)
    (weights * numpy.float32(0.99)).tofile(os.path.join(directory, "star.f32"))


def bench_sweep(runs):
    """What follows backward in a step of 16.8 million parameters: penalty, clipping and AdamW, beside PyTorch's AdamW
    alone, and beside its AdamW with clipping and the penalty by autograd."""
    common = ("f32=1", "batch=1", "slice=1", "clip=1", "lambda=2000", "eps=1e-5")  # smaller: a gradient that cancels decides
    for name, kind, bar in (("sweep-adamw-alone", "adamw", 2.3), ("sweep-ewc", "ewc", 6.0)):
        def ours(directory, threads, check):
            return output_of(PROBE, "train" if check else "sweep", directory, *common, "threads=%d" % threads,
                             "steps=%d" % (3 if check else SWEEP_STEPS))

        def peer(directory, threads, check):
            return output_of(PYTHON, os.path.join(HERE, "peer_sweep.py"), directory, threads,
                             3 if check else SWEEP_STEPS, "train" if check else kind)
        engine_bench(name, "us a step", SWEEP_STEPS, runs, ours, peer, "trained.f32", 1e-5, (bar, bar), files=sweep_files)


DEEP_MODEL = ("inputs=6144 loss=mean_squared_error\nsequence steps=24\n" + "linear out=256\nrelu\nlayernorm\n" * 5 +
              "pool kind=mean\nlinear out=1\n")
DEEP_STEPS, DEEP_ROWS = 8, 128


def deep_files(directory):
    """Five layers of a graph network's size: 24 x 256 values of a row."""
    random = numpy.random.default_rng(1)
    random.normal(size=(DEEP_ROWS, 6144)).astype(numpy.float32).tofile(os.path.join(directory, "features"))
    random.normal(size=(DEEP_ROWS, 1)).astype(numpy.float32).tofile(os.path.join(directory, "targets.f32"))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(DEEP_MODEL)
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)


def settings_compare(name, files, steps, runs, settings, same, bars):
    """A training step with some settings beside the same without: shares of activation memory and of CPU time."""
    with tempfile.TemporaryDirectory() as directory:
        files(directory)
        timings, weights = ([], []), []
        for _ in range(runs):
            for side, extra in zip(timings, ((), settings)):
                side.append(output_of(PROBE, "train", directory, "f32=1", "batch=64", "threads=1", "steps=%d" % steps, *extra))
                with open(os.path.join(directory, "trained.f32"), "rb") as f:
                    weights.append(f.read())
    if same and len(set(weights)) != 1:
        sys.exit("%s: the weights differ" % name)
    off, on = ([side[0]["activation_bytes"] for side in timings])
    off_s, on_s = (statistics.median(t["cpu_seconds"] for t in side) for side in timings)
    compared = "bit for bit" if same else "by tests/reference"
    record(name + "-memory", "share of the activations' %.1f MiB" % (off / 2 ** 20), on / off, None, None, compared, bars[0])
    record(name + "-cpu", "share of the CPU time of %.1f ms a step" % (off_s / steps * 1e3), on_s / off_s, None, None, compared,
           bars[1])


GCN5_MODEL = ("graphs inputs=32 edge_inputs=0 loss=cosine\nlinear out=256\n" +
              "residual_begin\ngcn out=256\nlayernorm\nrelu\ndropout p=0.15\nresidual_end\n" * 5 + "pool kind=mean\nlinear out=1000\n")


def gcn5_files(directory):
    gcn_files(directory, GCN5_MODEL)


def bench_checkpointing(runs):
    """On and off, same weights. What lies between layers is a slice's, not the batch's, from the start: by itself
    checkpointing leaves about 60 % of it, and the bars of FEATURES B10 (20 % of the memory, 120 % of the time) are for it
    together with slices of 16 rows, which cost little where a row has 24 steps or nodes, but are another arithmetic."""
    for name, files in (("5-layers", deep_files), ("gcn-5", gcn5_files)):
        settings_compare("checkpointing-" + name, files, DEEP_STEPS, runs, ("checkpointing=1",), True, (0.65, 1.2))
        settings_compare("checkpointing-slice-16-" + name, files, DEEP_STEPS, runs, ("checkpointing=1", "slice=16"), False,
                         (0.2, 1.2))
    settings_compare("checkpointing-lstm", lstm_files, LSTM_STEPS, runs, ("checkpointing=1",), True, (0.5, 1.5))


def bench_half(runs):
    for kind, name in ((1, "float16"), (2, "bfloat16")):
        settings_compare(name + "-5-layers", deep_files, DEEP_STEPS, runs, ("half=%d" % kind,), False, (0.75, 1.2))
        settings_compare(name + "-lstm", lstm_files, LSTM_STEPS, runs, ("half=%d" % kind,), False, (0.85, 1.2))


GCN_MODEL = ("graphs inputs=32 edge_inputs=0 loss=cosine\n" + "gcn out=256\nrelu\n" * 4 + "pool kind=mean\nlinear out=1000\n")
GCN_STEPS, GCN_GRAPHS = 20, 256


def gcn_files(directory, model=GCN_MODEL, graphs=GCN_GRAPHS):
    """Molecules of 24 atoms: a chain with two rings closed, each bond two edges; sparse positive spectra. Of the weights
    with seed 1 PyTorch's float32 has one relu on the other side than float64 and we have: 1e-4 of the gradient."""
    random = numpy.random.default_rng(1)
    bonds = numpy.array([(i, i + 1) for i in range(23)] + [(0, 5), (12, 17)])
    ends = numpy.concatenate([bonds, bonds[:, ::-1]]).T
    files = {"features": random.normal(size=(graphs * 24, 32)).astype("f4"),
             "targets.f32": (random.random((graphs, 1000)) * (random.random((graphs, 1000)) < 0.02)).astype("f4"),
             "node_ptr.u64": numpy.arange(graphs + 1, dtype="u8") * 24,
             "edge_ptr.u64": numpy.arange(graphs + 1, dtype="u8") * ends.shape[1],
             "sources.u32": numpy.tile(ends[0], graphs).astype("u4"), "ends.u32": numpy.tile(ends[1], graphs).astype("u4"),
             "edges.f32": numpy.zeros(0, "f4")}
    for name, values in files.items():
        values.tofile(os.path.join(directory, name))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(model)
    subprocess.run([PROBE, "init", directory, "seed=2"], check=True)


def bench_gcn(runs):
    """GCN 32 -> 4 x 256 -> 1000 bins, 64 molecules of 24 atoms in two slices; PyTorch in both forms that a sum of
    messages has there. Compared is the gradient of the first step: AdamW makes whole steps of what is rounding."""
    def ours(directory, threads, check):
        return output_of(PROBE, "train", directory, "f32=1", "batch=64", "slice=32", "threads=%d" % threads,
                         "steps=%d" % (1 if check else GCN_STEPS))

    for form in ("index_add", "csr"):
        def peer(directory, threads, check):
            return output_of(PYTHON, os.path.join(HERE, "peer_gcn.py"), directory, threads, 1 if check else GCN_STEPS, form)
        engine_bench("gcn-step-" + form.replace("_", "-"), "us a step", GCN_STEPS, runs, ours, peer, "gradient.f32", 1e-5, (1.5, 2.5),
                     files=gcn_files)


MLP_MODEL = "inputs=256 loss=softmax_cross_entropy\nlinear out=512\nrelu\nlinear out=512\nrelu\nlinear out=10\n"


def mlp_files(directory):
    random = numpy.random.default_rng(1)
    random.normal(size=(256, 256)).astype(numpy.float32).tofile(os.path.join(directory, "features"))
    random.integers(0, 10, 256).astype("u1").tofile(os.path.join(directory, "targets.u8"))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(MLP_MODEL)
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)


FISHERS = {"mlp": (mlp_files, 256, 64, 1.3), "lstm": (lambda d: lstm_files(d, 64), 64, 32, 1.3),
           "gcn": (lambda d: gcn_files(d, graphs=64), 64, 64, 1.4)}  # files, samples, slice, bar


def bench_fisher_pass(runs):
    """The exact per-sample Fisher information of a batch beside one forward and backward pass of ours over it, taking
    turns in one process; and beside PyTorch's batch-1 loop over the same samples."""
    for name, (files, samples, slices, bar) in FISHERS.items():
        def ours(directory, threads, check):
            timing = output_of(PROBE, "fisher" if check else "beside", directory, "f32=1", "batch=%d" % samples,
                               "slice=%d" % slices, "threads=%d" % threads, "steps=10")
            return {key: value / 10 for key, value in timing.items()}

        def peer(directory, threads, check):
            return output_of(PYTHON, os.path.join(HERE, "peer_fisher.py"), directory, threads, name)
        with tempfile.TemporaryDirectory() as directory:
            files(directory)
            for threads in (1, 2):
                shares = [t["cpu_seconds"] / t["pass_cpu_seconds"] for t in (ours(directory, threads, False) for _ in range(runs))]
                record("fisher-pass-%s-%d" % (name, threads), "CPU time, of a pass of training", statistics.median(shares),
                       None, None, "by tests/reference", bar)
        engine_bench("fisher-loop-" + name, "us a sample", samples, runs, ours, peer, "fisher_sums.f32", 1e-5, (10.0, 10.0),
                     files=files)


PENALTIES = {"mlp": (engine_files, 128, 64, 300, ()), "lstm": (lstm_files, 64, 32, 10, ("f32=1",)),
             "gcn": (gcn_files, 64, 32, 20, ("f32=1",))}  # files, batch, slice, steps, settings


def displacement(directory, common):
    """Train a while, then on permuted features, without a penalty: F and theta* between the two, and the way since."""
    def vector(name):
        return numpy.fromfile(os.path.join(directory, name), numpy.float32)
    output_of(PROBE, "train", directory, "steps=600", *common)
    star = vector("trained.f32")
    star.tofile(os.path.join(directory, "weights.f32"))
    output_of(PROBE, "fisher", directory, *common)
    fisher = vector("fisher_sums.f32") / numpy.float32(SAMPLES)
    features = numpy.fromfile(os.path.join(directory, "features"), numpy.uint8).reshape(SAMPLES, -1)
    features[:, numpy.random.default_rng(1).permutation(features.shape[1])].tofile(os.path.join(directory, "features"))
    output_of(PROBE, "train", directory, "steps=600", *common)
    way = vector("trained.f32").astype(float) - star
    fisher.tofile(os.path.join(directory, "fisher.f32"))
    star.tofile(os.path.join(directory, "star.f32"))
    return fisher.astype(float), way


def bench_penalty(runs):
    """What a protected task costs: CPU time of a training step with it beside the same step without, taking turns in one
    process; for the network of pipelines/fashion.yaml also its Fisher information's bytes, and the error of the penalty's
    gradient at the end of a second task."""
    for name, (files, batch, slices, steps, settings) in PENALTIES.items():
        common = ("batch=%d" % batch, "slice=%d" % slices, *settings)
        with tempfile.TemporaryDirectory() as directory:
            files(directory)
            way = None
            if name == "mlp":
                fisher, way = displacement(directory, common)
            else:
                output_of(PROBE, "fisher", directory, *common)
                os.rename(os.path.join(directory, "fisher_sums.f32"), os.path.join(directory, "fisher.f32"))
                shutil.copy(os.path.join(directory, "weights.f32"), os.path.join(directory, "star.f32"))
            for tasks, bar in ((1, 0.15), (4, 0.6)):
                timings = [output_of(PROBE, "penalty", directory, "steps=%d" % steps, "terms=%d" % tasks, "lambda=1e-3",
                                     "threads=1", *common) for _ in range(runs)]
                record("penalty-%s-%d" % (name, tasks), "CPU time of a step that protects %d, more than without" % tasks,
                       statistics.median(t["cpu_seconds"] / t["pass_cpu_seconds"] for t in timings) - 1, None, None,
                       "bit for bit those of F expanded (unit tests)", bar)
            if way is not None:
                kept = numpy.fromfile(os.path.join(directory, "expanded.f32"), numpy.float32).astype(float)
                record("penalty-bytes", "bytes a parameter", timings[0]["importance_bytes"] / len(kept), None, None, "-", 0.55)
                record("penalty-error", "of the penalty's gradient at the end of a second task",
                       numpy.linalg.norm((kept - fisher) * way) / numpy.linalg.norm(fisher * way), None, None, "-", 0.055)


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
    validation loss of the graph network of pipelines/molecules.yaml on 12,000 molecules after 4 epochs, three seeds each."""
    losses = {"recipe": [], "constant": []}
    with tempfile.TemporaryDirectory() as directory:
        source = os.path.join(directory, "molecules.tsv")
        with open(STRUCTURES) as f, open(source, "w") as out:
            out.writelines(line for line, _ in zip(f, range(12000)))
        for seed in (1, 2, 3):
            for name, settings in (("recipe", RECIPE), ("constant", PLAIN)):
                words = [w for s in (*settings, "seed=%d" % seed, "tasks.descriptors.epochs=4", "data.source=" + source,
                                     "data.file=" + os.path.join(directory, "molecules.h5"), "training.metric=loss")
                         for w in ("--set", s)]
                run = Run(os.path.join(directory, "%s-%d" % (name, seed)), "--config",
                          os.path.join(ROOT, "pipelines/molecules.yaml"), *words)
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


LOADER_ROWS, LOADER_VALUES, LOADER_CHUNK = 20000, 512, 256
LOADER_FILES = {  # name: how train/features is stored
    "gzip-shuffle": {"chunks": (LOADER_CHUNK, LOADER_VALUES), "compression": 4, "shuffle": True},
    "gzip": {"chunks": (LOADER_CHUNK, LOADER_VALUES), "compression": 4},
    "chunked": {"chunks": (LOADER_CHUNK, LOADER_VALUES)},
    "contiguous": {},
}
LOADER_SEQUENTIAL_REPEATS = 3  # plain data are read so fast that what else the machine does shows
LOADER_SEQUENTIAL = {"gzip-shuffle": (20, 2.5), "gzip": (10, 1.6), "chunked": (100, 1.3), "contiguous": (100, 0.85)}


def loader_files(directory):
    """Normal values in steps of 1/1024, as measured data have: gzip-4 + shuffle keeps about a third of the bytes."""
    import h5py
    random = numpy.random.default_rng(5)
    rows = (numpy.round(random.standard_normal((LOADER_ROWS, LOADER_VALUES)) * 1024) / 1024).astype(numpy.float32)
    for name, storage in LOADER_FILES.items():
        with h5py.File(os.path.join(directory, name + ".h5"), "w") as f:
            f.create_dataset("train/features", data=rows, **storage)
            f.create_dataset("validation/features", data=rows[:8])


LARGE_SHAPE, LARGE_CHUNK_ROWS = (12945, 360, 167), 16


def loader_large(directory):
    """The reference load at a quarter of its rows; one stored chunk stands for all, so that it is made in seconds."""
    import h5py
    path, shape, chunk = os.path.join(directory, "large.h5"), LARGE_SHAPE, (LARGE_CHUNK_ROWS, *LARGE_SHAPE[1:])
    values = numpy.round(numpy.random.default_rng(6).standard_normal(chunk) * 4).astype(numpy.float32) / 4
    with h5py.File(path, "w") as f:
        rows = f.create_dataset("train/features", shape, numpy.float32, chunks=chunk, compression=4, shuffle=True)
        rows[:chunk[0]] = values
        mask, stored = rows.id.read_direct_chunk((0, 0, 0))
        for at in range(chunk[0], shape[0], chunk[0]):
            rows.id.write_direct_chunk((at, 0, 0), stored, mask)
    return path


class LoaderRun:
    """A loaderd alone, serving a run of its own; `read` asks it as a consumer would."""

    def __init__(self, directory, *settings):
        self.directory = os.path.join(directory, "run-%d" % len(os.listdir(directory)))
        config = self.directory + ".yaml"
        with open(config, "w") as f:
            f.write("name: bench\ndata: {file: %s/gzip.h5}\nmodel: {layers: [{type: linear, out: 2}]}\n"
                    "tasks: [{name: A}]\n" % directory)
        words = [w for s in settings for w in ("--set", s)]
        binaries = os.path.dirname(PROBE)
        subprocess.run([os.path.join(binaries, "prepare"), "run", "--config", config, "--run", self.directory, *words],
                       check=True, stdout=subprocess.DEVNULL)
        with open(self.directory + ".log", "wb") as log:
            self.process = subprocess.Popen([os.path.join(binaries, "loaderd"), "--run", self.directory],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def read(self, path, **arguments):
        return output_of(os.path.join(os.path.dirname(PROBE), "loader_probe"), self.directory, path, "train",
                         *("%s=%d" % a for a in arguments.items()))

    def receipt(self):
        """The last one of the report."""
        subprocess.run([os.path.join(os.path.dirname(PROBE), "monitord"), "--report", self.directory], check=True,
                       stdout=subprocess.DEVNULL)
        with open(os.path.join(self.directory, "report/report.json")) as f:
            return json.load(f)["receipts"][-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def peer_loader(*arguments):
    return output_of(PYTHON, os.path.join(HERE, "peer_loader.py"), *arguments)


def row_us(timings, key):
    return statistics.median(1e6 * t[key] / t["rows"] for t in timings)


def loader_shuffled(loader, path, runs, compared):
    """Either side with fewer and more threads or processes; what counts is the better one."""
    ours, chunks, workers = {"auto": [], "2": []}, [], {0: [], 2: []}
    with LoaderRun(os.path.dirname(path), "loader.num_workers=2") as both:
        for _ in range(runs):
            ours["auto"].append(loader.read(path, epochs=10))
            ours["2"].append(both.read(path, epochs=10))
            chunks.append(peer_loader("chunks", path, 3))
            for n in workers:
                workers[n].append(peer_loader("dataloader", path, n, 4))

    def best(timings, key):
        return min(row_us(t, key) for t in timings.values())
    record("loader-shuffled-wall", "us a row, best of num_workers auto and 2; DataLoader + h5py, best of 0 and 2 workers",
           best(ours, "seconds"), best(workers, "seconds"), 500, compared)
    record("loader-shuffled-cpu", "CPU us a row, h5py by whole chunks", best(ours, "cpu_seconds"),
           row_us(chunks, "cpu_seconds"), 2.5, compared)


def memory_record(name, read, chunk_bytes, compared):
    workers = max(1, os.cpu_count() // 2)
    record(name, "MiB besides the arena (PSS)", read["pss_bytes"] / 2 ** 20, None, None, compared,
           smaller_bar=32 + workers * 2 * chunk_bytes / 2 ** 20)


def page_cache_drop(path):
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def loader_large_bench(directory, runs):
    """A file of 3.1 GB of rows where the run may plan with half as much as is stored (memory.host_limit_mb only; the
    machine may have more): what was read is dropped."""
    path = loader_large(directory)
    rows, row_bytes, chunk_rows = LARGE_SHAPE[0], LARGE_SHAPE[1] * LARGE_SHAPE[2] * 4, LARGE_CHUNK_ROWS
    stored, first = os.path.getsize(path), []
    with LoaderRun(directory, "loader.receipt=true", "memory.host_limit_mb=%d" % (stored // 2 ** 21)) as loader:
        for _ in range(runs):
            page_cache_drop(path)
            first.append(loader.read(path, epochs=0)["first_row_s"])
        read, receipt = loader.read(path, epochs=1), loader.receipt()
    if receipt["rows"] != rows or receipt["digest"] != read["digest"]:
        sys.exit("loader: the receipt says %s, the rows %s" % (receipt, read))
    compared = "its rows are one chunk repeated, digest %s; %.0f MB stored" % (read["digest"], stored / 1e6)
    record("loader-large-first-row", "s, %d x %d x %d float32, gzip-4 + shuffle, none of it cached" % LARGE_SHAPE,
           statistics.median(first), None, None, compared, smaller_bar=1)
    record("loader-large-amplification", "bytes decoded / bytes delivered, file twice memory.host_limit_mb",
           receipt["amplification"], None, None, compared, smaller_bar=1.0)
    record("loader-large-bytes-read", "bytes read / bytes stored, the same", receipt["bytes_read"] / stored, None, None,
           compared, smaller_bar=1.01)
    memory_record("loader-large-memory", read, chunk_rows * row_bytes, compared)


def bench_loader(runs):
    with tempfile.TemporaryDirectory() as directory:
        loader_files(directory)
        paths = {name: os.path.join(directory, name + ".h5") for name in LOADER_FILES}
        with LoaderRun(directory) as loader:
            digests = {name: loader.read(path)["digest"] for name, path in paths.items()}
            peer = peer_loader("digest", paths["gzip"])["digest"]
            if set(digests.values()) != {peer}:
                sys.exit("loader: digests differ: h5py %s, loaderd %s" % (peer, digests))
            compared = "digest of all rows %s" % peer
            loader_shuffled(loader, paths["gzip-shuffle"], runs, compared)
            for name, (epochs, bar) in LOADER_SEQUENTIAL.items():
                ours, theirs = [], []
                for _ in range(LOADER_SEQUENTIAL_REPEATS * runs):
                    ours.append(loader.read(paths[name], epochs=epochs, shuffle=0))
                    theirs.append(peer_loader("whole", paths[name], epochs // 2))
                record("loader-%s-cpu" % name, "CPU us a row, H5Dread of everything; spans of %.1f MiB" % (
                    ours[0]["span_rows"] * LOADER_VALUES * 4 / 2 ** 20), row_us(ours, "cpu_seconds"),
                    row_us(theirs, "cpu_seconds"), bar, compared)
            long = loader.read(paths["gzip-shuffle"], epochs=100)
            plain = [loader.read(paths["gzip-shuffle"], epochs=20) for _ in range(runs)]
        with LoaderRun(directory, "loader.receipt=true") as loader:
            told = [loader.read(paths["gzip-shuffle"], epochs=20) for _ in range(runs)]
            receipt = loader.receipt()
        if receipt["rows"] != LOADER_ROWS or receipt["digest"] != peer:
            sys.exit("loader: the receipt says %s" % receipt)
        record("loader-receipt", "CPU us a row with receipts; peer: without", row_us(told, "cpu_seconds"),
               row_us(plain, "cpu_seconds"), 0.9, compared)
        record("loader-amplification", "bytes decoded / bytes delivered", receipt["amplification"], None, None, compared,
               smaller_bar=1.0)
        memory_record("loader-memory", long, LOADER_CHUNK * LOADER_VALUES * 4, compared)
        record("loader-growth", "MiB over 100 epochs", long["pss_growth_bytes"] / 2 ** 20, None, None, compared,
               smaller_bar=1)
        loader_large_bench(directory, runs)


SHARED = os.path.join(os.path.dirname(ROOT), "shared", "data")
PARTS = ("train/", "validation/")
HMDB = "/usr/share/openms/CHEMISTRY/HMDB2StructMapping.tsv"


def molecules_sources(directory):
    """{name: (kind of source, file, settings for us)}: records, and tables of molecules that differ."""
    sources = {}
    packed, records = os.path.join(SHARED, "massbank/massbank_mh.txt.zst"), os.path.join(directory, "records.txt")
    if os.path.exists(packed):
        subprocess.run(["zstd", "-q", "-d", "--long=27", packed, "-o", records], check=True)
        smiles, pairs = "", {}
        with open(records) as f:
            for line in f:
                if line.startswith("CH$SMILES: "):
                    smiles = line[11:].rstrip()
                elif line.startswith("CH$LINK: INCHIKEY "):
                    pairs.setdefault(smiles, line[18:].rstrip())
        sources["massbank-records"] = ("massbank", records, [])
        sources["massbank-distinct"] = molecules_table(directory, "distinct.tsv", pairs.items())
    if os.path.exists(HMDB):
        with open(HMDB) as f:
            rows = [line.rstrip("\n").split("\t")[2:4] for line in f][::23]
        sources["hmdb"] = molecules_table(directory, "hmdb.tsv", rows)
    return sources


def molecules_table(directory, name, rows):
    path = os.path.join(directory, name)
    with open(path, "w") as f:
        f.writelines("%s\t%s\n" % tuple(r) for r in [("smiles", "inchikey"), *rows])
    return "table", path, ["--set", "prepare.inchikey=inchikey"]


def molecules_ours(source, out, settings):
    config = out + ".yaml"
    with open(config, "w") as f:
        f.write("data: {prepare: molecules, source: %s, file: %s}\n" % (source, out) +
                "model: {layers: [{type: relu}]}\ntasks: [{name: A}]\n")
    cpu = children_cpu_s()
    subprocess.run([os.path.join(os.path.dirname(PROBE), "prepare"), "molecules", "--config", config, "--out", out,
                    "--rebuild", *settings], check=True, stderr=subprocess.DEVNULL)
    return {"cpu_seconds": children_cpu_s() - cpu}


def molecules_sums(path, groups):
    """{row of the source: sums of the columns of its atoms, and of its edges}."""
    import h5py
    found = {}
    with h5py.File(path) as f:
        for g in groups:
            sums = []
            for features, pointer in (("node_features", "node_ptr"), ("edge_features", "edge_ptr")):
                total = numpy.cumsum(f[g + features][:].astype(numpy.int64), axis=0)
                total = numpy.concatenate([numpy.zeros((1, total.shape[1]), numpy.int64), total])
                sums.append(numpy.diff(total[f[g + pointer][:].astype(numpy.int64)], axis=0))
            nodes, edges = sums
            found.update(zip(f[g + "source_row"][:].tolist(),
                             numpy.concatenate([nodes[:, :33], edges], axis=1)))
    return found


def molecules_compare(ours, peer):
    """How many molecules have the same atoms, bonds, elements and aromatic atoms; exits under 99 %."""
    a, b = molecules_sums(ours, PARTS), molecules_sums(peer, PARTS)
    both = sorted(set(a) & set(b))
    a, b, every = numpy.array([a[r] for r in both]), numpy.array([b[r] for r in both]), len(set(a) | set(b))
    parts = {"elements": slice(0, 14), "aromatic": slice(30, 31), "bonds": slice(33, 37), "charge": slice(20, 25),
             "hydrogens": slice(25, 30)}
    same = {n: (a[:, s] == b[:, s]).all(1) for n, s in parts.items()}
    agreed = int((same["elements"] & same["aromatic"] & same["bonds"]).sum())
    if agreed < 0.99 * every:
        sys.exit("molecules: only %d of %d are the same" % (agreed, every))
    return "%d of %d alike in elements, bonds, aromatic atoms; refused by one %d; different: %s" % (
        agreed, every, every - len(both), ", ".join("%s %d" % (n, (~v).sum()) for n, v in same.items()))


def bench_molecules(runs):
    """Differences are models, not mistakes: five-bonded nitrogen, which RDKit makes charged; the bond that two fused
    rings share, which RDKit leaves single where only the outer cycle is aromatic; three odd aromatic systems."""
    with tempfile.TemporaryDirectory() as directory:
        for name, (kind, source, settings) in molecules_sources(directory).items():
            ours, peer = os.path.join(directory, name + ".h5"), os.path.join(directory, name + "-peer.h5")
            mine, theirs = [], []
            for _ in range(runs):
                mine.append(molecules_ours(source, ours, settings))
                theirs.append(output_of(PYTHON, os.path.join(HERE, "peer_molecules.py"), kind, source, peer))
            compared, count = molecules_compare(ours, peer), theirs[0]["molecules"]
            record("molecules-%s-cpu" % name, "CPU us a molecule; RDKit, numpy and h5py", *(
                statistics.median(t["cpu_seconds"] for t in side) / count * 1e6 for side in (mine, theirs)), 5.0,
                compared)
            record("molecules-%s-size" % name, "MB for 300,000 of them", os.path.getsize(ours) / count * 0.3, None, None,
                   compared, smaller_bar=2000)


FISHER_BARS = {"mlp": (0.5, 0.4), "lstm": (0.36, 0.26), "gcn": (0.36, 0.26)}


def bench_fisher_curve(runs):
    """Bytes a parameter of the stored Fisher information at 5 and 10 % error of the penalty's gradient."""
    from fisher_curve import curves
    for m in curves():
        for (wanted, (_, r)), bar in zip(m["bars"].items(), FISHER_BARS[m["name"]]):
            record("fisher-curve-%s-%d" % (m["name"], wanted), "bytes a parameter of the file", r["per_parameter"], None, None,
                   "error %.1f %%" % (100 * r["real"]), smaller_bar=bar)


def bench_fisher_stream(runs):
    """A made-up model of FISHER_PARAMETERS parameters (700 million, or as the environment says) to disk, one core."""
    parameters = int(os.environ.get("FISHER_PARAMETERS", "700000000"))
    with tempfile.TemporaryDirectory(dir=os.path.join(ROOT, "build")) as directory:
        out = output_of(PROBE.replace("engine", "fisher"), "stream", directory, "parameters=%d" % parameters)
    compared = "%.3f bytes a parameter, error %.1f %%" % (out["file_bytes"] / out["parameters"], 100 * out["error"])
    record("fisher-stream-store", "CPU s for 100 MB of codes", 1e8 * out["store_s"] / out["parameters"], None, None, compared,
           smaller_bar=1.0)
    record("fisher-stream-memory", "MiB, largest resident", out["peak_bytes"] / 2 ** 20, None, None, compared, smaller_bar=256)


BENCHES = {"loader": bench_loader, "fashion-step": bench_step, "fashion-step-ewc": bench_step_ewc,
           "fashion-fisher": bench_fisher, "fisher-pass": bench_fisher_pass, "fisher-curve": bench_fisher_curve,
           "fisher-stream": bench_fisher_stream, "penalty": bench_penalty, "continual": bench_continual,
           "fragments": bench_fragments,
           "lstm-step": bench_lstm, "gcn-step": bench_gcn, "gcn-steady": bench_steady, "sweep": bench_sweep, "checkpointing": bench_checkpointing,
           "half": bench_half, "recipe": bench_recipe, "start": bench_start, "busy": bench_busy,
           "fashion-pipeline": bench_pipeline, "molecules": bench_molecules}


def table_print():
    print("%-30s %12s %12s %8s %8s %6s  %s" % ("name", "ours", "peer", "ratio", "bar", "holds", "unit"))
    for r in results:
        peer, ratio = ("-", "-") if r["peer"] is None else ("%.4g" % r["peer"], "%.2f" % r["ratio"])
        print("%-30s %12.4g %12s %8s %8.4g %6s  %s" % (
            r["name"], r["ours"], peer, ratio, r["bar"], "yes" if r["holds"] else "NO", r["unit"]))
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
