"""The models of cases.py in PyTorch, for peer.py: a module, its parameters in the engine's order, and the first batch's
loss. Graph convolutions are written in several ways: torch's own, and PyTorch Geometric's."""
import contextlib
import json
import os
import statistics
import time

import numpy
import torch


class Work:
    """The command line, and what all cases need."""

    def __init__(self, name, directory, device, precision, size):
        self.name, self.directory, self.device = name, directory, torch.device(device)
        self.on_gpu, self.size, self.precision = self.device.type == "cuda", int(size), precision
        self.half = precision == "bf16" and (self.on_gpu or name != "lstm")  # not every CPU has that
        path = os.path.join(directory, "case.json")
        self.case = json.load(open(path)) if os.path.exists(path) else {}

    def read(self, name, kind="f4"):
        return numpy.fromfile(os.path.join(self.directory, name), kind)

    def tensor(self, values):
        return torch.from_numpy(numpy.ascontiguousarray(values)).to(self.device)

    def precise(self):
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False) if self.half else contextlib.nullcontext()

    def wait(self):
        if self.on_gpu:
            torch.cuda.synchronize()

    def seconds(self, step, steps, repeats):
        """Of one step: the median over the repeats, each between two waits; the first is not counted."""
        taken = []
        for _ in range(repeats + 1):
            self.wait()
            began = time.perf_counter()
            for _ in range(steps):
                step()
            self.wait()
            taken.append((time.perf_counter() - began) / steps)
        return statistics.median(taken[1:])


def weights_load(work, parameters):
    """weights.f32 into them, which are in the engine's order."""
    flat, at = work.tensor(work.read("weights.f32")), 0
    with torch.no_grad():
        for p in parameters:
            p.copy_(flat[at:at + p.numel()].reshape(p.shape))
            at += p.numel()
    assert at == len(flat), (at, len(flat))


def dense(work):
    sizes, batch = work.case["sizes"], work.case["batch"]
    layers = [part for a, b in zip(sizes, sizes[1:]) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    net = torch.nn.Sequential(*layers[:-1]).to(work.device)
    x = work.tensor(work.read("features").reshape(-1, sizes[0])[:batch])
    y = work.tensor(work.read("targets.u8", "u1")[:batch].astype("i8"))
    return net, list(net.parameters()), lambda net: torch.nn.functional.cross_entropy(net(x), y)


class Regressor(torch.nn.Module):
    def __init__(self, case):
        super().__init__()
        self.lstm = torch.nn.LSTM(case["inputs"], case["hidden"], case["layers"], batch_first=True)
        self.head = torch.nn.Linear(case["hidden"], case["outputs"])

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def lstm(work):
    case = work.case
    net = Regressor(case).to(work.device)
    x = work.tensor(work.read("features").reshape(-1, case["length"], case["inputs"])[:case["batch"]])
    y = work.tensor(work.read("targets.f32").reshape(-1, case["outputs"])[:case["batch"]])
    return net, list(net.parameters()), lambda net: torch.nn.functional.mse_loss(net(x).float(), y)


class Convolution(torch.nn.Module):
    """Without PyTorch Geometric: messages by index_add, by a sparse product, or by products of padded dense matrices."""

    def __init__(self, inputs, out):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(out, inputs))
        self.bias = torch.nn.Parameter(torch.zeros(out))

    def forward(self, x, edges):
        h = torch.nn.functional.linear(x, self.weight)
        if isinstance(edges, torch.Tensor):
            return edges.to(h.dtype) @ h + self.bias
        source, target, norm = edges
        return torch.zeros_like(h).index_add(0, target, norm.to(h.dtype)[:, None] * h[source]) + self.bias


class Network(torch.nn.Module):
    def __init__(self, case, make, call):
        super().__init__()
        widths = [case["inputs"]] + [case["hidden"]] * case["layers"]
        self.layers = torch.nn.ModuleList(make(a, b) for a, b in zip(widths, widths[1:]))
        self.head = torch.nn.Linear(case["hidden"], case["outputs"])
        self.call = call

    def forward(self, x, edges, mean):
        for layer in self.layers:
            x = torch.relu(self.call(layer, x, edges))
        return self.head(mean(x))


def graphs_read(work):
    """The first batch: features, ends of its edges with the own loops, normalised weights, the graph of each node."""
    nodes, edges = (work.read(n, "u8").astype("i8")[:work.case["batch"] + 1] for n in ("node_ptr.u64", "edge_ptr.u64"))
    shift = numpy.repeat(nodes[:-1], numpy.diff(edges))
    source, target = (numpy.concatenate([work.read(n, "u4")[:edges[-1]].astype("i8") + shift, numpy.arange(nodes[-1])])
                      for n in ("sources.u32", "ends.u32"))
    root = numpy.bincount(target).astype("f4") ** -0.5
    x = work.read("features").reshape(-1, work.case["inputs"])[:nodes[-1]]
    y = work.read("targets.f32").reshape(-1, work.case["outputs"])[:work.case["batch"]]
    return nodes, x, source, target, (root[source] * root[target]).astype("f4"), y


def gcn(work, way="index_add"):
    """way: index_add, sparse (a product with a CSR matrix), dense (padded matrices), or one that begins with geometric."""
    case, batch = work.case, work.case["batch"]
    nodes, x, source, target, norm, y = graphs_read(work)
    sizes = work.tensor(numpy.diff(nodes).astype("f4"))[:, None]
    graph = work.tensor(numpy.repeat(numpy.arange(batch), numpy.diff(nodes)))
    source_t, target_t, norm_t = (work.tensor(v) for v in (source, target, norm))
    edges, make, call = (source_t, target_t, norm_t), Convolution, lambda layer, x, edges: layer(x, edges)
    order = [("weight", "bias")]

    def mean(h):
        return torch.zeros(batch, h.shape[1], device=h.device, dtype=h.dtype).index_add(0, graph, h) / sizes.to(h.dtype)

    def matrix():
        order = numpy.lexsort((source, target))
        starts = numpy.concatenate([[0], numpy.cumsum(numpy.bincount(target))])
        return torch.sparse_csr_tensor(*(work.tensor(v) for v in (starts, source[order], norm[order])), (len(x), len(x)))
    if way.startswith("geometric"):
        from torch_geometric.nn import GCNConv, global_mean_pool
        known = way != "geometric"  # normalised edges are given, or made in each step, as GCNConv does it by itself
        loops = len(source) - len(x)
        ends = torch.stack([source_t, target_t])
        edges = (ends, norm_t) if known else (ends[:, :loops], None)
        if way == "geometric, sparse":  # its adj_t
            edges = (matrix(), None)
        order, mean = [("lin.weight", "bias")], lambda h: global_mean_pool(h, graph, batch)

        def make(a, b):
            return GCNConv(a, b, normalize=not known, add_self_loops=not known)

        def call(layer, x, edges):
            return layer(x, *edges)
    elif way == "sparse":
        edges = matrix()
    elif way == "dense":
        widest = int(numpy.diff(nodes).max())
        place = numpy.concatenate([numpy.arange(n) for n in numpy.diff(nodes)]) + numpy.repeat(numpy.arange(batch), numpy.diff(nodes)) * widest
        padded = numpy.zeros((batch * widest, case["inputs"]), "f4")
        padded[place] = x
        a = numpy.zeros((batch, widest, widest), "f4")
        numpy.add.at(a, (place[target] // widest, place[target] % widest, place[source] % widest), norm)
        filled = numpy.zeros((batch, widest, 1), "f4")
        filled.reshape(-1)[place] = 1
        x, edges, filled = padded.reshape(batch, widest, -1), work.tensor(a), work.tensor(filled)

        def mean(h):
            return (h * filled).sum(1) / sizes
    x, y = work.tensor(x), work.tensor(y)
    net = Network(case, make, call).to(work.device)
    names = dict(net.named_parameters())
    parameters = [names["layers.%d.%s" % (i, n)] for i in range(case["layers"]) for n in order[0]] + list(net.head.parameters())
    return net, parameters, lambda net: (1 - torch.nn.functional.cosine_similarity(net(x, edges, mean).float(), y)).mean()
