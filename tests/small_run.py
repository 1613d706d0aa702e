"""A run so small that a test can look into every number of it: made-up rows, a model of two layers, and daemons
started one by one, without finetune.sh. For tests of single stages."""
import json
import os
import struct
import subprocess
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BINARIES = os.path.join(ROOT, "build", os.environ.get("VARIANT", "release"), "bin")
FEATURES, HIDDEN, CLASSES, ROWS = 60, 32, 5, 700
LAYERS = ("linear, out: %d" % HIDDEN, "relu", "linear, out: %d" % CLASSES)
PIPELINE = """name: small
data: {file: %s, scale: 0.01}
model:
  layers:
%s
training: {batch_size: 64, threads: 2}
continual_learning:
  ewc_config: {lambda: 10, fisher_samples: %d, fisher_computation: {block_size: 1000}}
tasks:
  - {name: A, epochs: 1}
  - {name: B, epochs: 1, from: A, ewc: [A]}
"""


def data_write(path, features=None, targets=None, rows=ROWS, validation_rows=None):
    """A dense file with the splits train and validation, of the same rows (or the first of them); uint8 unless arrays
    are given."""
    import h5py
    import numpy as np
    random = np.random.default_rng(11)
    if features is None:
        features = random.integers(0, 256, (rows, FEATURES)).astype(np.uint8)
    if targets is None:
        targets = random.integers(0, CLASSES, len(features)).astype(np.uint8)
    with h5py.File(path, "w") as f:
        for split, last in (("train", None), ("validation", validation_rows)):
            f.create_dataset(split + "/features", data=features[:last], chunks=(64, features.shape[1]), shuffle=True, compression=6)
            f.create_dataset(split + "/targets", data=targets[:last], chunks=(64, *targets.shape[1:]), shuffle=True, compression=6)


def data_read(path):
    import h5py
    with h5py.File(path) as f:
        return f["train/features"][:], f["train/targets"][:]


def facts(run, stage, name):
    """The messages of that name in the stage's journal: bytes, CRC-32, name's length and name, MessagePack each."""
    import msgpack
    with open(run.path("journals", stage), "rb") as f:
        data = f.read()
    at, found = 0, []
    while at < len(data):
        size, = struct.unpack("<I", data[at:at + 4])
        record, at = data[at + 8:at + 8 + size], at + 8 + size
        length = struct.unpack("<H", record[:2])[0]
        if record[2:2 + length] == name.encode():
            found.append(msgpack.unpackb(record[2 + length:]))
    return found


class SmallRun:
    """The run's directory and the stages started in it; `with` ends them all."""

    def __init__(self, directory, data, samples=ROWS, settings=(), layers=LAYERS, pipeline=None):
        """pipeline: text of another pipeline file than the small one; its data.file is set."""
        self.directory = os.path.abspath(directory)
        self.processes = {}
        config = self.directory + ".yaml"
        with open(config, "w") as f:
            f.write(pipeline or PIPELINE % (os.path.abspath(data),
                                            "\n".join("    - {type: %s}" % line for line in layers), samples))
        words = [w for s in (*settings, "data.file=" + os.path.abspath(data)) for w in ("--set", s)]
        subprocess.run([os.path.join(BINARIES, "prepare"), "run", "--config", config, "--run", self.directory, *words],
                       check=True)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def start(self, *stages, environment=None):
        for stage in stages:
            log = open(self.path(stage + ".log"), "ab")
            self.processes[stage] = subprocess.Popen(
                [os.path.join(BINARIES, stage), "--run", self.directory], stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, env={**os.environ, **(environment or {})})

    def wait(self, stage, timeout=60):
        return self.processes[stage].wait(timeout)

    def kill(self, stage):
        self.processes[stage].kill()
        self.processes[stage].wait()

    def log(self, stage):
        with open(self.path(stage + ".log"), errors="replace") as f:
            return f.read()

    def until(self, condition, what, timeout=30):
        end = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < end, "%s within %d s; logs:\n%s" % (
                what, timeout, "\n".join(self.log(s) for s in self.processes))
            time.sleep(0.01)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.processes.values():
            process.kill()
            process.wait()


def report(run):
    """report.json of the run, written anew."""
    subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True, stdout=subprocess.DEVNULL)
    with open(run.path("report/report.json")) as f:
        return json.load(f)


def trained(directory="run", samples=ROWS, settings=(), features=None, targets=None, layers=LAYERS, pipeline=None):
    """A small run trained to its end: (run, features, targets); all its stages have ended."""
    if not os.path.exists("data.h5") or features is not None: # the time of a file is in its fingerprint
        data_write("data.h5", features, targets)
    features, targets = data_read("data.h5")
    run = SmallRun(directory, "data.h5", samples, settings, layers, pipeline)
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        code = run.wait("trainerd")
        assert code == 0, "trainerd ended with %d:\n%s\n%s" % (code, run.log("trainerd"), run.log("fisherd"))
    return run, features, targets
