"""What saves memory of activations, and what it costs: checkpointing and numbers of 16 bits."""
import os
import statistics
import sys
import tempfile

from bench_base import PROBE, output_of, record
from bench_engine import LSTM_STEPS, gcn_files, lstm_files, regression_files

DEEP_MODEL = ("inputs=6144 loss=mean_squared_error\nsequence steps=24\n" + "linear out=256\nrelu\nlayernorm\n" * 5 +
              "pool kind=mean\nlinear out=1\n")
DEEP_STEPS, DEEP_ROWS = 8, 128


def deep_files(directory):
    """Five layers of a graph network's size: 24 x 256 values of a row."""
    regression_files(directory, DEEP_MODEL, DEEP_ROWS, 6144)


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
    """On and off, same weights: a slice goes through the layers in parts (FEATURES B10:
    20 % of the memory, 120 % of the time)."""
    for name, files in (("5-layers", deep_files), ("gcn-5", gcn5_files)):
        settings_compare("checkpointing-" + name, files, DEEP_STEPS, runs, ("checkpointing=1",), True, (0.2, 1.2))
    settings_compare("checkpointing-lstm", lstm_files, LSTM_STEPS, runs, ("checkpointing=1",), True, (0.3, 1.2))


def bench_half(runs):
    for kind, name in ((1, "float16"), (2, "bfloat16")):
        settings_compare(name + "-5-layers", deep_files, DEEP_STEPS, runs, ("half=%d" % kind,), False, (0.75, 1.2))
        settings_compare(name + "-lstm", lstm_files, LSTM_STEPS, runs, ("half=%d" % kind,), False, (0.85, 1.2))
