"""Whole runs of the daemons for gpu_check.py: a file of the reference data's shape, an LSTM regressor on it, and how fast the
rows came. The rows are blocks of made-up ones again and again, so that the file is soon written; each row's targets are
a function of the row. Validation rows are others."""
import contextlib
import json
import os
import subprocess
import sys
import threading

import numpy

from cases import BINARIES
from peers import HERE, peers_environment
from small_run import SmallRun, data_write

SHAPE = {"rows": 51779, "length": 360, "inputs": 167, "outputs": 36, "hidden": 128}
DRY = {"rows": 96, "length": 5, "inputs": 6, "outputs": 3, "hidden": 8}
CHUNK_ROWS, BLOCK_ROWS, VALIDATION_ROWS = 4, 512, 1024
PIPELINE = """name: reference
data: {file: %s}
model:
  layers:
%s
  loss: %s
training: {batch_size: %d, learning_rate: 1e-3, max_grad_norm: 1}
tasks:
  - {name: A, epochs: %d}
"""


def shape_of(dry):
    return DRY if dry else SHAPE


def file_path(check):
    return os.path.join(check.directory, "reference.h5")


def layers_lstm(shape):
    return ["type: sequence, steps: %d" % shape["length"], "type: lstm, out: %d, layers: 2" % shape["hidden"], "type: pool, kind: last",
            "type: linear, out: %d" % shape["outputs"]]


def layers_small(shape):
    """Hardly any work: how fast rows come is what it shows."""
    return ["type: linear, out: %d" % shape["outputs"]]


def block_make(random, shape, rows):
    x = random.standard_normal((rows, shape["length"], shape["inputs"]), numpy.float32)
    mix = numpy.random.default_rng(3).normal(size=(shape["inputs"], shape["outputs"])) / shape["inputs"] ** 0.5
    return x, numpy.tanh(2 * x[:, -3:].mean(1) @ mix).astype("f4")


def file_write(path, shape):
    """Uncompressed, in chunks of some hundred KiB."""
    import h5py
    random = numpy.random.default_rng(2)
    block = min(BLOCK_ROWS, shape["rows"])
    x, y = block_make(random, shape, block)
    with h5py.File(path, "w") as f:
        data = f.create_dataset("train/features", (shape["rows"], *x.shape[1:]), "f4", chunks=(CHUNK_ROWS, *x.shape[1:]))
        for first in range(0, shape["rows"], block):
            for at in range(0, min(block, shape["rows"] - first), CHUNK_ROWS):
                rows = x[at:at + CHUNK_ROWS]
                data.id.write_direct_chunk((first + at, 0, 0), rows.tobytes())
        reps = -(-shape["rows"] // block)
        f["train/targets"] = numpy.tile(y, (reps, 1))[:shape["rows"]]
        x, y = block_make(random, shape, min(VALIDATION_ROWS, shape["rows"]))
        f.create_dataset("validation/features", data=x, chunks=(CHUNK_ROWS, *x.shape[1:]))
        f["validation/targets"] = y


def dense_write(path, rows):
    """Images of ten classes, as bytes, each class a pattern under noise."""
    random = numpy.random.default_rng(5)
    classes = random.integers(0, 10, rows).astype("u1")
    patterns = random.integers(0, 128, (10, 784)).astype("u1")
    data_write(path, patterns[classes] + random.integers(0, 128, (rows, 784)).astype("u1"), classes, validation_rows=1024)


def layers_dense(width):
    return [*["type: linear, out: %d" % width, "type: relu"] * 2, "type: linear, out: 10"]


class Utilisation:
    """Share of time in which a kernel ran, as the driver samples it, between enter and exit."""

    def __init__(self):
        self.samples, self.ended = [], threading.Event()

    def sample(self):
        while not self.ended.wait(0.1):
            self.samples.append(self.nvml.nvmlDeviceGetUtilizationRates(self.handle).gpu)

    def __enter__(self):
        try:
            import pynvml
            pynvml.nvmlInit()
        except Exception as e:  # the package is not there, or there is no driver: each its own kind of error
            print("  GPU utilisation is not sampled: %s" % e)
            self.ended.set()
            return self
        self.nvml, self.handle = pynvml, pynvml.nvmlDeviceGetHandleByIndex(0)
        self.thread = threading.Thread(target=self.sample)
        self.thread.start()
        return self

    def __exit__(self, *_):
        if not self.ended.is_set():
            self.ended.set()
            self.thread.join()

    def share(self):
        """Between the first and the last sample with work, without the driver's averaging at both ends; None: too few."""
        busy = [i for i, s in enumerate(self.samples) if s > 0]
        inner = self.samples[busy[0] + 5:busy[-1] - 4] if busy else []
        return sum(inner) / len(inner) / 100 if len(inner) >= 5 else None


def prepared(directory, data, layers, epochs, batch, settings=(), loss="mean_squared_error"):
    """A run with device cuda, of which no stage is started yet."""
    text = PIPELINE % (data, "\n".join("    - {%s}" % line for line in layers), loss, batch, epochs)
    return SmallRun(directory, data, settings=("device=cuda", *settings), pipeline=text)


def run(directory, data, layers, epochs, batch, settings=(), watch=None, loss="mean_squared_error", beside=()):
    """The report of a run with device cuda; its stages have ended, those of `beside` too. `watch` is entered while it
    trains."""
    started = prepared(directory, data, layers, epochs, batch, settings, loss)
    with started:
        started.start(*beside, "loaderd", "fisherd", "trainerd")
        with watch or contextlib.nullcontext():
            code = started.wait("trainerd", None)
        if code:
            raise RuntimeError("trainerd ended with %d: %s" % (code, started.log("trainerd")[-1500:]))
    subprocess.run([os.path.join(BINARIES, "monitord"), "--report", started.directory], check=True, stdout=subprocess.DEVNULL,
                   stderr=subprocess.DEVNULL)
    with open(started.path("report/report.json")) as f:
        return json.load(f)


def peer_loading(check, way):
    """What peer_loading.py says of three epochs."""
    shape = shape_of(check.dry)
    return check.line([sys.executable, os.path.join(HERE, "peer_loading.py"), way, file_path(check), check.settings("cuda", "cpu"), 3,
                       check.settings(128, 32), shape["hidden"], check.settings(20, 1), check.settings(100, 3)], **peers_environment())


def locked_bytes(report):
    """What trainerd had page-locked at most: arena, batch on its way, copy of the parameters, results."""
    return report["memory"]["page_locked"]["trainerd"]


# Takes all of the device's memory but so many bytes, until its standard input ends.
TAKE = """import sys, torch
free, _ = torch.cuda.mem_get_info()
held = torch.empty(free - int(sys.argv[1]), dtype=torch.uint8, device="cuda")
print("held", flush=True)
sys.stdin.read()"""
