"""continual.sh as a user meets it: a sequence of small tasks, its matrix, and what is refused."""
import os
import subprocess

import numpy
from harness import limit
from runs import ROOT, Run, plan_check
from small_run import data_write

CONTINUAL = os.path.join(ROOT, "pipelines/continual.sh")
MODEL = """name: small
data: {file: %s, scale: 0.01}
model:
  layers:
    - {type: linear, out: 32}
    - {type: relu}
    - {type: linear, out: 5}
"""
PIPELINE = MODEL + """training: {batch_size: 64, learning_rate: 3e-3}
continual_learning:
  compare_without_ewc: true
  forward_transfer: true
  ewc_config: {lambda: 100, fisher_samples: 256}
tasks:
  - {name: A, epochs: 2, permute_features: 1}
  - {name: B, epochs: 2, permute_features: 2, from: previous, ewc: [all]}
  - {name: C, epochs: 2, permute_features: 3, from: previous, ewc: [all]}
"""


def rows_write(path, rows=700, seed=5, features=60):
    """Five classes, each a noisy pattern: learned in two epochs."""
    random = numpy.random.default_rng(seed)
    targets = random.integers(0, 5, rows).astype("u1")
    patterns = random.integers(0, 200, (5, features))
    data_write(path, (patterns[targets] + random.integers(0, 56, (rows, features))).astype("u1"), targets)


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


def report_text(run):
    with open(run.path("report/report.md")) as f:
        return f.read()


@limit(120)
def test_report_of_three_tasks_is_what_evaluations_said():
    """Killed in the middle of a comparison it is the same, down to the weights."""
    rows_write("data.h5")
    run = Run("run", *pipeline(), script="continual.sh")
    report = run.finish()
    plan_check(report)
    c, results = report["continual"], said(run)
    assert c["tasks"] == ["A", "B", "C"] and c["metric"] == "accuracy"
    assert len(results) == 3 + (2 + 3 + 3) + (3 + 3), results
    assert c["first_weights"] == [results["start", t] for t in "ABC"]
    assert c["own"]["results"] == [[results.get((a, t)) for t in "ABC"] for a in "ABC"]
    assert c["without_ewc"]["results"] == [
        [results.get((a, t)) for t in "ABC"] for a in ("A", "B-without-ewc", "C-without-ewc")]
    assert all(0 < l < 3 for l in c["own"]["losses"][2]) and "loss without EWC, after" in report_text(run)
    assert c["own"]["results"][0][2] is None and c["own"]["results"][1][1] > 0.9, c
    for way in ("own", "without_ewc"):
        for name, value in figures(c[way]["results"], c["first_weights"]).items():
            assert abs(c[way][name] - value) < 1e-12, (way, name, c[way], value)
    assert [cost["task"] for cost in c["costs"] if cost["training_seconds"] > 0] == ["A", "B", "C"], c["costs"]
    state = {s["task"]: s for s in report["ewc_state"]}
    assert sorted(state) == ["A", "B"], state  # nobody asks for that of C
    for task, s in state.items():
        assert s["bytes"] == os.path.getsize(run.path("fisher/%s.h5" % task)), state
        assert s["parameters"] == 60 * 32 + 32 + 32 * 5 + 5 and s["form"] == "log_rank1" and s["samples"] == 256
        assert abs(s["bytes_per_parameter"] - s["bytes"] / s["parameters"]) < 1e-4 and 0 < s["error"] < 0.1, s
    for picture in ("results.png", "sequence.png"):
        assert open(run.path("report", picture), "rb").read(4) == b"\x89PNG"
    text = report_text(run)
    assert "![results](results.png)" in text and "| forgetting |" in text, text
    assert "| A | log_rank1 | 256 | %d |" % state["A"]["bytes"] in text, text
    assert "average at the end" in run.output() and "EWC state: 0.0" in run.output(), run.output()
    other = Run("killed", *pipeline(), "--set", "training.checkpoint_every_s=0.01", script="continual.sh")
    other.until(lambda: other.pid("trainerd"), "no trainerd")
    trainerd, done = other.pid("trainerd"), other.path("checkpoints/task-C.h5")
    while not os.path.exists(done):  # without a pause: the comparison, which is to come, takes some milliseconds
        assert other.process.poll() is None, other.output()
    os.kill(trainerd, 9)
    again = other.finish()
    for key in ("tasks", "first_weights", "own", "without_ewc"):
        assert again["continual"][key] == c[key], (key, again["continual"], c)
    assert again["weights_sha256"] == report["weights_sha256"] and again["restarts"]["trainerd"] == 1


OWN = MODEL + """training: {batch_size: 64, learning_rate: 3e-3, checkpoint_every_s: 0.01}
continual_learning:
  compare_without_ewc: true
  ewc_config: {lambda: 100, fisher_samples: 1000, fisher_computation: {block_size: 1000, use_compression: false}}
tasks:
  - {name: A, epochs: 2}
  - {name: B, epochs: 2, file: second.h5, batch_size: 32, learning_rate: 1e-3, from: previous, ewc: [all]}
  - {name: C, epochs: 2, lambda: 1e-6, from: previous, ewc: [all]}
"""


@limit(120)
def test_tasks_have_data_batches_and_rates_of_their_own():
    """Two files of different length, read by turns: schedule, matrix, Fisher samples, and a kill in the second one.

    How many blocks the Fisher information is made in changes nothing where it is kept exactly.
    """
    import h5py
    rows_write("data.h5")
    rows_write("second.h5", rows=300, seed=6)
    words = (*pipeline(OWN), "--set", "tasks.B.file=" + os.path.abspath("second.h5"))
    run = Run("run", *words, script="continual.sh")
    report = run.finish()
    plan_check(report)
    assert report["steps"] == 2 * 11 + 2 * (2 * 10 + 2 * 11), report["steps"]
    c = report["continual"]["own"]["results"]
    assert c[0][0] > 0.9 and c[1][1] > 0.4 and c[2][2] > 0.9 and c[0][1] is None, c
    for task, samples in (("A", 700), ("B", 300)):
        with h5py.File(run.path("fisher/%s.h5" % task)) as f:
            assert f.attrs["samples"] == samples and len(f["blocks"]) > 1, (task, f.attrs["samples"])
    plan = subprocess.run([CONTINUAL, *words, "--plan"], capture_output=True, text=True)
    assert plan.returncode == 0 and "64 rows a micro-batch" in plan.stdout, plan
    other = Run("killed", *words, "--use-memory-efficient", "off", script="continual.sh")
    other.await_path("fisher/A.h5")
    os.kill(other.pid("trainerd"), 9)
    assert other.finish()["weights_sha256"] == report["weights_sha256"]
    with h5py.File(other.path("fisher/A.h5")) as f:
        assert len(f["blocks"]) == 1


def refused(*words, text=PIPELINE, options=()):
    done = subprocess.run([CONTINUAL, "--run", "refused", *pipeline(text), *options], capture_output=True, text=True)
    lines = done.stderr.splitlines()
    assert done.returncode == 100 and len(lines) == 1 and all(w in lines[0] for w in words), done


@limit(60)
def test_lists_of_tasks_that_cannot_be_are_refused():
    import h5py
    rows_write("data.h5")
    refused("tasks.B.from", "\"D\"", "no task", text=PIPELINE.replace("from: previous", "from: D", 1))
    refused("tasks.B.ewc", "a later task", text=PIPELINE.replace("ewc: [all]", "ewc: [C]", 1))
    refused("tasks.2.name", "as is tasks.0.name", text=PIPELINE.replace("name: C", "name: A"))
    refused("unknown option tasks.0.epoch", text=PIPELINE.replace("epochs: 2", "epoch: 2", 1))
    refused("unknown option '--use-memory'", options=("--use-memory",))
    refused("tasks.B.classes goes with data.prepare: idx",
            text=PIPELINE.replace("name: B,", "name: B, classes: [0, 1],"))
    rows_write("wide.h5", features=61)
    wide = "tasks.B.file=" + os.path.abspath("wide.h5")
    run = Run("wide", *pipeline(), "--set", wide, script="continual.sh")
    assert run.wait() == 100 and "do not hold rows of one kind" in run.output(), run.output()
    rows_write("odd.h5", rows=300)
    with h5py.File("odd.h5", "r+") as f:
        f["train/targets"][7] = 5
    odd = ("--set", "tasks.C.file=" + os.path.abspath("odd.h5"))  # --check-data reads what a run comes to late
    refused("classes up to 5 and the model 5 outputs", options=(*odd, "--check-data"))
    run = Run("missing", *pipeline(), "--set", "tasks.C.file=/nowhere.h5", script="continual.sh")
    assert run.wait() == 100 and "/nowhere.h5" in run.output() and "No such file" in run.output(), run.output()


def idx_write(path, magic, shape, data):
    with open(path, "wb") as f:
        f.write(magic.to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in shape) + data.tobytes())


@limit(60)
def test_tasks_of_classes_have_files_of_their_rows():
    """Two pairs of four classes of small images: prepared, looked at, trained, and asked with predict.sh."""
    import h5py
    random = numpy.random.default_rng(3)
    os.mkdir("source")
    for part, rows in (("train", 400), ("t10k", 80)):
        labels = numpy.arange(rows).astype("u1") % 4
        images = (random.integers(0, 60, (rows, 6, 6)) + 60 * (labels % 3)[:, None, None]).astype("u1")
        idx_write("source/%s-images-idx3-ubyte" % part, 0x803, (rows, 6, 6), images)
        idx_write("source/%s-labels-idx1-ubyte" % part, 0x801, (rows,), labels)
    text = OWN[:OWN.index("tasks:")].replace("out: 5", "out: 2").replace(
        "data: {", "data: {prepare: idx, source: %s, " % os.path.abspath("source")) + """tasks:
  - {name: low, epochs: 12, classes: [0, 1]}
  - {name: high, epochs: 12, classes: [3, 2], from: previous, ewc: [all]}
"""
    words = pipeline(text)
    # a task of all classes reads another file, and a comparison that the file names reads that of its task, by a name
    # that is relative to the repository as all are
    mixed = text.replace("out: 2", "out: 4") + """  - {name: alike, epochs: 12, classes: [3, 2], from: low, comparison_of: high}
  - {name: rest, from: high, source: %s, lambda: 3}
""" % os.path.abspath("source")
    files = ("data.file=data.h5", "tasks.high.file=high.h5", "tasks.alike.file=high.h5")
    moved = [w for s in files for w in ("--set", s.split("=")[0] + "=" + os.path.relpath(s.split("=")[1], ROOT))]
    with open("mixed.yaml", "w") as f:
        f.write(mixed.replace("%s", "data.h5"))
    for what in ("--check-data", "--plan"):
        looked = subprocess.run([CONTINUAL, "--config", "mixed.yaml", *moved, what], capture_output=True, text=True)
        assert looked.returncode == 0, looked
        if what == "--check-data":
            assert [looked.stdout.count("/%s\n" % n) for n in ("data-classes-0-1.h5", "high.h5", "data.h5")] == [1, 1, 1], looked
    os.remove("data.h5")
    looked = subprocess.run([CONTINUAL, *words, "--check-data"], capture_output=True, text=True)
    assert looked.returncode == 0 and "data-classes-0-1.h5" in looked.stdout, looked
    assert "data-classes-3-2.h5" in looked.stdout and not os.path.exists("data.h5"), looked
    report = Run("run", *words, script="continual.sh").finish()
    plan_check(report)
    results = report["continual"]["own"]["results"]
    assert results[0][0] > 0.8 and results[1][1] > 0.8, results
    with h5py.File("data-classes-3-2.h5") as f:
        assert f["train/targets"][:].tolist() == [1, 0] * 100 and f["validation/features"].shape == (40, 36)
    said = subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), "--run", "run", "--task", "high", "--out", "o.csv"],
                          capture_output=True, text=True)
    assert said.returncode == 0 and "40 rows of" in said.stdout and "classes-3-2" in said.stdout, said
    assert "accuracy %.2f %%" % (100 * results[1][1]) in said.stdout, (said, results)


@limit(60)
def test_sequences_that_are_there_to_run():
    """The pipeline files: how many files their tasks read, and that each task but the first protects all before it."""
    for name, files, tasks in (("continual", 1, 5), ("split", 5, 5), ("text", 3, 3)):
        config = os.path.join(ROOT, "pipelines/%s.yaml" % name)
        prepare = os.path.join(ROOT, "build/release/bin/prepare")
        out = subprocess.run([prepare, "files", "--config", config], capture_output=True, text=True, check=True).stdout
        lines = [line.split("\37") for line in out.splitlines()]
        assert sum(line[5:] == ["first"] for line in lines) == files and len(lines) == 2 * tasks - 1, out
        last = subprocess.run([prepare, "get", "--config", config, "tasks.%d.ewc" % (tasks - 1)], capture_output=True,
                              text=True, check=True).stdout
        assert last.count(",") == tasks - 2, last
        both = subprocess.run([prepare, "get", "--config", config, "tasks.%d.comparison_of" % (2 * tasks - 2)],
                              capture_output=True, text=True, check=True).stdout
        assert both, name


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
