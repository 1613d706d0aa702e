"""PyTorch's side of `make gpu-check`, a server (peers.py): peer.py NAME DIR DEVICE f32|bf16 SIZE LIMIT_S.

NAME is dense, lstm, gcn, fisher, sweep, ceilings or memory; DIR has the files of cases.py. Each form in which a PyTorch user
can write the work is made ready: eager, torch.compile, its mode reduce-overhead (which replays CUDA graphs), and a CUDA
graph of the whole step; GCNs by PyTorch Geometric and by torch's own products. Says a JSON line for each, then one of
what it is itself:

  {"form": "graph", "gradient": FILE, ...}   ready; FILE has its gradient (or squared ones) at weights.f32 of the first batch
  {"absent": "compile", "why": "..."}        this PyTorch or device cannot do it, or LIMIT_S were over
  {"torch": "2.11", ...}                     nothing more is made

and then answers lines {"form": NAME, "steps": N, "repeats": N} by {"seconds": of a step} or {"why": "..."} until its
standard input ends."""
import json
import os
import signal
import sys
import time

import numpy
import torch

from peer_models import Work, dense, gcn, lstm, weights_load

TOLERANCE = {False: 1e-4, True: 0.05}  # of a form's gradient against the eager one's, relative L2; by `half`
# How a step is made: compiled by those settings of torch.compile or not, and captured as a CUDA graph or not.
FORMS = {"eager": (None, False), "compile": ({}, False), "reduce-overhead": ({"mode": "reduce-overhead"}, False),
         "graph": (None, True), "compile and graph": ({}, True)}
# In which forms each way to write a model is made ready, the likely best ones first.
WAYS = {"dense": {"": (dense, ["eager", "compile and graph", "graph", "compile", "reduce-overhead"])},
        "lstm": {"": (lstm, ["eager", "graph", "compile"])},
        "gcn": {"": (gcn, ["eager", "graph", "compile and graph"]),
                **{way + ", ": (lambda work, way=way: gcn(work, way), forms) for way, forms in {
                    "geometric, edges normalised before": ["eager", "graph", "compile and graph", "reduce-overhead"],
                    "geometric, sparse": ["eager", "graph"], "geometric": ["eager"],
                    "dense": ["eager", "compile and graph", "graph"], "sparse": ["eager", "graph"]}.items()}}}


class Step:
    """One form: a fresh model, its optimizer, and the step."""

    def __init__(self, work, make, compiled, graph):
        self.work = work
        net, self.parameters, loss = make(work)
        weights_load(work, self.parameters)
        settings = {"fused": True, "capturable": graph} if work.on_gpu else {}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-3, **settings)
        self.of = (lambda: loss(net)) if compiled is None else torch.compile(lambda: loss(net), **compiled)
        self.graph = None
        if graph:
            self.capture()

    def plain(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.work.precise():
            loss = self.of()
        loss.backward()
        self.optimizer.step()

    def capture(self):
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.plain()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(graph):
            with self.work.precise():
                loss = self.of()
            loss.backward()
            self.optimizer.step()
        self.graph = graph

    def __call__(self):
        self.graph.replay() if self.graph else self.plain()

    def gradient(self):
        """As the step, warmed up, makes it from the first weights."""
        for _ in range(3):
            self()
        weights_load(self.work, self.parameters)
        self()
        return torch.cat([p.grad.float().reshape(-1) for p in self.parameters])


# ---- what is made ready: (form, make) by name; make() returns what is timed, its result or None, and facts ----

def training_forms(work):
    wanted = []

    def ready(make, compiled, graph):
        step = Step(work, make, compiled, graph)
        found = step.gradient()
        wanted.append(found)
        error = ((found - wanted[0]).norm() / wanted[0].norm()).item()
        if not error <= TOLERANCE[work.half]:
            raise ArithmeticError("its gradient differs by %.1e (relative L2)" % error)
        return step, found, {}
    for way, (make, forms) in WAYS[work.name].items():
        for form in forms:
            if work.on_gpu or form == "eager":
                yield way + form, lambda make=make, form=form: ready(make, *FORMS[form])


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


def fisher_forms(work):
    """Squared gradients a sample, so many samples at once."""
    case = work.case
    net, parameters, _ = lstm(work)
    weights_load(work, parameters)
    weights = tuple(p.detach() for p in parameters)
    x = work.tensor(work.read("features").reshape(-1, case["length"], case["inputs"])[:case["batch"]])
    y = work.tensor(work.read("targets.f32").reshape(-1, case["outputs"])[:case["batch"]])

    def sums(chunk):
        from torch.func import grad, vmap
        of = vmap(grad(lambda w, x, y: lstm_plain(case, w, x, y)), in_dims=(None, 0, 0))
        total = [torch.zeros_like(w) for w in weights]
        for first in range(0, len(x), chunk):
            for t, g in zip(total, of(weights, x[first:first + chunk], y[first:first + chunk])):
                t += (g * g).sum(0)
        return torch.cat([t.reshape(-1) for t in total])

    def ready(chunk, captured):
        found = sums(chunk)
        if not captured:
            return lambda: sums(chunk), found, {}
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            replayed = sums(chunk)
        graph.replay()
        return graph.replay, replayed, {}
    for captured in (True, False) if work.on_gpu else (False,):  # the slow ones last
        for chunk in sorted({min(32, len(x)), len(x)}, reverse=True):
            yield ("vmap, chunks of %d%s" % (chunk, ", graph" if captured else ""),
                   lambda chunk=chunk, captured=captured: ready(chunk, captured))


def sweep_forms(work):
    """AdamW of one tensor of SIZE parameters, its gradient being there."""
    p = torch.nn.Parameter(torch.randn(work.size, device=work.device))
    p.grad = torch.randn_like(p)

    def ready(form):
        step = torch.optim.AdamW([p], lr=1e-3, **{form: True}).step
        step()
        return step, None, {}
    for form in ("fused", "foreach") if work.on_gpu else ("foreach",):
        yield form, lambda form=form: ready(form)


def ceilings_forms(work):
    """Products of SIZE x SIZE matrices by type; copies and sums on the device, copies from page-locked memory. `amount` is what a
    step does: operations, or bytes read and written."""
    n = work.size

    def product(kind, rounded):
        a, b = (torch.randn(n, n, device=work.device).to(kind) for _ in range(2))

        def step():
            torch.backends.cuda.matmul.allow_tf32 = rounded
            return a @ b
        return step, None, {"amount": 2 * n ** 3}
    for name, kind, rounded in (("f32", torch.float32, False), ("tf32", torch.float32, True), ("bf16", torch.bfloat16, False)):
        yield name + "_flops", lambda kind=kind, rounded=rounded: product(kind, rounded)
    a, b = (torch.zeros(n * n * 16, device=work.device) for _ in range(2))
    host = torch.empty(n * n, pin_memory=work.on_gpu)
    yield "copy_bytes", lambda: (lambda: a.copy_(b), None, {"amount": 2 * 4 * a.numel()})
    yield "read_bytes", lambda: (lambda: a.sum(), None, {"amount": 4 * a.numel()})
    yield "upload_bytes", lambda: (lambda: a[:n * n].copy_(host, non_blocking=True), None, {"amount": 4 * host.numel()})


def memory_forms(work):
    """What the LSTM's eager step takes of the GPU's memory beside the bare context, as the driver counts it: with what PyTorch and
    its libraries take for themselves. Nothing else may take any meanwhile."""
    def ready():
        free, _ = torch.cuda.mem_get_info()
        step = Step(work, lstm, None, False)
        for _ in range(3):
            step()
        work.wait()
        return step, None, {"bytes": free - torch.cuda.mem_get_info()[0], "allocated": torch.cuda.max_memory_allocated()}
    if work.on_gpu:
        yield "eager", ready


# ---- the server ----

def late(*_):
    raise TimeoutError("there was no time left to make it ready")


def form_make(work, form, make, number, until):
    """The line that says it, and what is timed: None where it cannot be."""
    try:
        if until - time.monotonic() < 1:
            late()
        signal.alarm(int(until - time.monotonic()))
        step, result, facts = make()
        if result is not None:
            facts["gradient"] = os.path.join(os.getcwd(), "%d.f32" % number)
            result.detach().cpu().numpy().astype(numpy.float32).tofile(facts["gradient"])
        work.wait()
        signal.alarm(0)
        return {"form": form, **facts}, step
    except Exception as e:  # a form that fails is no peer; the others are
        return {"absent": form, "why": "%s: %s" % (type(e).__name__, " ".join(str(e).strip().splitlines()[:1]))}, None


def main():
    name, directory, device, precision, size, limit_s = sys.argv[1:]
    until = time.monotonic() + float(limit_s)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(line):
        out.write(json.dumps(line) + "\n")
        out.flush()
    work, steps = Work(name, directory, device, precision, size), {}
    torch.manual_seed(1)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    signal.signal(signal.SIGALRM, late)
    forms = {"fisher": fisher_forms, "sweep": sweep_forms, "ceilings": ceilings_forms, "memory": memory_forms}.get(name, training_forms)
    for number, (form, make) in enumerate(forms(work)):
        line, step = form_make(work, form, make, number, until)
        signal.alarm(0)
        if step:
            steps[form] = step
        say(line)
    say({"torch": torch.__version__, "cudnn": str(torch.backends.cudnn.version()) if work.on_gpu else ""})
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            say({"seconds": work.seconds(steps[asked["form"]], asked["steps"], asked["repeats"])})
        except Exception as e:
            say({"why": "%s: %s" % (type(e).__name__, " ".join(str(e).strip().splitlines()[:1]))})


if __name__ == "__main__":
    main()
