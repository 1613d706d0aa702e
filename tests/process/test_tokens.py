"""Tokens trained by the daemons: the next token at every step. Loss and Fisher information are PyTorch's at the
checkpoint's parameters, the weights do not depend on threads or deaths, and tokens out of range are named."""
import json
import os
import subprocess

import h5py
import numpy

from fisher_file import fisher_vector
from harness import limit, skip
from small_run import BINARIES, SmallRun
from test_layouts import checked

TOKENS, WINDOW, COUNT = 24, 16, 6000
PIPELINE = """name: tokens
data: {file: tokens.h5, window: %d}
model:
  layers:
    - {type: embedding, count: %d, out: 6}
    - {type: lstm, out: 10}
    - {type: linear, out: %d}
training: {batch_size: 64, slice_rows: 16, threads: 2, learning_rate: 1e-2, metric: loss}
continual_learning:
  ewc_config: {lambda: 10, fisher_samples: 1000, fisher_computation: {block_size: 1000, compression: gzip}}
tasks:
  - {name: A, epochs: 10}
  - {name: B, epochs: 1, from: A, ewc: [A]}
""" % (WINDOW, TOKENS, TOKENS)


def tokens_write(astray=None, weights=None):
    """Each token is mostly the one before it plus 1, so that there is something to learn."""
    random = numpy.random.default_rng(3)
    text = (numpy.cumsum(random.choice([1, 5], COUNT, p=[0.9, 0.1])) % TOKENS).astype("u2")
    if astray is not None:
        text[astray] = TOKENS
    with h5py.File("tokens.h5", "w") as f:
        for split in ("train", "validation"):
            f.create_dataset(split + "/tokens", data=text, chunks=(1024,), compression=4)
            f[split + "/doc_ptr"] = numpy.array([0, 2500, COUNT])
            if weights is not None:
                f.create_dataset(split + "/weights", data=weights, chunks=(700,))
    return text


def trained(name, settings=(), disturb=None):
    with SmallRun(name, "tokens.h5", settings=settings, pipeline=PIPELINE) as run:
        run.start("loaderd", "fisherd", "trainerd")
        if disturb:
            disturb(run)
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
        subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True,
                       stdout=subprocess.DEVNULL)
        with open(run.path("report/report.json")) as f:
            return run, json.load(f)


def of_pytorch(torch, run, text, weights):
    """Losses [rows, WINDOW] at the parameters of task A; asserts that the Fisher information is PyTorch's."""
    nn, F = torch.nn, torch.nn.functional
    table, lstm, head = nn.Embedding(TOKENS, 6), nn.LSTM(6, 10, batch_first=True), nn.Linear(10, TOKENS)
    parameters = [p for m in (table.double(), lstm.double(), head.double()) for p in m.parameters()]
    names = ["0.weight", *("1.%s_l0" % n for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")), "2.weight", "2.bias"]
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        for p, name in zip(parameters, names):
            p.data.copy_(torch.tensor(f["parameters/" + name][:]).double())
    rows, losses, squares, weight = (COUNT - 1) // WINDOW, [], 0, 0
    for i in range(rows):
        row = torch.tensor(text[i * WINDOW:(i + 1) * WINDOW + 1].astype(int))
        w = torch.tensor(weights[i * WINDOW + 1:(i + 1) * WINDOW + 1]).double()
        for p in parameters:
            p.grad = None
        loss = F.cross_entropy(head(lstm(table(row[None, :-1]))[0])[0], row[1:], reduction="none")
        (w.sqrt() * loss).mean().backward()
        losses.append(loss.detach().numpy())
        squares, weight = squares + torch.cat([p.grad.reshape(-1) ** 2 for p in parameters]), weight + w.mean()
    wanted = (squares / weight).numpy()
    ours = fisher_vector(run.path("fisher/A.h5"))
    with h5py.File(run.path("fisher/A.h5")) as f:
        assert f.attrs["samples"] == rows
    assert numpy.linalg.norm(ours - wanted) < 1e-5 * numpy.linalg.norm(wanted)
    return numpy.array(losses), weights[1:rows * WINDOW + 1].reshape(rows, WINDOW)


@limit(120)
def test_loss_and_fisher_information_are_those_of_pytorch():
    try:
        import torch
    except ImportError:
        skip("python3-torch is not installed")
    text = tokens_write()
    run, report = trained("run")
    losses = of_pytorch(torch, run, text, numpy.ones(COUNT))[0].mean(1)
    task, = [t for t in report["tasks"] if t["name"] == "A"]  # both splits hold the same text
    assert abs(task["after_own_training"] / numpy.mean(losses) - 1) < 1e-6, (task, numpy.mean(losses))
    assert numpy.mean(losses) < 0.8 * numpy.log(TOKENS), "it learned nothing"


@limit(120)
def test_tokens_that_weigh_are_weighed_as_the_ones_to_be_predicted():
    """In steps of training (of which nothing moves), evaluation and Fisher information; ones are no weights, bit for bit."""
    try:
        import torch
    except ImportError:
        skip("python3-torch is not installed")
    random = numpy.random.default_rng(4)
    weights = random.uniform(0.5, 2, COUNT).astype("f4")
    weights[random.random(COUNT) < 0.3] = 0
    weights[0], weights[-1] = -1, numpy.nan  # which nobody predicts
    text = tokens_write(weights=weights)
    still = ("data.weights=weights", "training.learning_rate=0", "data.shuffle=false", "tasks.A.epochs=1")
    run, report = trained("run", still)
    losses, weights = of_pytorch(torch, run, text, weights)
    assert checked("run.yaml", *still)[0] == 0
    for token, weight, words in ((374 * WINDOW, numpy.nan, "no finite float32"), (1, -1, "negative")):
        with h5py.File("tokens.h5", "a") as f:
            f["validation/weights"][token] = weight
        code, said = checked("run.yaml", *still)
        assert code == 100 and "weights has a weight in token %d that is %s" % (token, words) in said, said
    task, = [t for t in report["tasks"] if t["name"] == "A"]
    assert abs(task["after_own_training"] * weights.sum() / (weights * losses).sum() - 1) < 1e-6, task
    steps = numpy.fromfile(run.path("lineage"), "<u8,<u8,<u8,<u4,<f4")[:6]["f4"]  # of 64 rows, the last of 54
    wanted = [(weights[i:i + 64] * losses[i:i + 64]).sum() / weights[i:i + 64].sum() for i in range(0, 374, 64)]
    assert abs(steps / wanted - 1).max() < 1e-6, (steps, wanted)
    tokens_write(weights=numpy.ones(COUNT, "u1"))
    shorter = ("tasks.A.epochs=2",)
    assert trained("ones", shorter + still[:1])[1]["weights_sha256"] == trained("none", shorter)[1]["weights_sha256"]


@limit(120)
def test_weights_depend_on_neither_threads_nor_deaths():
    tokens_write()
    longer = ("tasks.A.epochs=20",)

    def kill(run):
        for stage in ("trainerd", "loaderd", "trainerd"):
            seen = run.log("trainerd").count("\n")
            run.until(lambda: run.log("trainerd").count("\n") > seen or run.processes["trainerd"].poll() is not None,
                      "trainerd says nothing")
            run.kill(stage)
            run.start(stage)
    expected = trained("run", longer)[1]["weights_sha256"]
    for name, settings, disturb in (("one", ("training.threads=1", "loader.use_chunk_loader=false"), None),
                                    ("killed", ("training.checkpoint_every_s=0.01",), kill)):
        assert trained(name, longer + settings, disturb)[1]["weights_sha256"] == expected, name


@limit(60)
def test_what_cannot_be_trained_is_named():
    def refused(name, words, *settings, pipeline=PIPELINE):
        with SmallRun(name, "tokens.h5", settings=settings, pipeline=pipeline) as run:
            run.start("loaderd", "trainerd")
            assert run.wait("trainerd") == 100, run.log("trainerd")
            assert words in run.log("trainerd"), run.log("trainerd")
    tokens_write(weights=numpy.where(numpy.arange(COUNT) == 1000, -1, 1))
    refused("negative", "tokens.h5: its weight 7 as float32 is -1; accepted", "data.weights=weights")
    tokens_write(astray=1000)
    refused("astray", "tokens.h5: its class of step 7 is 24; accepted: 0 to 23")
    code, said = checked("astray.yaml")
    assert code == 100 and "train/tokens: token 1000 is 24, and the model's first layer, the embedding" in said, said
    with open("astray.yaml") as f:
        wider = f.read().replace("count: 24", "count: 25")
    with open("wider.yaml", "w") as f:
        f.write(wider)
    code, said = checked("wider.yaml")
    assert code == 100 and "has fewer outputs to predict it; accepted: 0 to 23" in said, said
    tokens_write(astray=COUNT - 1)  # it fills no row
    assert checked("astray.yaml")[0] == 0
    refused("scaled", "data.scale is 0.5 and the model takes tokens", "data.scale=0.5")
    refused("permuted", "task A permutes the features, and the model takes tokens", "tasks.A.permute_features=1")
    refused("pooled", "16 values of type u16 a row, and the loss softmax_cross_entropy takes one integer class",
            pipeline=PIPELINE.replace("    - {type: linear", "    - {type: pool, kind: last}\n    - {type: linear"))
