"""PyTorch's side of `make gpu-check`: peer.py dense|lstm|gcn|fisher|sweep|ceilings DIR DEVICE f32|bf16 STEPS REPEATS.

DIR has the files of cases.py. Each form in which a PyTorch user can write the work is timed: eager, torch.compile, its mode
reduce-overhead (which replays CUDA graphs), and a CUDA graph of the whole step; GCNs by PyTorch Geometric and by torch's
own products. A form that this PyTorch or device cannot do is named with the reason. Writes the gradient (or the squared
ones) at weights.f32 of the first batch to peer.f32 and prints one JSON line: seconds of a step or a pass by form, and the
most memory that PyTorch had."""
import contextlib
import json
import os
import statistics
import sys
import time

import numpy
import torch


class Work:
    """The command line, and what all cases need."""

    def __init__(self, name, directory, device, precision, steps, repeats):
        self.name, self.directory, self.device = name, directory, torch.device(device)
        self.half, self.steps, self.repeats = precision == "bf16", int(steps), int(repeats)
        path = os.path.join(directory, "case.json")
        self.case = json.load(open(path)) if os.path.exists(path) else {}

    def read(self, name, kind="f4"):
        return numpy.fromfile(os.path.join(self.directory, name), kind)

    def tensor(self, values):
        return torch.from_numpy(numpy.ascontiguousarray(values)).to(self.device)

    def precise(self):
        return torch.autocast(self.device.type, torch.bfloat16, cache_enabled=False) if self.half else contextlib.nullcontext()

    def wait(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, step, steps=None):
        """Of one step: the median over the repeats, each between two waits; the first is not counted."""
        taken = []
        for _ in range(self.repeats + 1):
            self.wait()
            began = time.perf_counter()
            for _ in range(steps or self.steps):
                step()
            self.wait()
            taken.append((time.perf_counter() - began) / (steps or self.steps))
        return statistics.median(taken[1:])


def weights_load(work, parameters):
    """weights.f32 into them, which are in the engine's order."""
    flat, at = work.tensor(work.read("weights.f32")), 0
    with torch.no_grad():
        for p in parameters:
            p.copy_(flat[at:at + p.numel()].reshape(p.shape))
            at += p.numel()
    assert at == len(flat), (at, len(flat))


# ---- the cases: a module, its parameters in the engine's order, and the first batch's loss ----

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


def gcn(work, form="index_add"):
    case, batch = work.case, work.case["batch"]
    nodes, x, source, target, norm, y = graphs_read(work)
    sizes = work.tensor(numpy.diff(nodes).astype("f4"))[:, None]
    graph = work.tensor(numpy.repeat(numpy.arange(batch), numpy.diff(nodes)))
    source_t, target_t, norm_t = (work.tensor(v) for v in (source, target, norm))
    edges, make, call = (source_t, target_t, norm_t), Convolution, lambda layer, x, edges: layer(x, edges)
    order = [("weight", "bias")]

    def mean(h):
        return torch.zeros(batch, h.shape[1], device=h.device, dtype=h.dtype).index_add(0, graph, h) / sizes.to(h.dtype)
    if form.startswith("geometric"):
        from torch_geometric.nn import GCNConv, global_mean_pool
        known = form != "geometric"  # normalised edges are given, or made in each step, as GCNConv does it by itself
        loops = len(source) - len(x)
        ends = torch.stack([source_t, target_t])
        edges = (ends, norm_t) if known else (ends[:, :loops], None)
        order, mean = [("lin.weight", "bias")], lambda h: global_mean_pool(h, graph, batch)

        def make(a, b):
            return GCNConv(a, b, normalize=not known, add_self_loops=not known)

        def call(layer, x, edges):
            return layer(x, *edges)
    elif form == "dense":
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


# ---- the forms of a step ----

class Step:
    """One form: a fresh model, its optimizer, and the step."""

    def __init__(self, work, make, compiled=None, graph=False):
        self.work = work
        net, self.parameters, loss = make(work)
        weights_load(work, self.parameters)
        on_gpu = work.device.type == "cuda"
        settings = {"fused": True, "capturable": graph} if on_gpu else {}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, **settings)
        self.of = (lambda: loss(net)) if compiled is None else torch.compile(lambda: loss(net), **compiled)
        self.graph = None
        if graph:
            self.capture()

    def backward(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.work.precise():
            loss = self.of()
        loss.backward()

    def plain(self):
        self.backward()
        self.optimizer.step()

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.plain()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self.graph):
            with self.work.precise():
                loss = self.of()
            loss.backward()
            self.optimizer.step()

    def __call__(self):
        self.graph.replay() if self.graph else self.plain()


FORMS = {"eager": {}, "compile": {"compiled": {}}, "reduce-overhead": {"compiled": {"mode": "reduce-overhead"}},
         "graph": {"graph": True}, "compile and graph": {"compiled": {}, "graph": True}}


def steps_time(work, make, forms, label=""):
    found, absent = {}, {}
    for form in forms:
        if "graph" in form and work.device.type != "cuda" or "compiled" in FORMS[form] and not hasattr(torch, "compile"):
            absent[label + form] = "not on this device or with this PyTorch"
            continue
        try:
            found[label + form] = work.seconds(Step(work, make, **FORMS[form]))
        except Exception as e:  # a form that fails is no peer; the others are
            absent[label + form] = "%s: %s" % (type(e).__name__, str(e).strip().splitlines()[:1])
            work.wait()
    return found, absent


def gradient(work, make):
    step = Step(work, make)
    step.backward()
    return torch.cat([p.grad.float().reshape(-1) for p in step.parameters])


def result_write(work, vector):
    vector.cpu().numpy().tofile(os.path.join(work.directory, "peer.f32"))


# Beside torch's own forms: how else a PyTorch user can write it, and in which forms that is timed.
OTHERS = {"gcn": {"geometric, edges normalised before": ["eager", "graph", "compile", "reduce-overhead"],
                  "geometric": ["eager"], "dense": ["eager", "graph", "compile and graph"]}}
FORMS_OF = {"dense": ["graph", "compile", "reduce-overhead", "compile and graph"], "lstm": ["graph", "compile"], "gcn": ["graph"]}


def training(work):
    make = {"dense": dense, "lstm": lstm, "gcn": gcn}[work.name]
    wanted = gradient(work, make)
    result_write(work, wanted)
    if work.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    found, absent = steps_time(work, make, ["eager"])
    peak = torch.cuda.max_memory_allocated() if work.device.type == "cuda" else 0
    more = [steps_time(work, make, FORMS_OF[work.name])]
    for way, forms in OTHERS.get(work.name, {}).items():
        def other(work, way=way):
            return gcn(work, way)
        try:
            error = ((gradient(work, other) - wanted).norm() / wanted.norm()).item()
            assert error < (0.05 if work.half else 1e-4), "its gradient differs by %.1e (relative L2)" % error
            more.append(steps_time(work, other, forms, way + ", "))
        except (ImportError, AssertionError) as e:
            absent[way] = str(e)
    for one, two in more:
        found.update(one)
        absent.update(two)
    return {"seconds": found, "absent": absent, "peak_bytes": peak}


# ---- squared gradients a sample ----

def lstm_plain(case, weights, x, y):
    """The loss of one sample x [T, F], the LSTM written out: torch.func cannot map over cuDNN's."""
    hidden, at, h_all = case["hidden"], 0, x
    for _ in range(case["layers"]):
        w_ih, w_hh, b_ih, b_hh = weights[at:at + 4]
        at += 4
        gates_in = torch.nn.functional.linear(h_all, w_ih, b_ih + b_hh)
        h = c = torch.zeros(hidden, device=x.device)
        outputs = []
        for gates in gates_in.unbind(0):
            i, f, g, o = (gates + torch.mv(w_hh, h)).chunk(4)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        h_all = torch.stack(outputs)
    return torch.nn.functional.mse_loss(torch.nn.functional.linear(h_all[-1], *weights[at:]), y)


def fisher(work):
    from torch.func import grad, vmap
    case = work.case
    net, parameters, _ = lstm(work)
    weights_load(work, parameters)
    weights = tuple(p.detach() for p in parameters)
    x = work.tensor(work.read("features").reshape(-1, case["length"], case["inputs"])[:case["batch"]])
    y = work.tensor(work.read("targets.f32").reshape(-1, case["outputs"])[:case["batch"]])
    of = vmap(grad(lambda w, x, y: lstm_plain(case, w, x, y)), in_dims=(None, 0, 0))

    def sums(chunk):
        total = [torch.zeros_like(w) for w in weights]
        for first in range(0, len(x), chunk):
            for t, g in zip(total, of(weights, x[first:first + chunk], y[first:first + chunk])):
                t += (g * g).sum(0)
        return total
    result = sums(min(32, len(x)))
    result_write(work, torch.cat([t.reshape(-1) for t in result]))
    found, absent = {}, {}
    for chunk in sorted({min(32, len(x)), len(x)}):
        try:
            found["vmap, chunks of %d" % chunk] = work.seconds(lambda chunk=chunk: sums(chunk), 1)
            if work.device.type == "cuda":
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    sums(chunk)
                found["vmap, chunks of %d, graph" % chunk] = work.seconds(graph.replay, 1)
        except Exception as e:
            absent["chunks of %d" % chunk] = "%s: %s" % (type(e).__name__, str(e)[:200])
            work.wait()
    return {"seconds": found, "absent": absent, "peak_bytes": 0}


def sweep(work):
    """AdamW of one tensor of STEPS parameters, its gradient being there."""
    found = {}
    p = torch.nn.Parameter(torch.randn(work.steps, device=work.device))
    p.grad = torch.randn_like(p)
    forms = {"fused": {"fused": True}, "foreach": {"foreach": True}} if work.device.type == "cuda" else {"foreach": {"foreach": True}}
    for form, settings in forms.items():
        optimizer = torch.optim.AdamW([p], lr=1e-3, **settings)
        found[form] = work.seconds(optimizer.step, 2)
        del optimizer
    return {"seconds": found, "absent": {}, "peak_bytes": 0}


def ceilings(work):
    """Products of STEPS x STEPS matrices a second by type, copies on the device, copies from page-locked memory."""
    n, rates = work.steps, {}
    for name, kind, rounded in (("f32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)):
        torch.backends.cuda.matmul.allow_tf32 = rounded
        a, b = (torch.randn(n, n, device=work.device).to(kind) for _ in range(2))
        rates[name + "_flops"] = 2 * n ** 3 / work.seconds(lambda: a @ b, 4)
    a, b = (torch.empty(n * n * 16, device=work.device) for _ in range(2))
    rates["copy_bytes"] = 2 * 4 * a.numel() / work.seconds(lambda: a.copy_(b), 4)
    host = torch.empty(n * n, pin_memory=work.device.type == "cuda")
    rates["upload_bytes"] = 4 * host.numel() / work.seconds(lambda: a[:n * n].copy_(host, non_blocking=True), 4)
    return rates


def main():
    work = Work(*sys.argv[1:])
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    made = {"fisher": fisher, "sweep": sweep, "ceilings": ceilings}.get(work.name, training)(work)
    made["torch"] = torch.__version__
    if work.device.type == "cuda":
        made["cudnn"] = torch.backends.cudnn.version()
    print(json.dumps(made))


if __name__ == "__main__":
    main()
