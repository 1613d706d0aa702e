"""Every layer and loss of the engine against PyTorch in float64, by way of engine_probe: the gradient of one batch
(relative L2 1e-6), the weights after 20 AdamW steps (1e-5, eps = 1e-5 as test_engine_torch.py explains), and the
per-sample Fisher information against a batch-1 loop (1e-5). All over two numbers of threads and a batch that ends in a
slice that is not whole."""
import numpy as np

from harness import limit, skip
from test_engine_torch import ADAMW, probe, torch

BATCH, STEPS, ROWS, EPS = 50, 20, 200, 1e-5
SETTINGS = ("f32=1", "slice=16", "batch=%d" % BATCH)


def numbers_split(name, like):
    """The flat vector of a file as tensors of the shapes of `like`."""
    flat, tensors, at = np.fromfile(name, np.float32), [], 0
    for t in like:
        tensors.append(torch.tensor(flat[at:at + t.numel()].reshape(tuple(t.shape))).double())
        at += t.numel()
    assert at == len(flat), (name, at, len(flat))
    return tensors


def parameters_of(net):
    return list(net.parameters())


def case_open(text, net, inputs, targets, scale=1.0, tokens=0):
    """Files of a case, and the network in float64 with the engine's fresh weights. Rows are normal numbers;
    targets(random, rows) gives float32 [rows, K] or uint8 [rows]. tokens: rows are whole numbers below it instead."""
    random = np.random.default_rng(4)
    x = (scale * random.normal(size=(ROWS, inputs))).astype(np.float32)
    if tokens:
        x = random.integers(0, tokens, (ROWS, inputs)).astype(np.uint8)
    y = targets(random, ROWS)
    x.tofile("features")
    y.tofile("targets." + ("u8" if y.dtype == np.uint8 else "f32"))
    with open("model.txt", "w") as f:
        f.write("inputs=%d %s\n" % (inputs, text))
    probe("init", "seed=5")
    net.double()
    weights_set(net)
    return torch.tensor(x).long() if tokens else torch.tensor(x).double(), torch.tensor(y if y.dtype == np.uint8 else y.astype(np.float64))


def weights_set(net):
    with torch.no_grad():
        for p, w in zip(parameters_of(net), numbers_split("weights.f32", parameters_of(net))):
            p.copy_(w)


def near(ours, theirs, bar, what):
    for i, (a, b) in enumerate(zip(ours, theirs)):
        off = float((a - b).norm() / b.norm())
        print(what, "tensor", i, tuple(b.shape), "relative L2 %.2e" % off)
        assert off <= bar or (float(b.norm()) == 0 and float(a.norm()) == 0), (what, i, tuple(b.shape), off)


def gradients_compare(net, loss, x, y):
    net.zero_grad()
    value = loss(net(x[:BATCH]), y[:BATCH])
    value.backward()
    probe("train", "steps=1", "lr=0", "wd=0", *SETTINGS)
    assert abs(np.fromfile("steps.f64")[0] - float(value)) <= 1e-6 * abs(float(value))
    near(numbers_split("gradient.f32", parameters_of(net)), [p.grad for p in parameters_of(net)], 1e-6, "gradient")


def steps_compare(net, loss, x, y, bar):
    optimizer = torch.optim.AdamW(parameters_of(net), eps=EPS, **ADAMW)
    for k in range(STEPS):
        rows = slice(k * BATCH % ROWS, k * BATCH % ROWS + BATCH)
        optimizer.zero_grad()
        loss(net(x[rows]), y[rows]).backward()
        optimizer.step()
    written = []
    for threads in (1, 2):
        probe("train", "threads=%d" % threads, "steps=%d" % STEPS, "eps=%g" % EPS, *SETTINGS)
        near(numbers_split("trained.f32", parameters_of(net)), [p.detach() for p in parameters_of(net)], bar, "trained")
        written.append(open("trained.f32", "rb").read())
    assert written[0] == written[1]


def fisher_compare(net, loss, x, y):
    net.eval()
    sums = [torch.zeros_like(p) for p in parameters_of(net)]
    for i in range(ROWS):
        net.zero_grad()
        loss(net(x[i:i + 1]), y[i:i + 1]).backward()
        for s, p in zip(sums, parameters_of(net)):
            s += p.grad ** 2
    net.train()
    probe("fisher", "threads=2", *SETTINGS)
    near(numbers_split("fisher_sums.f32", parameters_of(net)), sums, 1e-5, "Fisher")
    probe("fisher", "threads=2", "factored=1", *SETTINGS)
    factors = [t for s in sums for t in ((s.sum(1), s.sum(0)) if s.dim() == 2 else (s,))]
    near(numbers_split("factors.f32", factors), factors, 1e-5, "Fisher, row and column sums")


def compare(text, net, loss, inputs, targets, bar=1e-5, scale=1.0, tokens=0):
    torch.set_num_threads(1)
    data_compare(net, loss, *case_open(text, net, inputs, targets, scale, tokens), bar)


def data_compare(net, loss, x, y, bar=1e-5):
    """x: anything whose slices are batches that net takes."""
    gradients_compare(net, loss, x, y)
    fisher_compare(net, loss, x, y)
    steps_compare(net, loss, x, y, bar)


def values(width, low=-1.0, high=1.0):
    return lambda random, rows: random.uniform(low, high, (rows, width)).astype(np.float32)


def needs_torch():
    if torch is None:
        skip("python3-torch and python3-numpy are not installed")


@limit(120)
def test_losses_of_values():
    needs_torch()
    nn, F = torch.nn, torch.nn.functional

    def cosine(z, y):
        return (1 - F.cosine_similarity(z, y)).mean()
    for name, loss, targets in (("mean_squared_error", nn.MSELoss(), values(5)), ("l1", nn.L1Loss(), values(5)),
                                ("huber delta=0.3", nn.HuberLoss(delta=0.3), values(5)), ("cosine", cosine, values(5, 0)),
                                ("binary_cross_entropy", nn.BCEWithLogitsLoss(), values(5, 0)),
                                ("mean_squared_error", nn.MSELoss(), values(1))):
        width = targets(np.random.default_rng(0), 1).shape[1]
        net = nn.Sequential(nn.Linear(11, 23), nn.ReLU(), nn.Linear(23, width))
        compare("loss=%s\nlinear out=23\nrelu\nlinear out=%d" % (name, width), net, loss, 11, targets)


if torch is not None:
    class Residual(torch.nn.Module):
        def __init__(self, *layers):
            super().__init__()
            self.inside = torch.nn.Sequential(*layers)

        def forward(self, x):
            return x + self.inside(x)

    class Steps(torch.nn.Module):
        """[N, steps V] as [N, steps, V]."""

        def __init__(self, steps):
            super().__init__()
            self.steps = steps

        def forward(self, x):
            return x.reshape(len(x), self.steps, -1)

    class Outputs(torch.nn.LSTM):
        """An LSTM without what is behind its outputs."""

        def forward(self, x):
            return super().forward(x)[0]

    class Pool(torch.nn.Module):
        def __init__(self, kind):
            super().__init__()
            self.kind = {"last": lambda x: x[:, -1], "mean": lambda x: x.mean(1), "sum": lambda x: x.sum(1),
                         "max": lambda x: x.max(1)[0]}[kind]

        def forward(self, x):
            return self.kind(x)


def chain(*lines):
    return "loss=mean_squared_error\n" + "\n".join(lines)


@limit(200)
def test_element_wise_layers():
    needs_torch()
    nn = torch.nn
    loss = nn.MSELoss()
    for lines, net in (
            (("linear out=23", "gelu", "linear out=4"), [nn.Linear(11, 23), nn.GELU(), nn.Linear(23, 4)]),
            (("linear out=23", "silu", "linear out=4"), [nn.Linear(11, 23), nn.SiLU(), nn.Linear(23, 4)]),
            (("linear out=23", "tanh", "linear out=4"), [nn.Linear(11, 23), nn.Tanh(), nn.Linear(23, 4)]),
            (("linear out=23", "sigmoid", "linear out=4"), [nn.Linear(11, 23), nn.Sigmoid(), nn.Linear(23, 4)]),
            (("linear out=23", "layernorm", "gelu", "linear out=4"),
             [nn.Linear(11, 23), nn.LayerNorm(23), nn.GELU(), nn.Linear(23, 4)]),
            (("layernorm", "linear out=4"), [nn.LayerNorm(11), nn.Linear(11, 4)]),
            (("linear out=16", "residual_begin", "layernorm", "linear out=32", "gelu", "linear out=16", "residual_end",
              "residual_begin", "linear out=16", "tanh", "residual_end", "linear out=4"),
             [nn.Linear(11, 16), Residual(nn.LayerNorm(16), nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 16)),
              Residual(nn.Linear(16, 16), nn.Tanh()), nn.Linear(16, 4)])):
        compare(chain(*lines), nn.Sequential(*net), loss, 11, values(4), scale=2.0)


@limit(200)
def test_sequences():
    needs_torch()
    nn = torch.nn
    loss = nn.MSELoss()
    for steps, lines, net in (
            (6, ("linear out=16", "gelu", "layernorm", "pool kind=mean", "linear out=3"),
             [nn.Linear(5, 16), nn.GELU(), nn.LayerNorm(16), Pool("mean"), nn.Linear(16, 3)]),
            (6, ("linear out=16", "pool kind=max", "linear out=3"), [nn.Linear(5, 16), Pool("max"), nn.Linear(16, 3)]),
            (9, ("lstm out=12", "pool kind=last", "linear out=3"), [Outputs(5, 12, batch_first=True), Pool("last"),
                                                                   nn.Linear(12, 3)]),
            (7, ("lstm out=10 layers=2 bidirectional=true", "pool kind=sum", "linear out=3"),
             [Outputs(5, 10, 2, batch_first=True, bidirectional=True), Pool("sum"), nn.Linear(20, 3)]),
            (5, ("linear out=8", "lstm out=8 layers=3", "tanh", "lstm out=6", "pool kind=mean", "linear out=3"),
             [nn.Linear(5, 8), Outputs(8, 8, 3, batch_first=True), nn.Tanh(), Outputs(8, 6, batch_first=True),
              Pool("mean"), nn.Linear(6, 3)]),
            (1, ("lstm out=12", "pool kind=last", "linear out=3"), [Outputs(5, 12, batch_first=True), Pool("last"),
                                                                    nn.Linear(12, 3)])):
        compare(chain("sequence steps=%d" % steps, *lines), nn.Sequential(Steps(steps), *net), loss, 5 * steps, values(3))


if torch is not None:
    class Carried(torch.nn.LSTM):
        """Outputs of an LSTM that begins where it ended before, but for gradients, and at 0 in rows that begin."""
        state = begins = None

        def forward(self, x):
            y, state = super().forward(x, self.state and tuple(s.where(~self.begins[:, None], s.new_zeros(())) for s in self.state))
            self.state = tuple(s.detach() for s in state)
            return y


@limit(100)
def test_carried_state():
    """Batches whose rows go on where those of the batch before ended, from 0 where the rows begin again and in a row of
    four that says so: the gradient of a third batch, weights after 20 steps."""
    needs_torch()
    nn, loss = torch.nn, torch.nn.MSELoss()
    torch.set_num_threads(1)
    lines = ("lstm out=10 layers=2", "tanh", "lstm out=6", "pool kind=mean", "linear out=3")
    net = nn.Sequential(Steps(5), Carried(4, 10, 2, batch_first=True), nn.Tanh(), Carried(10, 6, batch_first=True),
                        Pool("mean"), nn.Linear(6, 3))
    recurrent = (net[1], net[3])
    x, y = case_open(chain("sequence steps=5", *lines), net, 20, values(3))

    begins = np.random.default_rng(8).integers(0, 4, ROWS).astype(np.uint8) == 0
    begins.astype(np.uint8).tofile("begins.u8")

    def begin(first):
        for layer in recurrent:
            layer.state = layer.state if first else None
            layer.begins = torch.tensor(begins[first:first + BATCH])
    for first in range(0, 3 * BATCH, BATCH):
        begin(first)
        net.zero_grad()
        loss(net(x[first:first + BATCH]), y[first:first + BATCH]).backward()
    for checkpointing in (0, 1):
        probe("train", "carried=1", "checkpointing=%d" % checkpointing, "steps=3", "lr=0", "wd=0", *SETTINGS)
        near(numbers_split("gradient.f32", parameters_of(net)), [p.grad for p in parameters_of(net)], 1e-6, "gradient")
    optimizer = torch.optim.AdamW(parameters_of(net), eps=EPS, **ADAMW)
    for k in range(STEPS):
        first = k * BATCH % ROWS
        begin(first)
        optimizer.zero_grad()
        loss(net(x[first:first + BATCH]), y[first:first + BATCH]).backward()
        optimizer.step()
    probe("train", "carried=1", "steps=%d" % STEPS, "eps=%g" % EPS, *SETTINGS)
    near(numbers_split("trained.f32", parameters_of(net)), [p.detach() for p in parameters_of(net)], 1e-5, "trained")


@limit(200)
def test_tokens():
    """A class at every step, the mean over all of them; and tokens pooled to one vector."""
    needs_torch()
    nn = torch.nn

    def classes(steps, count):
        return lambda random, rows: random.integers(0, count, (rows, steps)).astype(np.uint8)

    def each_step(z, y):
        return nn.functional.cross_entropy(z.reshape(-1, z.shape[-1]), y.long().reshape(-1))
    for steps, count, lines, net in (
            (9, 30, ("embedding count=30 out=12", "lstm out=10", "linear out=30"),
             [nn.Embedding(30, 12), Outputs(12, 10, batch_first=True), nn.Linear(10, 30)]),
            (6, 250, ("embedding count=250 out=7", "layernorm", "linear out=250"),
             [nn.Embedding(250, 7), nn.LayerNorm(7), nn.Linear(7, 250)])):
        compare("loss=softmax_cross_entropy\n" + "\n".join(lines), nn.Sequential(*net), each_step, steps,
                classes(steps, count), tokens=count)
    compare(chain("embedding count=20 out=8", "pool kind=mean", "linear out=3"),
            nn.Sequential(nn.Embedding(20, 8), Pool("mean"), nn.Linear(8, 3)), nn.MSELoss(), 7, values(3), tokens=20)


def buffers_of(net):
    return [b for b in net.buffers() if b.dim()]


if torch is not None:
    class OverSteps(torch.nn.Module):
        """A BatchNorm1d over rows and steps: [N, steps, V]."""

        def __init__(self, values, **settings):
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(values, **settings)

        def forward(self, x):
            return self.norm(x.transpose(1, 2)).transpose(1, 2)


@limit(200)
def test_batchnorm():
    """Gradient, weights and running statistics after 20 steps, statistics renewed as update_bn does, and the Fisher
    information with running statistics that are not those of the rows. (A shift before a batchnorm has gradient 0, and
    rounding to compare: there is a function in between.)"""
    needs_torch()
    nn = torch.nn
    loss = nn.MSELoss()
    for inputs, lines, make in (
            (11, ("batchnorm", "linear out=23", "tanh", "batchnorm momentum=0.3", "linear out=4"),
             lambda: [nn.BatchNorm1d(11), nn.Linear(11, 23), nn.Tanh(), nn.BatchNorm1d(23, momentum=0.3), nn.Linear(23, 4)]),
            (30, ("sequence steps=6", "linear out=8", "gelu", "batchnorm", "lstm out=7", "batchnorm", "tanh",
                  "pool kind=mean", "batchnorm", "linear out=4"),
             lambda: [Steps(6), nn.Linear(5, 8), nn.GELU(), OverSteps(8), Outputs(8, 7, batch_first=True), OverSteps(7),
                      nn.Tanh(), Pool("mean"), nn.BatchNorm1d(7), nn.Linear(7, 4)])):
        torch.set_num_threads(1)
        net, fresh = nn.Sequential(*make()), nn.Sequential(*make()).double()
        x, y = case_open(chain(*lines), net, inputs, values(4), 2.0)
        gradients_compare(net, loss, x, y)
        weights_set(fresh)
        steps_compare(fresh, loss, x, y, 1e-5)
        near(numbers_split("buffers.f32", buffers_of(fresh)), buffers_of(fresh), 1e-5, "running statistics")
        fisher_compare_running(fresh, loss, x, y)
        weights_set(fresh)
        torch.optim.swa_utils.update_bn([x[i:i + BATCH] for i in range(0, ROWS, BATCH)], fresh)
        probe("renew", "threads=2", *SETTINGS)
        near(numbers_split("buffers.f32", buffers_of(fresh)), buffers_of(fresh), 1e-5, "renewed statistics")


def fisher_compare_running(net, loss, x, y):
    """With the statistics that the net has, and the fresh weights."""
    weights_set(net)
    fisher_compare(net, loss, x, y)
