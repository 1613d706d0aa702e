"""A step of the engine beside the same step of PyTorch: dense layers, LSTM, graphs, the sweep over the parameters."""
import os
import statistics
import subprocess
import sys
import tempfile

import numpy

from bench_base import HERE, PROBE, PYTHON, SOURCE, output_of, record
from peer_fashion import idx_read

MODEL = "inputs=784 loss=softmax_cross_entropy\nlinear out=256\nrelu\nlinear out=256\nrelu\nlinear out=10\n"
STEPS, SAMPLES = 1000, 4096


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


def regression_files(directory, model, rows, values):
    """Random rows and a target each, the model and its first weights, for the probe and for its peer."""
    random = numpy.random.default_rng(1)
    random.normal(size=(rows, values)).astype(numpy.float32).tofile(os.path.join(directory, "features"))
    random.normal(size=(rows, 1)).astype(numpy.float32).tofile(os.path.join(directory, "targets.f32"))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(model)
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)


def lstm_files(directory, rows=LSTM_ROWS):
    regression_files(directory, LSTM_MODEL, rows, 2048)


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
