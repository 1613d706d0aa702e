"""predict_run.py - what tests of predict.sh share: asking it, what a run says of itself, and its network in float64."""
import os
import subprocess

from harness import skip
from small_run import ROOT, trained

try:
    import h5py
    import numpy as np
except ImportError:
    h5py = None


def small(**arguments):
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    return trained(**arguments)


def command(run, *words, out="out.h5", data="data.h5"):
    return [os.path.join(ROOT, "pipelines/predict.sh"), "--run", run.directory, "--data", data, "--out", out, *words]


def predict(run, *words, **files):
    done = subprocess.run(command(run, *words, **files), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not [n for n in os.listdir(".") if ".tmp" in n]
    return done.stdout


def refused(run, *words, code=100, **files):
    done = subprocess.run(command(run, *words, **files), capture_output=True, text=True)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not os.path.exists(files.get("out", "out.h5"))
    return done.stderr


def results(run, name):
    """(task, after) -> (value, loss)."""
    with h5py.File(run.path("checkpoints", name)) as f:
        lines = [line.split("\t") for line in bytes(f["results"][:]).decode().splitlines()]
    return {(l[0], l[1]): (float(l[3]), float(l[4])) for l in lines}


def network(run, name, x):
    """Outputs in float64."""
    with h5py.File(run.path("checkpoints", name)) as f:
        w = {n: d[:].astype(np.float64) for n, d in f["parameters"].items()}
    return np.maximum(x @ w["0.weight"].T + w["0.bias"], 0) @ w["2.weight"].T + w["2.bias"]


def f1_macro(targets, classes):
    each = []
    for k in np.union1d(targets, classes):
        right = np.sum((targets == k) & (classes == k))
        each.append(2 * right / (np.sum(targets == k) + np.sum(classes == k)))
    return np.mean(each)
