"""continual.sh as a user meets it: a sequence of small tasks, its matrix, and what is refused."""
import os
import subprocess

import numpy
from harness import limit
from runs import ROOT, Run
from small_run import data_write

CONTINUAL = os.path.join(ROOT, "pipelines/continual.sh")
PIPELINE = """name: small
data: {file: %s, scale: 0.01}
model:
  layers:
    - {type: linear, out: 32}
    - {type: relu}
    - {type: linear, out: 5}
training: {batch_size: 64, learning_rate: 3e-3}
continual_learning:
  compare_without_ewc: true
  forward_transfer: true
  ewc_config: {lambda: 100, fisher_samples: 256}
tasks:
  - {name: A, epochs: 2, permute_features: 1}
  - {name: B, epochs: 2, permute_features: 2, from: previous, ewc: [all]}
  - {name: C, epochs: 2, permute_features: 3, from: previous, ewc: [all]}
"""


def rows_write(path):
    """Five classes, each a noisy pattern: learned in two epochs."""
    random = numpy.random.default_rng(5)
    targets = random.integers(0, 5, 700).astype("u1")
    patterns = random.integers(0, 200, (5, 60))
    data_write(path, (patterns[targets] + random.integers(0, 56, (700, 60))).astype("u1"), targets)


def pipeline(text=PIPELINE, data="data.h5"):
    with open("small.yaml", "w") as f:
        f.write(text % os.path.abspath(data))
    return "--config", "small.yaml"


def figures(results, first):
    """The definitions of docs/CONTINUAL.md, once more."""
    r, last = results, len(results) - 1
    return {"average": numpy.mean(r[last]),
            "backward_transfer": numpy.mean([r[last][j] - r[j][j] for j in range(last)]),
            "forgetting": numpy.mean([max(r[k][j] for k in range(j, last)) - r[last][j] for j in range(last)]),
            "forward_transfer": numpy.mean([r[j][j + 1] - first[j + 1] for j in range(last)])}


def said(run):
    """{(after, task): value} of everything the newest checkpoint holds."""
    import h5py
    newest = sorted(n for n in os.listdir(run.path("checkpoints")) if n.startswith("step-"))[-1]
    with h5py.File(run.path("checkpoints", newest)) as f:
        lines = bytes(f["results"][:]).decode().splitlines()
    return {(line.split("\t")[1], line.split("\t")[0]): float(line.split("\t")[3]) for line in lines}


@limit(120)
def test_report_of_three_tasks_is_what_evaluations_said():
    """Killed in the middle of a comparison it is the same, down to the weights."""
    rows_write("data.h5")
    run = Run("run", *pipeline(), script="continual.sh")
    report = run.finish()
    c, results = report["continual"], said(run)
    assert c["tasks"] == ["A", "B", "C"] and c["metric"] == "accuracy"
    assert len(results) == 3 + (2 + 3 + 3) + (3 + 3), results
    assert c["first_weights"] == [results["start", t] for t in "ABC"]
    assert c["own"]["results"] == [[results.get((a, t)) for t in "ABC"] for a in "ABC"]
    assert c["without_ewc"]["results"] == [
        [results.get((a, t)) for t in "ABC"] for a in ("A", "B-without-ewc", "C-without-ewc")]
    assert c["own"]["results"][0][2] is None and c["own"]["results"][1][1] > 0.9, c
    for way in ("own", "without_ewc"):
        for name, value in figures(c[way]["results"], c["first_weights"]).items():
            assert abs(c[way][name] - value) < 1e-12, (way, name, c[way], value)
    costs = {cost["task"]: cost for cost in c["costs"]}
    for task in "AB":
        assert costs[task]["fisher_bytes"] == os.path.getsize(run.path("fisher/%s.h5" % task)), costs
        assert costs[task]["fisher_parameters"] == 60 * 32 + 32 + 32 * 5 + 5
    assert costs["C"]["fisher_bytes"] == 0 and costs["C"]["training_seconds"] > 0
    for picture in ("results.png", "sequence.png"):
        assert open(run.path("report", picture), "rb").read(4) == b"\x89PNG"
    text = open(run.path("report/report.md")).read()
    assert "![results](results.png)" in text and "| forgetting |" in text, text
    assert "average at the end" in run.output()
    other = Run("killed", *pipeline(), "--set", "training.checkpoint_every_s=0.01", script="continual.sh")
    other.await_path("checkpoints/task-B-without-ewc.h5")
    os.kill(other.pid("trainerd"), 9)
    again = other.finish()
    for key in ("tasks", "first_weights", "own", "without_ewc"):
        assert again["continual"][key] == c[key], (key, again["continual"], c)
    assert again["weights_sha256"] == report["weights_sha256"] and again["restarts"]["trainerd"] == 1


def refused(*words, text=PIPELINE, options=()):
    done = subprocess.run([CONTINUAL, "--run", "refused", *pipeline(text), *options], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 100 and len(lines) == 1 and all(w in lines[0] for w in words), done


@limit(60)
def test_lists_of_tasks_that_cannot_be_are_refused():
    rows_write("data.h5")
    refused("tasks.B.from", "\"D\"", "no task", text=PIPELINE.replace("from: previous", "from: D", 1))
    refused("tasks.B.ewc", "a later task", text=PIPELINE.replace("ewc: [all]", "ewc: [C]", 1))
    refused("tasks.2.name", "as is tasks.0.name", text=PIPELINE.replace("name: C", "name: A"))
    refused("unknown option tasks.0.epoch", text=PIPELINE.replace("epochs: 2", "epoch: 2", 1))
    refused("unknown option '--use-memory'", options=("--use-memory",))


@limit(60)
def test_switches_are_options():
    rows_write("data.h5")
    words = ("--use-memory-efficient", "off", "--dynamic-batch-size", "--set", "training.max_hours=1e-9",
             "--set", "continual_learning.ewc_config.fisher_computation.block_size=2000")
    run = Run("run", *pipeline(), *words, script="continual.sh")
    assert run.wait() == 75, run.output()
    text = open(run.path("pipeline.yaml")).read()
    assert "use_memory_efficient: false" in text and "dynamic_batch_size: true" in text, text
    assert "block_size: 1000000000" in text and "continual.sh --config" in run.output(), text
