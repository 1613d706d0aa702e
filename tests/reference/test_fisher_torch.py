"""The labels of the Fisher information (engine/labels.h) against PyTorch's loops in float64: the model's own labels, drawn
by the numbers that the engine draws, and the exact expectation, class by class or output by output."""
import math

import numpy as np

from harness import limit
from test_engine_torch import probe, torch
from test_graphs_torch import GCN, Readout, graphs_open
from test_layers_torch import (ROWS, SETTINGS, Outputs, Pool, Steps, case_open, near, needs_torch, numbers_split,
                               parameters_of, values)

MASK = (1 << 64) - 1
TRUE, SAMPLED, ALL, GAUSSIAN = range(4)
SEED = 9  # the probe's key of the draws


def mix(z):
    z = (z + 0x9e3779b97f4a7c15) & MASK
    z = ((z ^ z >> 30) * 0xbf58476d1ce4e5b9) & MASK
    z = ((z ^ z >> 27) * 0x94d049bb133111eb) & MASK
    return z ^ z >> 31


def key(seed, a, b):
    return mix(mix(mix(seed) ^ a) ^ b)


def unit(place, column):
    return (key(SEED, place, column) >> 11) * 2.0 ** -53


def normal(place, column):
    bits = key(SEED, place, column)
    return math.sqrt(-2 * math.log(((bits >> 32) + 0.5) * 2.0 ** -32)) * math.cos(2 * math.pi * (bits & 0xffffffff) * 2.0 ** -32)


def class_drawn(z, place):
    return int(torch.searchsorted(torch.softmax(z, 0).cumsum(0), torch.tensor(unit(place, 0)).double(), right=True))


def gradients_square(net, value, weight, sums):
    net.zero_grad()
    value.backward(retain_graph=True)
    for s, p in zip(sums, parameters_of(net)):
        s += weight * p.grad ** 2


def compare(net, x, labels, terms, *settings):
    """terms(outputs of a row, its place): losses and their weights, whose squared gradients are expected."""
    sums = [torch.zeros_like(p) for p in parameters_of(net)]
    net.eval()
    for i in range(ROWS):
        for value, weight in terms(net(x[i:i + 1]), i):
            gradients_square(net, value, weight, sums)
    probe("fisher", "threads=2", "labels=%d" % labels, "seed=%d" % SEED, *SETTINGS, *settings)
    near(numbers_split("fisher_sums.f32", parameters_of(net)), sums, 1e-5, "Fisher")
    return sums


def classes(random, rows):
    return random.integers(0, 4, rows).astype(np.uint8)


def every_class(z, _):
    p = torch.softmax(z.detach()[0], 0)
    return [(torch.nn.functional.cross_entropy(z, torch.tensor([k])), p[k]) for k in range(z.shape[1])]


def one_class(z, place):
    return [(torch.nn.functional.cross_entropy(z, torch.tensor([class_drawn(z.detach()[0], place)])), 1.0)]


@limit(120)
def test_classes():
    """One model whose activations serve every backward pass, and two whose layers spend them."""
    needs_torch()
    nn = torch.nn
    for inputs, lines, layers in (
            (11, ("linear out=23", "relu", "linear out=4"), [nn.Linear(11, 23), nn.ReLU(), nn.Linear(23, 4)]),
            (11, ("linear out=16", "layernorm", "gelu", "linear out=4"),
             [nn.Linear(11, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4)]),
            (30, ("sequence steps=6", "lstm out=8", "pool kind=last", "linear out=4"),
             [Steps(6), Outputs(5, 8, batch_first=True), Pool("last"), nn.Linear(8, 4)])):
        net = nn.Sequential(*layers)
        x, _ = case_open("loss=softmax_cross_entropy\n" + "\n".join(lines), net, inputs, classes, 2.0)
        exact = compare(net, x, ALL, every_class)
        drawn = compare(net, x, SAMPLED, one_class)
        for a, b in zip(exact, drawn):  # the draws follow the probabilities: one each of 200 samples, so roughly
            assert 0.5 < float(b.sum() / a.sum()) < 2, (a.sum(), b.sum())


@limit(120)
def test_values():
    """Of K outputs: squared error as the normal distribution with variance K / 2, and K yes or no."""
    needs_torch()
    nn, functional = torch.nn, torch.nn.functional

    def every_output(z, _):
        return [(z[0, k], 2 / z.shape[1]) for k in range(z.shape[1])]

    def one_normal(z, place):
        drawn = torch.tensor([z.detach()[0, k] + math.sqrt(z.shape[1] / 2) * normal(place, k) for k in range(z.shape[1])])
        return [(functional.mse_loss(z[0], drawn), 1.0)]

    def every_answer(z, _):
        p = torch.sigmoid(z.detach()[0])
        return [(z[0, k] / z.shape[1], p[k] * (1 - p[k])) for k in range(z.shape[1])]

    def one_answer(z, place):
        p = torch.sigmoid(z.detach()[0])
        drawn = torch.tensor([float(unit(place, k) < p[k]) for k in range(z.shape[1])]).double()
        return [(functional.binary_cross_entropy_with_logits(z[0], drawn), 1.0)]
    for loss, targets, labels, exact, drawn in (("mean_squared_error", values(3), GAUSSIAN, every_output, one_normal),
                                                ("binary_cross_entropy", values(3, 0), ALL, every_answer, one_answer)):
        net = nn.Sequential(nn.Linear(11, 23), nn.Tanh(), nn.Linear(23, 3))
        x, _ = case_open("loss=%s\nlinear out=23\ntanh\nlinear out=3" % loss, net, 11, targets, 2.0)
        compare(net, x, labels, exact)
        compare(net, x, SAMPLED, drawn)


@limit(120)
def test_graphs_and_steps():
    """A regression of graphs, exactly; and a class at every step of tokens, drawn."""
    needs_torch()
    nn, functional = torch.nn, torch.nn.functional
    layers = [GCN(6, 9), nn.Tanh(), Readout("mean"), nn.Linear(9, 3)]
    net, x, _ = graphs_open(("gcn out=9", "tanh", "pool kind=mean", "linear out=3"), layers, "mean_squared_error", values(3), 6, 0)
    compare(net, x, GAUSSIAN, lambda z, _: [(z[0, k], 2 / 3) for k in range(3)])
    net = nn.Sequential(nn.Embedding(30, 6), Outputs(6, 7, batch_first=True), nn.Linear(7, 30))
    x, _ = case_open("loss=softmax_cross_entropy\nembedding count=30 out=6\nlstm out=7\nlinear out=30", net, 5,
                     lambda random, rows: random.integers(0, 30, (rows, 5)).astype(np.uint8), tokens=30)
    compare(net, x, SAMPLED, lambda z, place: [(functional.cross_entropy(
        z[0], torch.tensor([class_drawn(z.detach()[0, t], 5 * place + t) for t in range(5)])), 1.0)])


@limit(120)
def test_classes_that_weigh():
    """The labels' classes weigh, not those of the data; what rows were given does, and a row whose class is missing nothing.
    fisher_weight.f64 is what the labels weigh together, drawn or expected."""
    needs_torch()
    nn, functional = torch.nn, torch.nn.functional
    random = np.random.default_rng(3)
    of, there = torch.tensor([1, 0.25, 3, 0]).double(), random.random(ROWS) > 0.3
    given = random.uniform(0.2, 3, ROWS).astype(np.float32) * (random.random(ROWS) > 0.2)
    given.astype(np.float32).tofile("target_weights.f32")
    signed = ("weights=1", "signed=1")

    def missing(random, rows):
        return np.where(there, random.integers(0, 4, rows), -100).astype(np.int8).view(np.uint8)
    weight = given.astype(np.float64) * there
    total = [0.0]

    def every(z, place):
        p = torch.softmax(z.detach()[0], 0)
        total[0] += weight[place] * float((p * of).sum())
        return [(functional.cross_entropy(z, torch.tensor([k])), weight[place] * of[k] * p[k]) for k in range(4)]

    def one(z, place):
        k = class_drawn(z.detach()[0], place)
        total[0] += weight[place] * float(of[k])
        return [(functional.cross_entropy(z, torch.tensor([k])), weight[place] * of[k])]
    text = "loss=softmax_cross_entropy missing weights=1,0.25,3,0\n"
    for lines, layers in ((("linear out=23", "relu", "linear out=4"), [nn.Linear(11, 23), nn.ReLU(), nn.Linear(23, 4)]),
                          (("linear out=16", "layernorm", "gelu", "linear out=4"),
                           [nn.Linear(11, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4)])):
        net = nn.Sequential(*layers)
        x, _ = case_open(text + "\n".join(lines), net, 11, missing, 2.0)
        for labels, terms in ((ALL, every), (SAMPLED, one)):
            total[0] = 0
            compare(net, x, labels, terms, *signed)
            assert abs(np.fromfile("fisher_weight.f64")[0] / total[0] - 1) < 1e-6
    weight, of = given.astype(np.float64), torch.linspace(0, 2, 30).double()
    net = nn.Sequential(nn.Embedding(30, 6), Outputs(6, 7, batch_first=True), nn.Linear(7, 30))
    x, _ = case_open("loss=softmax_cross_entropy weights=%s\nembedding count=30 out=6\nlstm out=7\nlinear out=30" %
                     ",".join("%.17g" % w for w in of), net, 5,
                     lambda random, rows: random.integers(0, 30, (rows, 5)).astype(np.uint8), tokens=30)

    def steps(z, place):
        drawn = torch.tensor([class_drawn(z.detach()[0, t], 5 * place + t) for t in range(5)])
        total[0] += weight[place] * float(of[drawn].mean())
        return [((of[drawn].sqrt() * functional.cross_entropy(z[0], drawn, reduction="none")).mean(), weight[place])]
    total[0] = 0
    compare(net, x, SAMPLED, steps, "weights=1")
    assert abs(np.fromfile("fisher_weight.f64")[0] / total[0] - 1) < 1e-6
