"""Bad input gets one clear sentence and exit 100, and loses nothing."""
import gzip
import os
import shutil
import subprocess

import h5py
import numpy

from harness import limit
from runs import ROOT, Run

FINETUNE = os.path.join(ROOT, "pipelines/finetune.sh")
PREPARE = os.path.join(ROOT, "build/release/bin/prepare")


def pipeline(directory, data_file, extra="", layers="- {type: linear, out: 3}"):
    path = os.path.join(directory, "own.yaml")
    with open(path, "w") as f:
        f.write("name: own\ndata: {file: %s}\nmodel:\n  layers:\n    %s\n" % (os.path.abspath(data_file), layers) +
                "tasks:\n  - {name: A, epochs: 1}\n" + extra)
    return path


def data(path, change=None, rows=600, dtype="u1"):
    """A small file in the dense layout; `change(file)` spoils it."""
    rng = numpy.random.default_rng(1)
    with h5py.File(path, "w") as f:
        for split in ("train", "validation"):
            f.create_dataset(split + "/features", data=rng.integers(0, 9, (rows, 20)).astype(dtype),
                             chunks=(64, 20), compression="gzip", shuffle=True)
            f.create_dataset(split + "/targets", data=rng.integers(0, 3, rows).astype("u1"), chunks=(256,))
        if change:
            change(f)
    return path


def refused(*words, config=None, arguments=(), run="bad"):
    """finetune.sh ends with 100; one line of what it prints has all the words."""
    out = subprocess.run([FINETUNE, "--run", os.path.abspath(run)] +
                         (["--config", config] if config else []) + list(arguments),
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    text = out.stdout + out.stderr
    assert out.returncode == 100, (out.returncode, text)
    lines = [line for line in text.splitlines() if all(w in line for w in words)]
    assert lines, (words, text)
    assert len(lines[0]) < 900 and "Traceback" not in text


@limit(120)
def test_good_own_file_trains():
    config = pipeline(".", data("good.h5"))
    assert Run("good", "--config", config).finish()["steps"] == 5


@limit(120)
def test_options():
    good = data("good.h5")
    refused("own.yaml:9", "training.learning_rat", "training.learning_rate",
            config=pipeline(".", good, "training:\n  learning_rat: 1\n"))
    refused("own.yaml:10", "twice", "batch_size", "line 9",
            config=pipeline(".", good, "training:\n  batch_size: 8\n  batch_size: 9\n"))
    refused("own.yaml:9", "training.batch_size", "0", "1",
            config=pipeline(".", good, "training:\n  batch_size: 0\n"))
    refused("own.yaml:9", "training.batch_size", "many",
            config=pipeline(".", good, "training:\n  batch_size: many\n"))
    refused("training.batch_siz", config=pipeline(".", good), arguments=["--set", "training.batch_siz=3"])
    with open("none.yaml", "w") as f:
        f.write("name: own\nmodel:\n  layers:\n    - {type: relu}\ntasks:\n  - {name: A}\n")
    refused("none.yaml", "data.file", config="none.yaml")
    for layer, *words in (("type: linaer, out: 3", "unknown type 'linaer'", "the nearest is linear"),
                          ("type: linear, uot: 3", "(linear): unknown key 'uot'", "the nearest is out"),
                          ("type: linear, out: -64", "key 'out' is '-64'", "a whole number from 1"),
                          ("type: linear", "(linear): key 'out' is missing")):
        config = pipeline(".", good, layers="- {%s}" % layer)
        for look in ([], ["--check-data"], ["--plan"]):
            refused("own.yaml:5: model.layers, layer 0", *words, config=config, arguments=look)
    assert not os.path.exists("bad/pipeline.yaml")
    refused("cuda", config=pipeline(".", good), arguments=["--device", "cuda"])
    refused("--frobnicate", arguments=["--frobnicate"])
    refused("absent.yaml", arguments=["--config", "absent.yaml"])


def spoiled(change, *words, rows=600, dtype="u1", extra="", name="bad.h5"):
    shutil.rmtree("bad", ignore_errors=True)
    refused(*words, config=pipeline(".", data(name, change, rows, dtype), extra))


def replace(f, name, values, **options):
    del f[name]
    f.create_dataset(name, data=values, **options)


@limit(240)
def test_data_files():
    with open("text.h5", "w") as f:
        f.write("this is not HDF5 " * 1000)
    refused("text.h5", config=pipeline(".", "text.h5"))
    shutil.rmtree("bad", ignore_errors=True)
    refused("missing.h5", config=pipeline(".", "missing.h5"))
    whole = open(data("whole.h5"), "rb").read()
    with open("cut.h5", "wb") as f:
        f.write(whole[:len(whole) * 2 // 3])
    shutil.rmtree("bad", ignore_errors=True)
    refused("cut.h5", config=pipeline(".", "cut.h5"))
    rng = numpy.random.default_rng(2)
    spoiled(lambda f: f.__delitem__("train"), "bad.h5", "train")
    spoiled(lambda f: f.__delitem__("train/features"), "features", "bad.h5")
    spoiled(lambda f: replace(f, "train/features", numpy.zeros(600, "u1")), "features", "1 dimension")
    spoiled(lambda f: replace(f, "train/features", numpy.full((600, 20), b"x")), "features", "type")
    spoiled(lambda f: replace(f, "train/targets", numpy.zeros(599, "u1")), "599", "600")
    spoiled(lambda f: replace(f, "train/targets", rng.random(600)), "targets", "type")

    def nan(f):
        f["train/features"][123, 4] = numpy.nan
    spoiled(nan, "row 123", "finite", "bad.h5", dtype="f4")

    def label(f):
        f["train/targets"][77] = 3
    spoiled(label, "row 77", "class is 3", "0 to 2", "bad.h5")
    spoiled(lambda f: replace(f, "train/features", numpy.zeros((300000, 20), "u1"), chunks=(300000, 20)) or
            replace(f, "train/targets", numpy.zeros(300000, "u1")), "chunk", "arena.limit_mb",
            extra="arena: {limit_mb: 1}\n")


@limit(60)
def test_idx_files():
    def idx(magic, dims, payload):
        return gzip.compress(bytes(magic) + b"".join(d.to_bytes(4, "big") for d in dims) + payload, 1)
    good = {"train-images-idx3-ubyte.gz": idx((0, 0, 8, 3), (4, 2, 2), bytes(16)),
            "train-labels-idx1-ubyte.gz": idx((0, 0, 8, 1), (4,), bytes(4)),
            "t10k-images-idx3-ubyte.gz": idx((0, 0, 8, 3), (2, 2, 2), bytes(8)),
            "t10k-labels-idx1-ubyte.gz": idx((0, 0, 8, 1), (2,), bytes(2))}

    def prepared(spoil):
        shutil.rmtree("idx", ignore_errors=True)
        os.mkdir("idx")
        for name, content in {**good, **spoil}.items():
            with open("idx/" + name, "wb") as f:
                f.write(content)
        return subprocess.run([PREPARE, "idx", "--source", "idx", "--out", "idx.h5"], capture_output=True,
                              text=True, timeout=30)

    assert prepared({}).returncode == 0
    with h5py.File("idx.h5") as f:
        assert f["train/features"].shape == (4, 4) and f["validation/targets"].shape == (2,)
    before = open("idx.h5", "rb").read()
    for spoil, word in (({"train-images-idx3-ubyte.gz": idx((0, 0, 9, 3), (4, 2, 2), bytes(16))}, "magic"),
                        ({"train-images-idx3-ubyte.gz": idx((0, 0, 8, 3), (4, 2, 2), bytes(15))}, "31 bytes"),
                        ({"train-images-idx3-ubyte.gz": idx((0, 0, 8, 3), (4, 2, 2), bytes(17))}, "32"),
                        ({"train-labels-idx1-ubyte.gz": idx((0, 0, 8, 1), (5,), bytes(5))}, "5"),
                        ({"t10k-labels-idx1-ubyte.gz": b"garbage"}, "t10k-labels")):
        out = prepared(spoil)
        assert out.returncode == 100 and word in out.stderr, (word, out.returncode, out.stderr)
        sentences = [line for line in out.stderr.splitlines() if "rows" not in line]  # less the progress
        assert len(sentences) == 1, out.stderr
        assert open("idx.h5", "rb").read() == before, "the old file was touched"


@limit(60)
def test_changed_options_and_changed_data_are_refused_on_resume():
    config = pipeline(".", data("good.h5"))
    Run("bad", "--config", config).finish()
    refused("training.batch_size", config=config, arguments=["--set", "training.batch_size=64"])
    refused("bad is finished and was made with the old ones", config=config,
            arguments=["--set", "training.learning_rate=0.5"])


@limit(60)
def test_a_run_that_a_mistake_ended_begins_anew_with_the_corrected_file():
    """Until the first checkpoint nothing is lost by other options."""
    good = data("good.h5")
    wrong = pipeline(".", good, "training:\n  slice_rows: 16\n  batch_size: 64\n", "- {type: linear, out: 2}")
    refused("its class is 2; accepted: 0 to 1", config=wrong)
    refused("its class is 2; accepted: 0 to 1", config=wrong)
    right = pipeline(".", good, "seed: 5\ntraining:\n  slice_rows: 32\n  batch_size: 64\n",
                     "- {type: linear, out: 7}\n    - {type: relu}\n    - {type: linear, out: 3}")
    run = Run("bad", "--config", right)
    report = run.finish()
    assert "run: begins anew with these options; there is no checkpoint yet in " in run.output(), run.output()
    assert report["seed"] == 5 and report["steps"] == 10, report
    assert report["reproducible"] is True and report["decisions"] == [], report
    fresh = Run("fresh", "--config", right).finish()
    assert fresh["weights_sha256"] == report["weights_sha256"]


@limit(60)
def test_every_program_answers_help():
    for name in ("loaderd", "trainerd", "fisherd", "monitord", "tap", "prepare"):
        out = subprocess.run([os.path.join(ROOT, "build/release/bin", name), "--help"], capture_output=True,
                             text=True, timeout=10)
        assert out.returncode == 0 and "xample" in out.stdout and "--help" in out.stdout, (name, out)
    for name in ("finetune.sh", "continual.sh", "attach.sh", "restart.sh", "setup.sh"):
        out = subprocess.run([os.path.join(ROOT, "pipelines", name), "--help"], capture_output=True, text=True,
                             timeout=10)
        assert out.returncode == 0 and "xample" in out.stdout and "--help" in out.stdout, (name, out)
    out = subprocess.run([os.path.join(ROOT, "build/release/bin/trainerd"), "--help"], capture_output=True, text=True)
    for option in ("training.batch_size", "arena.limit_mb", "continual_learning.ewc_config.lambda"):
        assert option in out.stdout


@limit(60)
def test_pipelines_of_the_readme_are_whole():
    """Those with data: what else stands there are parts of one."""
    with open(os.path.join(ROOT, "README.md")) as f:
        examples = [e for e in f.read().split("```yaml\n")[1:] if "prepare: " in e.split("```")[0]]
    assert len(examples) == 3, examples
    for example in examples:
        with open("example.yaml", "w") as f:
            f.write(example.split("```")[0])
        done = subprocess.run([os.path.join(ROOT, "build/release/bin/prepare"), "files", "--config", "example.yaml"],
                              capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.count("\n") == 1, done
