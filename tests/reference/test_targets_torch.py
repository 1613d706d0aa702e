"""Targets that are missing or weigh, against PyTorch in float64 by way of engine_probe: gradient, weights after 20 steps,
per-sample Fisher information, of every loss. What a batch's loss is: (w * loss)[there].sum() / w[there].sum()."""
import numpy as np

from harness import skip
from test_engine_torch import torch
import test_layers_torch as layers

ROWS, INPUTS, K = layers.ROWS, 7, 5
if torch:
    from torch import nn
    F = nn.functional


def case(text, kind, loss_rows, given, of_targets=None, signed=False):
    """kind: targets(random); loss_rows(z, y): the losses of each number [n, K] or row [n]; given: weights a row, or 0."""
    random = np.random.default_rng(8)
    y = kind(random)
    w = (random.uniform(0.2, 3, (ROWS, given)) * (random.random((ROWS, given)) > 0.2)).astype(np.float32)
    w.tofile("target_weights.f32")
    layers.SETTINGS = (*layers.SETTINGS[:3], "weights=%d" % given, *(("signed=1",) if signed else ()))
    keys = " missing" + (" weights=" + ",".join("%g" % v for v in of_targets) if of_targets else "")
    net = nn.Sequential(nn.Linear(INPUTS, 11), nn.Tanh(), nn.Linear(11, K))
    x, _ = layers.case_open("loss=%s%s\nlinear out=11\ntanh\nlinear out=%d" % (text, keys, K), net, INPUTS, lambda *_: y)
    if signed:
        y.view(np.int8).tofile("targets.u8")
    t = torch.tensor(y.view(np.int8) if signed else y).double()
    there = ~torch.isnan(t) if not signed else t >= 0
    t = torch.where(there, t, torch.zeros_like(t))
    of = torch.tensor(of_targets or [1.0] * K).double()
    weight = (torch.tensor(w).double() if given else torch.ones(ROWS, 1).double())
    if signed:
        weight = weight[:, 0] * of[t.long()] * there
    else:
        weight = weight * of * there

    def mean(z, rows):
        losses, weighs = loss_rows(z, t[rows], weight[rows])
        return losses.sum() / weighs.sum()

    def sample(z, rows):  # whose square weighs what its targets do
        losses, weighs = loss_rows(z, t[rows], weight[rows])
        kept = torch.where(weighs > 0, losses / weighs.clamp(min=1e-30), torch.zeros_like(losses))
        return (weighs.sqrt() * kept).sum() / (K if losses.dim() == 2 else 1)

    rows = torch.arange(ROWS)
    layers.gradients_compare(net, mean, x, rows)
    layers.fisher_compare(net, sample, x, rows)
    whole = loss_rows(net(x), t, weight)[1].sum() / (K if loss_rows(net(x), t, weight)[1].dim() == 2 else 1)
    assert abs(np.fromfile("fisher_weight.f64")[0] / float(whole) - 1) < 1e-6
    layers.steps_compare(net, mean, x, rows, 1e-5)


def repeated_compare(text, y, loss, repeats, of_targets=None):
    """A row that weighs 3 is three rows: the Fisher information is the plain mean over rows that stand there so often,
    of squares that know no weights. loss(z, y): of one row; repeats: what each weighs in the end, its class included."""
    of = " weights=" + ",".join("%d" % v for v in of_targets) if of_targets is not None else ""
    net = nn.Sequential(nn.Linear(INPUTS, 11), nn.Tanh(), nn.Linear(11, K))
    x, _ = layers.case_open("loss=%s missing%s\nlinear out=11\ntanh\nlinear out=%d" % (text, of, K), net, INPUTS, lambda *_: y)
    if y.dtype == np.uint8:
        y.view(np.int8).tofile("targets.u8")
    layers.probe("fisher", "threads=2", *layers.SETTINGS)
    t, weight = torch.tensor(y.view(np.int8) if y.dtype == np.uint8 else y.astype(np.float64)), np.fromfile("fisher_weight.f64")[0]
    squares, count = [torch.zeros_like(p) for p in net.parameters()], 0
    for i in np.repeat(np.arange(ROWS), repeats):
        net.zero_grad()
        loss(net(x[i:i + 1]), t[i:i + 1]).backward()
        squares, count = [s + p.grad ** 2 for s, p in zip(squares, net.parameters())], count + 1
    assert count > ROWS // 2 and weight == count
    ours = layers.numbers_split("fisher_sums.f32", list(net.parameters()))
    layers.near([o / weight for o in ours], [s / count for s in squares], 1e-5, "Fisher of repeated rows")


def test_a_weight_of_three_is_three_rows():
    if torch is None:
        skip("python3-torch is not installed")
    torch.set_num_threads(1)
    random = np.random.default_rng(9)
    given, of = random.integers(0, 4, ROWS), np.array([1, 3, 2, 1, 4])
    layers.SETTINGS = (*layers.SETTINGS[:3], "weights=1", "signed=1")
    y = random.uniform(-2, 2, (ROWS, K)).astype(np.float32)
    there = random.random(ROWS) > 0.4
    y[~there] = np.nan
    given.astype(np.float32).tofile("target_weights.f32")
    repeated_compare("mean_squared_error", y, F.mse_loss, given * there)
    classes = random.integers(0, K, ROWS).astype(np.int8)
    repeats = given * there * of[classes]
    classes[~there] = -100
    repeated_compare("softmax_cross_entropy", np.ascontiguousarray(classes).view(np.uint8),
                     lambda z, y: F.cross_entropy(z, y.long()), repeats, of)


def values(random, low=-2.0, high=2.0):
    y = random.uniform(low, high, (ROWS, K)).astype(np.float32)
    y[random.random((ROWS, K)) < 0.3] = np.nan
    y[3] = np.nan
    return y


def each(function):
    return lambda z, y, w: (w * function(z, y), w)


def cosines(z, y, w):
    """A row weighs as much as its largest weight, its numbers relative to that."""
    largest = w.max(1).values
    u = w / largest.clamp(min=1e-30)[:, None]
    product = (u * z * y).sum(1)
    lengths = ((u * z * z).sum(1) + 1e-300).sqrt() * ((u * y * y).sum(1) + 1e-300).sqrt()
    return largest * (1 - product / lengths), largest


def test_losses_of_values_with_weights():
    if torch is None:
        skip("python3-torch is not installed")
    torch.set_num_threads(1)
    case("mean_squared_error", values, each(lambda z, y: (z - y) ** 2), 1, (1, 2, 0.5, 0, 4))
    case("l1", values, each(lambda z, y: (z - y).abs()), K)
    case("huber delta=0.4", values, each(lambda z, y: F.huber_loss(z, y, reduction="none", delta=0.4)), 0)
    case("binary_cross_entropy", lambda r: values(r, 0, 1),
         each(lambda z, y: F.binary_cross_entropy_with_logits(z, y, reduction="none")), 1)
    case("cosine", values, cosines, K)


def test_classes_with_weights():
    """As torch's weight= and ignore_index; and rows with weights, too."""
    if torch is None:
        skip("python3-torch is not installed")
    torch.set_num_threads(1)
    of = (1, 0.25, 3, 2, 0.5)

    def classes(random):
        y = random.integers(0, K, ROWS).astype(np.int8)
        y[random.random(ROWS) < 0.3] = -100
        return y.view(np.uint8)

    def rows(z, y, w):
        return w * F.cross_entropy(z, y.long(), reduction="none"), w
    for given in (0, 1):
        case("softmax_cross_entropy", classes, rows, given, of, signed=True)
    z, y = torch.randn(9, K).double(), torch.tensor([0, 1, -100, 4, 2, 2, -100, 3, 1])
    weight = torch.tensor(of).double()
    w = torch.where(y < 0, torch.zeros(9).double(), weight[y.clamp(min=0)])
    losses, w = rows(z, y.clamp(min=0), w)
    assert abs(F.cross_entropy(z, y, weight=weight) - losses.sum() / w.sum()) < 1e-12


def test_tokens_with_weights():
    """A class at each step, each with a weight: prompts that weigh nothing."""
    if torch is None:
        skip("python3-torch is not installed")
    torch.set_num_threads(1)
    random, steps, words = np.random.default_rng(12), 5, 20
    w = random.uniform(0.2, 3, (ROWS, steps)).astype(np.float32)
    w[np.arange(steps) < random.integers(0, steps + 1, (ROWS, 1))] = 0
    w.tofile("target_weights.f32")
    layers.SETTINGS = (*layers.SETTINGS[:3], "weights=%d" % steps)
    net = nn.Sequential(nn.Embedding(words, 6), layers.Outputs(6, 7, batch_first=True), nn.Linear(7, words))
    x, y = layers.case_open("loss=softmax_cross_entropy\nembedding count=%d out=6\nlstm out=7\nlinear out=%d" % (words, words),
                            net, steps, lambda random, rows: random.integers(0, words, (rows, steps)).astype(np.uint8), tokens=words)
    weight = torch.tensor(w).double()

    def losses(z, rows):
        return F.cross_entropy(z.transpose(1, 2), y[rows].long(), reduction="none")
    rows = torch.arange(ROWS)
    mean = lambda z, rows: (weight[rows] * losses(z, rows)).sum() / weight[rows].sum()
    layers.gradients_compare(net, mean, x, rows)
    layers.fisher_compare(net, lambda z, rows: (weight[rows].sqrt() * losses(z, rows)).mean(), x, rows)
    assert abs(np.fromfile("fisher_weight.f64")[0] / float(weight.sum() / steps) - 1) < 1e-6
    layers.steps_compare(net, mean, x, rows, 1e-5)
