"""Predictions in 8 bits against the formula in numpy, and what they cost beside torch's quantize_dynamic."""
import os
import subprocess

from harness import limit, skip
from small_run import ROOT, trained

try:
    import h5py
    import numpy as np
    import torch
    import safetensors_file
except ImportError:
    torch = None

LAYERS = """
    - {type: sequence, steps: 8}
    - {type: lstm, out: 24, layers: 2, bidirectional: true}
    - {type: pool, kind: last}
    - {type: linear, out: 32}
    - {type: relu}
    - {type: linear, out: 4}
"""
PIPELINE = """name: small
data: {file: x, scale: 1}
model:
  loss: mean_squared_error
  layers: %s
training: {batch_size: 64, threads: 2, learning_rate: 1e-2}
tasks:
  - {name: A, epochs: 5}
"""
ROWS, STEPS, VALUES = 400, 8, 12


def quantised(rows):
    """Each row as whole numbers and its scale, in float32 as the engine does it."""
    largest = np.abs(rows).max(1, keepdims=True)
    inverse = np.where(largest > 0, np.float32(127) / np.where(largest > 0, largest, 1), 0).astype(np.float32)
    return np.clip(np.rint(rows * inverse), -127, 127).astype(np.int64), (largest / np.float32(127)).astype(np.float32)


def product(x, w):
    (a, sa), (b, sb) = quantised(x), quantised(w)
    return ((a @ b.T).astype(np.float64) * (sa.astype(np.float64) * sb.astype(np.float64).T)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(x, w, layer, suffix):
    """x [N, T, in] -> h [N, T, H], one direction."""
    name = "1.%%s_l%d%s" % (layer, suffix)
    size = w[name % "weight_hh"].shape[1]
    h = c = np.zeros((len(x), size), np.float32)
    out = np.zeros((len(x), x.shape[1], size), np.float32)
    steps = range(x.shape[1])[::-1] if suffix else range(x.shape[1])
    for t in steps:
        gates = product(x[:, t], w[name % "weight_ih"]) + product(h, w[name % "weight_hh"])
        i, f, g, o = np.split(gates + w[name % "bias_ih"] + w[name % "bias_hh"], 4, 1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = out[:, t] = (sigmoid(o) * np.tanh(c)).astype(np.float32)
    return out


def network(x, w):
    x = x.reshape(len(x), STEPS, VALUES)
    for layer in range(2):
        x = np.concatenate([lstm(x, w, layer, ""), lstm(x, w, layer, "_reverse")], 2)
    x = np.maximum(product(x[:, -1], w["3.weight"]) + w["3.bias"], 0)
    return product(x, w["5.weight"]) + w["5.bias"]


class Network(torch.nn.Module if torch else object):
    def __init__(self):
        super().__init__()
        self.add_module("1", torch.nn.LSTM(VALUES, 24, num_layers=2, bidirectional=True, batch_first=True))
        self.add_module("3", torch.nn.Linear(48, 32))
        self.add_module("5", torch.nn.Linear(32, 4))

    def forward(self, x):
        one, three, five = (getattr(self, name) for name in "135")
        return five(torch.relu(three(one(x.reshape(len(x), STEPS, VALUES))[0][:, -1])))


def predict(run, *words, out):
    done = subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), "--run", run.directory, "--out", out, *words],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with h5py.File(out) as f:
        return f["outputs"][:], dict(f.attrs), done.stdout


@limit(180)
def test_outputs_follow_the_formula_and_cost_less_than_torchs():
    if torch is None:
        skip("python3-torch, python3-numpy or python3-h5py is not installed")
    random = np.random.default_rng(5)
    features = random.standard_normal((ROWS, STEPS * VALUES)).astype(np.float32)
    targets = np.tanh(features.reshape(ROWS, STEPS, VALUES).sum(1)[:, :4]).astype(np.float32)
    run, _, _ = trained("run", features=features, targets=targets, pipeline=PIPELINE % LAYERS)
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        weights = {n: d[:] for n, d in f["parameters"].items()}
    exact, _, _ = predict(run, out="float.h5")
    ours, told, said = predict(run, "--int8", out="int8.h5")
    cost = np.abs(ours - exact).max()
    # tanh and exp of other libraries move a number over a rounding's border now and then
    apart = np.abs(ours - network(features, weights))
    print("apart from numpy: largest %g, median %g; 8 bits cost at most %g" % (apart.max(), np.median(apart), cost))
    assert np.median(apart) < 1e-6 and apart.max() < cost / 2
    assert told["arithmetic"] == b"int8" and "KiB in 8 bits" in said and "float32: loss" in said, said
    for key, outputs in (("loss", ours), ("float32_loss", exact)):
        assert abs(told[key] - ((outputs.astype(np.float64) - targets) ** 2).mean()) < 1e-12, told
    assert abs(told["loss"] / told["float32_loss"] - 1) < 0.01, told
    module = Network()
    module.load_state_dict({n: torch.tensor(a) for n, a in weights.items()})
    engines = [e for e in ("fbgemm", "qnnpack") if e in torch.backends.quantized.supported_engines]
    if engines:
        torch.backends.quantized.engine = engines[0]
        small = torch.ao.quantization.quantize_dynamic(module, {torch.nn.LSTM, torch.nn.Linear}, dtype=torch.qint8)
        with torch.no_grad():
            theirs = small(torch.tensor(features)).numpy()
        print("mean cost: ours %g, torch's %g" % (np.abs(ours - exact).mean(), np.abs(theirs - exact).mean()))
        assert np.abs(ours - exact).mean() < np.abs(theirs - exact).mean()


@limit(180)
def test_weights_in_8_bits_go_out_and_come_back():
    if torch is None:
        skip("python3-torch, python3-numpy or python3-h5py is not installed")
    run, _, _ = trained("run")
    script = os.path.join(ROOT, "pipelines/weights.sh")
    for words in ((), ("--int8",)):
        out = "w%d.safetensors" % len(words)
        done = subprocess.run([script, "export", "--run", run.directory, "--task", "A", "--out", out, *words],
                              capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    whole, _ = safetensors_file.read("w0.safetensors")
    small, metadata = safetensors_file.read("w1.safetensors")
    assert "NAME.scale" in metadata["quantisation"] and set(small) == set(whole) | {"0.weight.scale", "2.weight.scale"}
    for name in ("0.weight", "2.weight"):
        q, scale = quantised(whole[name])
        assert small[name].dtype == np.int8 and np.array_equal(small[name], q)
        assert np.array_equal(small[name + ".scale"], scale[:, 0])
    assert np.array_equal(small["0.bias"], whole["0.bias"])
    # what comes back is what went out: in 8 bits the outputs are the same, bit for bit
    a, _, _ = predict(run, "--task", "A", "--int8", out="a.h5")
    b, _, _ = predict(run, "--checkpoint", "w1.safetensors", "--int8", out="b.h5")
    assert np.array_equal(a, b)
    # and a run can begin with them
    begun, _, _ = trained("begun", settings=("model.pretrained=" + os.path.abspath("w1.safetensors"),
                                             "training.learning_rate=0"))
    with h5py.File(begun.path("checkpoints/task-A.h5")) as f:
        for name in ("0.weight", "2.weight"):
            back = small[name].astype(np.float32) * small[name + ".scale"][:, None]
            assert np.array_equal(f["parameters"][name][:], back)
