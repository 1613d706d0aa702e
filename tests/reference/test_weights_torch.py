"""Weights out of a run and back: what `trainerd --weights export` writes is a state dict that torch.nn modules take
by name and shape, and what it computes there is what the engine computed."""
import os
import subprocess
import sys

from harness import skip
from small_run import BINARIES, ROOT, trained

try:
    import h5py
    import numpy as np
    import torch
    import safetensors_file
except ImportError:
    torch = None

LAYERS = """
    - {type: sequence, steps: 10}
    - {type: lstm, out: 7, layers: 2, bidirectional: true}
    - {type: layernorm}
    - {type: pool, kind: mean}
    - {type: linear, out: 3}
"""
PIPELINE = """name: small
data: {file: x, scale: 1}
model:
  loss: mean_squared_error
  layers: %s
training: {batch_size: 64, threads: 2, learning_rate: 1e-2}
tasks:
  - {name: A, epochs: 1}
"""
ROWS, VALUES = 300, 40


def rows_make():
    random = np.random.default_rng(3)
    return random.standard_normal((ROWS, VALUES)).astype(np.float32), random.standard_normal((ROWS, 3)).astype(np.float32)


def sequence_run():
    if torch is None:
        skip("python3-torch, python3-numpy or python3-h5py is not installed")
    features, targets = rows_make()
    return trained("run", features=features, targets=targets, pipeline=PIPELINE % LAYERS)


def weights(*words):
    return subprocess.run([os.path.join(BINARIES, "trainerd"), "--weights", *words], capture_output=True, text=True)


class Network(torch.nn.Module if torch else object):
    """LAYERS in torch; its modules have the places of the layers as names, as in nn.Sequential."""

    def __init__(self):
        super().__init__()
        self.add_module("1", torch.nn.LSTM(4, 7, num_layers=2, bidirectional=True, batch_first=True))
        self.add_module("2", torch.nn.LayerNorm(14))
        self.add_module("4", torch.nn.Linear(14, 3))

    def forward(self, x):
        one, two, four = (getattr(self, name) for name in "124")
        return four(two(one(x.reshape(len(x), 10, 4))[0]).mean(1))


def test_export_is_a_state_dict_that_torch_takes_strictly():
    run, features, targets = sequence_run()
    done = weights("export", "--run", run.directory, "--out", "a.safetensors")
    assert done.returncode == 0, done.stderr
    state, metadata = safetensors_file.read("a.safetensors")
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        for name, array in state.items():
            assert array.dtype == np.float32 and np.array_equal(array, f["parameters"][name][:]), name
        assert len(f["parameters"]) == len(state) == 16 + 2 + 2
        loss = float(bytes(f["results"][:]).decode().split("\t")[4])
    assert metadata["format"] == "pt" and metadata["model"].startswith("inputs=40 loss=mean_squared_error\n")
    network = Network()
    network.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=True)
    with torch.no_grad():
        ours = float(((network(torch.tensor(features)) - torch.tensor(targets)) ** 2).mean())
    assert abs(ours - loss) < 1e-6 * loss, (ours, loss)


def test_a_state_dict_of_torch_is_what_the_engine_computes_with():
    """The other way: torch's fresh weights, mapped from other names, and a run that leaves them as they are."""
    if torch is None:
        skip("python3-torch, python3-numpy or python3-h5py is not installed")
    torch.manual_seed(4)
    network, (features, targets) = Network(), rows_make()
    state = {name.replace("1.", "encoder.rnn.", 1) if name.startswith("1.") else name: tensor.numpy()
             for name, tensor in network.state_dict().items()}
    safetensors_file.write("torch.safetensors", state)
    run, _, _ = trained("run", features=features, targets=targets, pipeline=PIPELINE % LAYERS, settings=(
        "model.pretrained=" + os.path.abspath("torch.safetensors"), "model.pretrained_map=1:encoder.rnn",
        "training.learning_rate=0"))
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        loss = float(bytes(f["results"][:]).decode().split("\t")[4])
    with torch.no_grad():
        theirs = float(((network(torch.tensor(features)) - torch.tensor(targets)) ** 2).mean())
    assert abs(theirs - loss) < 1e-6 * loss, (theirs, loss)
    done = subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), "--run", run.directory, "--data", "data.h5",
                           "--out", "out.h5"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with h5py.File("out.h5") as f, torch.no_grad():
        assert np.abs(f["outputs"][:] - network(torch.tensor(features)).numpy()).max() < 1e-6


def test_running_statistics_go_both_ways():
    if torch is None:
        skip("python3-torch, python3-numpy or python3-h5py is not installed")
    layers = """
    - {type: linear, out: 16}
    - {type: batchnorm}
    - {type: relu}
    - {type: linear, out: 3}
"""
    features, targets = rows_make()
    run, _, _ = trained("run", features=features, targets=targets, pipeline=PIPELINE % layers)
    done = weights("export", "--run", run.directory, "--out", "a.safetensors")
    assert done.returncode == 0, done.stderr
    state, _ = safetensors_file.read("a.safetensors")
    assert state["1.num_batches_tracked"].shape == () and state["1.num_batches_tracked"] == (ROWS + 63) // 64
    network = torch.nn.Sequential(torch.nn.Linear(40, 16), torch.nn.BatchNorm1d(16), torch.nn.ReLU(),
                                  torch.nn.Linear(16, 3)).eval()
    network.load_state_dict({name: torch.tensor(array) for name, array in state.items()}, strict=True)
    predict = [os.path.join(ROOT, "pipelines/predict.sh"), "--run", run.directory, "--out"]
    with torch.no_grad():
        theirs = network(torch.tensor(features)).numpy()
    for name, words in (("a.h5", ()), ("b.h5", ("--checkpoint", "a.safetensors"))):
        assert subprocess.run([*predict, name, *words], capture_output=True).returncode == 0
        with h5py.File(name) as f:
            assert np.abs(f["outputs"][:] - theirs).max() < 1e-5
    begun, _, _ = trained("begun", features=features, targets=targets, pipeline=PIPELINE % layers, settings=(
        "model.pretrained=" + os.path.abspath("a.safetensors"), "training.learning_rate=0",
        "model.pretrained_head=fresh", "data.shuffle=false"))
    with h5py.File(begun.path("checkpoints/task-A.h5")) as f:
        assert np.array_equal(f["parameters/1.weight"][:], state["1.weight"])
        mean = state["1.running_mean"].astype(np.float64)  # one epoch moves it on from there
        for batch in np.split(features @ state["0.weight"].T + state["0.bias"], range(64, ROWS, 64)):
            mean = 0.9 * mean + 0.1 * batch.mean(0)
        assert np.abs(f["buffers/1.running_mean"][:] - mean).max() < 1e-5


def test_pt_files_go_there_and_back():
    if torch is None:
        skip("python3-torch, python3-numpy or python3-h5py is not installed")
    script = os.path.join(ROOT, "pipelines/pt-safetensors.py")
    state = Network().state_dict()
    state["half"] = torch.arange(6).reshape(2, 3).half()
    state["brain"] = torch.linspace(-3, 3, 5).bfloat16()
    state["count"] = torch.tensor(7)
    state["empty"] = torch.zeros(0, 3)
    torch.save({"epoch": 3, "state_dict": state}, "in.pt")
    for words in (("in.pt", "x.safetensors"), ("x.safetensors", "out.pt")):
        done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    back = torch.load("out.pt")
    assert set(back) == set(state)
    for name, tensor in state.items():
        assert back[name].dtype == tensor.dtype and torch.equal(back[name], tensor), name
    listed = weights("list", "x.safetensors")
    assert listed.returncode == 0 and "24 tensors" in listed.stdout and "BF16    [5]" in listed.stdout, listed
    torch.save([1, 2], "list.pt")
    for words in (("list.pt", "y.safetensors"), ("missing.pt", "y.safetensors"), ("in.pt", "out.pt")):
        done = subprocess.run([sys.executable, script, *words], capture_output=True, text=True)
        assert done.returncode == 100 and len(done.stderr.splitlines()) == 1, done.stderr


def test_what_cannot_be_exported_is_one_sentence():
    run, _, _ = sequence_run()
    with open("bad.h5", "wb") as f:
        f.write(b"\x89HDF\r\n\x1a\n" + bytes(100))
    cases = (
        (("export", "--run", "nowhere", "--out", "x"), "cannot read the run in nowhere"),
        (("export", "--run", run.directory, "--task", "B", "--out", "x"), "has no task B; it has A"),
        (("export", "--run", run.directory), "--out FILE is missing"),
        (("export", "--out", "x"), "--run DIR or --checkpoint FILE is missing"),
        (("export", "--run", run.directory, "--last", "--best", "--out", "x"), "--last is the run's newest"),
        (("export", "--checkpoint", "bad.h5", "--out", "x"), "bad.h5"),
        (("export", "--run", run.directory, "--out", "no/such/place"), "cannot make no/such/place"),
        (("list", "missing"), "cannot open missing"),
        (("list",), "accepted are"),
    )
    for words, part in cases:
        done = weights(*words)
        assert done.returncode == 100 and part in done.stderr, (words, done.stderr)
        assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not os.path.exists("x")
    for words in (("--best",), ("--last",)):
        assert weights("export", "--run", run.directory, *words, "--out", "x").returncode == 0
