"""Fisher information and EWC: its pass over the samples, what a protected task costs a step, what it takes on disk."""
import os
import shutil
import statistics
import tempfile

from bench_base import HERE, PROBE, PYTHON, ROOT, output_of, record
from bench_engine import engine_bench, engine_files, gcn_files, lstm_files, mlp_files

FISHERS = {"mlp": (mlp_files, 256, 64, 1.3), "lstm": (lambda d: lstm_files(d, 64), 64, 32, 1.3),
           "gcn": (lambda d: gcn_files(d, graphs=64), 64, 32, 1.4)}  # files, samples, slice, bar


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


def trained(directory, common):
    """Weights of a network that was trained a while, of whose F as many are zero as trained networks have."""
    output_of(PROBE, "train", directory, "steps=600", *common)
    shutil.copy(os.path.join(directory, "trained.f32"), os.path.join(directory, "weights.f32"))


def bench_penalty(runs):
    """What a protected task costs: CPU time of a training step with it beside the same step without, taking turns in one
    process; the network of pipelines/fashion.yaml is a trained one."""
    for name, (files, batch, slices, steps, settings) in PENALTIES.items():
        common = ("batch=%d" % batch, "slice=%d" % slices, *settings)
        with tempfile.TemporaryDirectory() as directory:
            files(directory)
            if name == "mlp":
                trained(directory, common)
            output_of(PROBE, "fisher", directory, *common)
            os.rename(os.path.join(directory, "fisher_sums.f32"), os.path.join(directory, "fisher.f32"))
            shutil.copy(os.path.join(directory, "weights.f32"), os.path.join(directory, "star.f32"))
            for tasks, bar in ((1, 0.15), (4, 0.6)):
                timings = [output_of(PROBE, "penalty", directory, "steps=%d" % steps, "terms=%d" % tasks, "lambda=1e-3",
                                     "threads=1", *common) for _ in range(runs)]
                record("penalty-%s-%d" % (name, tasks), "CPU time of a step that protects %d, more than without" % tasks,
                       statistics.median(t["cpu_seconds"] / t["pass_cpu_seconds"] for t in timings) - 1, None, None,
                       "bit for bit those of F expanded (unit tests)", bar)


FISHER_BARS = {"mlp": (0.5, 0.4), "lstm": (0.36, 0.26), "gcn": (0.36, 0.26)}


def bench_fisher_curve(runs):
    """Bytes a parameter of the stored Fisher information at 5 and 10 % error of the penalty's gradient."""
    from fisher_curve import curves
    for m in curves():
        for (wanted, (_, r)), bar in zip(m["bars"].items(), FISHER_BARS[m["name"]]):
            record("fisher-curve-%s-%d" % (m["name"], wanted), "bytes a parameter of the file", r["per_parameter"], None, None,
                   "error %.1f %%" % (100 * r["real"]), smaller_bar=bar)


def bench_resident(runs):
    """Fisher information as training holds it, of the models of fisher-curve: bytes a parameter, and the error of the
    penalty's gradient from the exact diagonal on, at the end of a task trained without the penalty and of one with it."""
    from fisher_curve import MODELS, resident
    for name in MODELS:
        size, errors = resident(name)
        record("resident-%s-bytes" % name, "bytes a parameter", size, None, None, "-", smaller_bar=0.55)
        for end, what, bar in (("B-without-ewc", "error", 0.055), ("B", "shaped", 0.11)):
            e = errors[end]
            record("resident-%s-%s" % (name, what), "error of the penalty's gradient, %s" % end, e["all"], None, None,
                   "%s: %.2f %% by the file, %.2f %% beside the file" % (end, 100 * e["stored"], 100 * e["held"]), smaller_bar=bar)


def bench_fisher_stream(runs):
    """A made-up model of FISHER_PARAMETERS parameters (700 million, or as the environment says) to disk, one core."""
    parameters = int(os.environ.get("FISHER_PARAMETERS", "700000000"))
    with tempfile.TemporaryDirectory(dir=os.path.join(ROOT, "build")) as directory:
        out = output_of(PROBE.replace("engine", "fisher"), "stream", directory, "parameters=%d" % parameters)
    compared = "%.3f bytes a parameter, error %.1f %%" % (out["file_bytes"] / out["parameters"], 100 * out["error"])
    record("fisher-stream-store", "CPU s for 100 MB of codes", 1e8 * out["store_s"] / out["parameters"], None, None, compared,
           smaller_bar=1.0)
    record("fisher-stream-memory", "MiB, largest resident", out["peak_bytes"] / 2 ** 20, None, None, compared, smaller_bar=256)
