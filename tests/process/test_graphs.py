"""Graphs trained by the daemons: the loss of the validation split and the Fisher information are PyTorch's at the
checkpoint's parameters, the weights do not depend on threads, memory or deaths, and bad graphs are named."""
import json
import os
import subprocess
import sys

import h5py
import numpy

from fisher_file import fisher_vector
from harness import limit, skip
from runs import ROOT
from small_run import BINARIES, SmallRun, facts
from test_layouts import described, graphs_write

PIPELINE = """name: graphs
data: {file: %s}
model:
  loss: mean_squared_error
  layers:
    - {type: gcn, out: 8, edges: true}
    - {type: relu}
    - {type: gcn, out: 8, edges: true, residual: true}
    - {type: tanh}
    - {type: pool, kind: mean_sum}
    - {type: dropout, p: 0.1}
    - {type: linear, out: 11}
training: {batch_size: 96, slice_rows: 32, threads: 2, metric: loss}
continual_learning:
  ewc_config: {lambda: 10, fisher_samples: 900, fisher_computation: {block_size: 1000, use_compression: false}}
tasks:
  - {name: A, epochs: 2}
  - {name: B, epochs: 2, from: A, ewc: [A], permute_features: 5}
"""


def trained(name, settings=(), disturb=None):
    """The run's directory after trainerd has ended well; its report."""
    if not os.path.exists("graphs.h5"):
        graphs_write("graphs.h5", nodes_min=1)
    pipeline = PIPELINE % os.path.abspath("graphs.h5")
    with SmallRun(name, "graphs.h5", settings=settings, pipeline=pipeline) as run:
        run.start("loaderd", "fisherd", "trainerd")
        if disturb:
            disturb(run)
        code = run.wait("trainerd")
        assert code == 0, run.log("trainerd") + run.log("fisherd")
        subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True,
                       stdout=subprocess.DEVNULL)
        with open(run.path("report/report.json")) as f:
            return run, json.load(f)


@limit(120)
def test_loss_and_fisher_information_are_those_of_pytorch():
    sys.path.append(os.path.join(ROOT, "tests/reference"))
    from test_graphs_torch import GCN, OfX, Last, Readout, State, torch
    if torch is None:
        skip("python3-torch is not installed")
    run, report = trained("run")
    net = torch.nn.Sequential(GCN(7, 8, edges=3), OfX(torch.nn.ReLU()), GCN(8, 8, True, 3), OfX(torch.nn.Tanh()),
                              Readout("mean_sum"), OfX(torch.nn.Linear(16, 11)), Last()).double()
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        names = ["0.weight", "0.bias", "0.edge_weight", "2.weight", "2.bias", "2.edge_weight", "6.weight", "6.bias"]
        for p, name in zip(net.parameters(), names):
            p.data.copy_(torch.tensor(f["parameters/" + name][:]).double())
    with h5py.File("graphs.h5") as f:
        g = {name: f["train/" + name][:].astype(float if "features" in name or name == "targets" else int)
             for name in f["train"]}
    targets, losses, squares = torch.tensor(g["targets"]), [], None
    for i in range(len(targets)):
        (n, m), (a, b) = g["node_ptr"][i:i + 2], g["edge_ptr"][i:i + 2]
        s = State(torch.tensor(g["node_features"][n:m]), torch.tensor(g["edge_index"][:, a:b]),
                  torch.tensor(g["edge_features"][a:b]), torch.zeros(m - n, dtype=torch.long), 1)
        net.zero_grad()
        loss = torch.nn.functional.mse_loss(net(s)[0], targets[i])
        loss.backward()
        losses.append(float(loss))
        each = torch.cat([p.grad.reshape(-1) ** 2 for p in net.parameters()])
        squares = each if squares is None else squares + each
    ours = fisher_vector(run.path("fisher/A.h5"))
    with h5py.File(run.path("fisher/A.h5")) as f:
        assert f.attrs["samples"] == len(targets)
    wanted = (squares / len(targets)).numpy()
    assert numpy.linalg.norm(ours - wanted) < 1e-5 * numpy.linalg.norm(wanted)
    task, = [t for t in report["tasks"] if t["name"] == "A"]  # both splits hold the same graphs
    assert abs(task["after_own_training"] / numpy.mean(losses) - 1) < 1e-6, (task, numpy.mean(losses))


@limit(120)
def test_weights_depend_on_neither_threads_nor_memory_nor_deaths():
    def kill(run):
        for stage in ("trainerd", "loaderd", "trainerd", "fisherd"):
            seen = run.log("trainerd").count("\n")
            run.until(lambda: run.log("trainerd").count("\n") > seen or run.processes["trainerd"].poll() is not None,
                      "trainerd says nothing")
            run.kill(stage)
            run.start(stage)
    longer = ("tasks.A.epochs=25", "tasks.B.epochs=25")  # so that the deaths come before the end
    expected = trained("run", longer)[1]["weights_sha256"]
    for name, settings, disturb in (("one", ("training.threads=1", "loader.use_chunk_loader=false"), None),
                                    ("three", ("training.threads=3", "loader.num_workers=0"), None),
                                    ("pieces", ("training.batch_size=32", "training.gradient_accumulation_steps=3"), None),
                                    ("killed", ("training.checkpoint_every_s=0.01",), kill)):
        assert trained(name, longer + settings, disturb)[1]["weights_sha256"] == expected, name


def rings_write(path, sizes):
    """Graphs of so many nodes, each with a ring of edges, in both splits."""
    node_ptr, random = numpy.concatenate([[0], numpy.cumsum(sizes)]), numpy.random.default_rng(1)
    ends = [numpy.stack([numpy.arange(n), (numpy.arange(n) + 1) % n]) for n in sizes]
    with h5py.File(path, "w") as f:
        for split in ("train", "validation"):
            g = f.create_group(split)
            g["node_ptr"] = g["edge_ptr"] = node_ptr
            g["node_features"] = random.normal(size=(node_ptr[-1], 8)).astype("f4")
            g["edge_index"] = numpy.concatenate(ends, 1).astype("u2")
            g["targets"] = random.normal(size=(len(sizes), 3)).astype("f4")


@limit(120)
def test_slices_are_the_same_where_memory_makes_micro_batches_smaller():
    """Slices begin anew with each batch of 100: the large graphs are never eight in one slice, for which there is no
    place, as they would be if an epoch were cut every 64 rows."""
    rings_write("rings.h5", [400 if 96 <= i < 104 else 5 for i in range(200)])
    pipeline = ("name: rings\ndata: {file: rings.h5, shuffle: false}\nloader: {use_chunk_loader: false}\n"
                "model:\n  loss: mean_squared_error\n  layers:\n    - {type: gcn, out: 1024}\n    - {type: relu}\n"
                "    - {type: pool, kind: mean}\n    - {type: linear, out: 3}\n"
                "training: {batch_size: 100, gradient_accumulation_steps: 2, slice_rows: 32, threads: 4, metric: loss}\n"
                "tasks:\n  - {name: A, epochs: 2}\n")

    def run(name, code, settings=()):
        with SmallRun(name, "rings.h5", pipeline=pipeline, settings=settings) as run:
            run.start("loaderd", "trainerd")
            assert run.wait("trainerd") == code, run.log("trainerd")
            return run.log("trainerd"), run.path("checkpoints/task-A.h5")
    whole = run("whole", 0)[1]
    needed = int(run("needs", 100, ["memory.host_limit_mb=1"])[0].split("the run needs ")[1].split()[0])
    log, smaller = run("smaller", 0, ["memory.host_limit_mb=%d" % (needed - 3)])
    assert "micro_batch_rows=64 batch_size=100" in log
    with h5py.File(whole) as a, h5py.File(smaller) as b:
        assert a.attrs["parameters_sha256"] == b.attrs["parameters_sha256"]
        assert bytes(a["results"][:]) == bytes(b["results"][:])


def refused(words, change, name="bad"):
    graphs_write("graphs.h5", nodes_min=1)
    with h5py.File("graphs.h5", "a") as f:
        change(f["train"])
    with SmallRun(name, "graphs.h5", pipeline=PIPELINE % os.path.abspath("graphs.h5")) as run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100, run.log("trainerd")
        assert all(w in run.log("trainerd") for w in words), run.log("trainerd")


@limit(60)
def test_bad_graphs_are_named():
    def edge_astray(g):
        e = int(g["edge_ptr"][500])
        g["edge_index"][1, e] = 77
    refused(["train/edge_index of graph 500 names node 77"], edge_astray)  # loaderd sees it first

    def not_finite(g):
        g["node_features"][int(g["node_ptr"][3]) + 0, 2] = numpy.nan
    refused(["row 3 of train", "a feature of its node 0 times"], not_finite, "nan")

    def other_width(g):
        x = g["edge_features"][:, :2]
        del g["edge_features"]
        g["edge_features"] = x
    refused(["edges of train have 2 features, those of validation 3"], other_width, "width")

    def no_edges(g):
        for split in (g, g.parent["validation"]):
            del split["edge_features"]
    refused(["layer 0 (gcn): edges is true, and the edges of the data have no features"], no_edges, "edges")

    def no_targets(g):
        del g["targets"]
    refused(["train of", "has no data set `targets`"], no_targets, "targets")


@limit(60)
def test_graphs_without_nodes_are_named():
    graphs_write("graphs.h5")
    with SmallRun("empty", "graphs.h5", pipeline=PIPELINE % os.path.abspath("graphs.h5")) as run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
        assert "its graph has no nodes" in run.log("trainerd"), run.log("trainerd")


def plan_of(run):
    return facts(run, "trainerd", "event.plan")[0]["rows"]


@limit(60)
def test_plan_is_that_of_the_run():
    """--plan, from what loaderd describes, has the rows that trainerd writes down when it starts."""
    run, _ = trained("run")
    found, text = described("run.yaml")
    assert int(found["train.node_features.slice_items_max"]) < int(found["train.node_features.batch_items_max"])
    bases = subprocess.run([os.path.join(BINARIES, "prepare"), "bases"], capture_output=True, text=True, timeout=60).stdout
    out = subprocess.run([os.path.join(BINARIES, "trainerd"), "--plan", "--config", "run.yaml"], input=text + bases,
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    planned = [r for r in plan_of(run) if "activations" in r["what"] or "batch" in r["what"] or "slices" in r["what"]]
    assert {r["stage"] for r in planned} == {"trainerd", "fisherd"}
    for row in planned:
        line = "%-12s %-48s %10.2f" % (row["stage"], row["what"], row["bytes"] / 2 ** 20)
        assert line in out.stdout, (line, out.stdout)
