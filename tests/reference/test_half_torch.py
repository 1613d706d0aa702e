"""One step in 16 bits against an emulation in PyTorch float64 that rounds in the same places: what lies between two
layers and the gradient there, and the weights that products read; the loss scaled by 2^16 for float16.

The two differ where float32's rounding of a sum moves a number over the middle between two of 16 bits: with binary16
a few of some thousand numbers, with bfloat16 (8 times coarser) none here. So the bar is a share of the distance between
the gradients with and without rounding, a tensor at a time: measured at most 1/10 and 1/100,000.

Then whole runs of the network of pipelines/fashion.yaml: their validation loss."""
import os

import numpy as np

from harness import limit, skip
from small_run import SmallRun
from test_engine_torch import IMAGES as SOURCE, images
from test_layers_torch import (BATCH, SETTINGS, Pool, Steps, case_open, chain, numbers_split, parameters_of, probe, torch,
                               values)

try:
    import h5py
except ImportError:
    h5py = None

SHARE, FAR = {1: 1 / 6, 2: 1 / 1000}, {1: 1e-4, 2: 1e-3}

if torch is not None:
    KINDS = {1: torch.float16, 2: torch.bfloat16}

    class Round(torch.autograd.Function):
        """x and the gradient at it, each rounded if its kind is not None."""

        @staticmethod
        def forward(context, x, forward, backward):
            context.kind = backward
            return x if forward is None else x.to(forward).to(x.dtype)

        @staticmethod
        def backward(context, g):
            return (g if context.kind is None else g.to(context.kind).to(g.dtype)), None, None

    class FromOutput(torch.autograd.Function):
        """tanh or sigmoid, whose derivative is told from the rounded output, which is what is kept."""

        @staticmethod
        def forward(context, x, function, kind):
            y = function(x)
            y = y if kind is None else y.to(kind).to(y.dtype)
            context.save_for_backward(y)
            context.is_tanh = function is torch.tanh
            return y

        @staticmethod
        def backward(context, g):
            y, = context.saved_tensors
            return g * (1 - y * y if context.is_tanh else y * (1 - y)), None, None

    class Rounded(torch.nn.Module):
        """A layer whose weight, but no bias, is rounded, and whose output and the gradient there are."""

        def __init__(self, layer, kind):
            super().__init__()
            self.layer, self.kind = layer, kind

        def forward(self, x):
            if isinstance(self.layer, torch.nn.Linear):
                weight = Round.apply(self.layer.weight, self.kind, None)
                x = torch.nn.functional.linear(x, weight, self.layer.bias)
            elif isinstance(self.layer, (torch.nn.Tanh, torch.nn.Sigmoid)):
                x = FromOutput.apply(x, torch.tanh if isinstance(self.layer, torch.nn.Tanh) else torch.sigmoid, self.kind)
            else:
                x = self.layer(x)
            return Round.apply(x, self.kind, self.kind)

    class RoundedResidual(torch.nn.Module):
        def __init__(self, kind, *layers):
            super().__init__()
            self.inside, self.kind = torch.nn.Sequential(*layers), kind

        def forward(self, x):
            return Round.apply(x + self.inside(Round.apply(x, None, self.kind)), self.kind, self.kind)


def networks():
    """Lines, values of a row, and the network with rounding to a kind (None: without)."""
    nn = torch.nn

    def plain(kind):
        return [Rounded(layer, kind) for layer in (nn.Linear(24, 64), nn.Tanh(), nn.LayerNorm(64), nn.Linear(64, 48),
                                                   nn.GELU(), nn.Linear(48, 6))]

    def residual(kind):
        return [Rounded(nn.Linear(24, 32), kind), RoundedResidual(kind, *(Rounded(layer, kind) for layer in (
            nn.Linear(32, 40), nn.SiLU(), nn.Linear(40, 32)))), Rounded(nn.Sigmoid(), kind),
                Rounded(nn.BatchNorm1d(32), kind), Rounded(nn.Linear(32, 6), kind)]

    def steps(kind):
        return [Steps(4)] + [Rounded(layer, kind) for layer in (nn.Linear(6, 16), nn.GELU(), Pool("mean"), nn.Linear(16, 6))]
    return ((("linear out=64", "tanh", "layernorm", "linear out=48", "gelu", "linear out=6"), plain),
            (("linear out=32", "residual_begin", "linear out=40", "silu", "linear out=32", "residual_end", "sigmoid",
              "batchnorm", "linear out=6"), residual),
            (("sequence steps=4", "linear out=16", "gelu", "pool kind=mean", "linear out=6"), steps))


def gradients(make, kind, scale, x, y):
    net = torch.nn.Sequential(*make(kind)).double().train()
    with torch.no_grad():
        for p, w in zip(parameters_of(net), numbers_split("weights.f32", parameters_of(net))):
            p.copy_(w)
    loss = torch.nn.functional.mse_loss(net(Round.apply(x, kind, None)), y)
    (loss * scale).backward()
    return float(loss.detach()), [p.grad / scale for p in parameters_of(net)]


def distances(ours, theirs):
    return [float((a - b).norm() / b.norm()) for a, b in zip(ours, theirs)]


@limit(120)
def test_one_step_rounds_where_the_emulation_does():
    if torch is None:
        skip("python3-torch and python3-numpy are not installed")
    torch.set_num_threads(1)
    for lines, make in networks():
        x, y = case_open(chain(*lines), torch.nn.Sequential(*make(None)), 24, values(6), 2.0)
        _, exact = gradients(make, None, 1.0, x[:BATCH], y[:BATCH])
        for half in (1, 2):
            loss, wanted = gradients(make, KINDS[half], 65536.0 if half == 1 else 1.0, x[:BATCH], y[:BATCH])
            probe("train", "steps=1", "lr=0", "wd=0", "half=%d" % half, *SETTINGS)
            ours = numbers_split("gradient.f32", exact)
            for off, far in zip(distances(ours, wanted), distances(exact, wanted)):
                print(lines, KINDS[half], "gradient off by %.1e, without rounding by %.1e" % (off, far))
                assert off <= SHARE[half] * far and far >= FAR[half], (lines, half, off, far)
            assert abs(np.fromfile("steps.f64")[0] / loss - 1) < 1e-5


PIPELINE = """name: images
data: {file: images.h5, scale: 0.00392156862745098}
model:
  layers:
    - {type: linear, out: 256}
    - {type: relu}
    - {type: linear, out: 256}
    - {type: relu}
    - {type: linear, out: 10}
training: {batch_size: 128, threads: 2, scheduler_type: onecycle, learning_rate: 2e-3}
tasks:
  - {name: A, epochs: 4}
"""


def images_write(path):
    """The network and the images of pipelines/fashion.yaml, but fewer."""
    if not os.path.exists(SOURCE % ("images", 3)):
        skip("dataset-fashion-mnist is not installed")
    x, y = images(15000)
    with h5py.File(path, "w") as f:
        for split, rows in (("train", slice(0, 12000)), ("validation", slice(12000, 15000))):
            f.create_dataset(split + "/features", data=x[rows], chunks=(64, 784))
            f.create_dataset(split + "/targets", data=y[rows], chunks=(64,))


@limit(180)
def test_16_bits_learn_what_float32_learns():
    """Validation loss within 1 %. (With a rate that ends near 0: else what is left of the noise of the steps decides.)"""
    if torch is None or h5py is None:
        skip("python3-torch, python3-numpy or python3-h5py is not installed")
    images_write("images.h5")
    losses = {}
    for name, settings in (("float32", ()), ("float16", ("training.use_amp=true",)),
                           ("bfloat16", ("training.use_amp=true", "training.amp_dtype=bfloat16"))):
        run = SmallRun(name, "images.h5", settings=settings, pipeline=PIPELINE)
        with run:
            run.start("loaderd", "trainerd")
            assert run.wait("trainerd") == 0, run.log("trainerd")[-2000:]
        with h5py.File(run.path("checkpoints/task-A.h5")) as f:
            losses[name] = float(bytes(f["results"][:]).decode().split("\t")[4])
            assert f.attrs["loss_scale"] == (65536 if name == "float16" else 0) and f.attrs["task_skipped"] == 0
    print(losses)
    assert losses["float16"] != losses["float32"] != losses["bfloat16"]
    for name in ("float16", "bfloat16"):
        assert abs(losses[name] / losses["float32"] - 1) < 0.01, losses
