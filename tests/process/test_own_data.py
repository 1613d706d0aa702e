"""Own data: from a CSV file or NumPy's arrays to a finished run; bad ones get a sentence and leave the old file."""
import os
import re
import signal
import subprocess

import h5py
import numpy

from harness import limit
from runs import ROOT, Run, plan_check

FINETUNE = os.path.join(ROOT, "pipelines/finetune.sh")


def pipeline(kind, source, prepare="", outputs=3):
    with open("mine.yaml", "w") as f:
        f.write("name: mine\ndata: {prepare: %s, source: %s, file: %s}\n" %
                (kind, os.path.abspath(source), os.path.abspath("mine.h5")) +
                "prepare: {%s}\nmodel:\n  layers:\n    - {type: linear, out: 16}\n    - {type: relu}\n" % prepare +
                "    - {type: linear, out: %d}\ntraining: {batch_size: 32, learning_rate: 1e-2}\n" % outputs +
                "tasks:\n  - {name: A, epochs: 4}\n")


def processes_naming(word):
    """Command lines of living processes that hold the word."""
    found = []
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/cmdline" % name) as f:
                words = f.read().split("\0")
        except OSError:
            continue
        found += [words] if any(word in w for w in words) else []
    return found


def finetune(*arguments):
    out = subprocess.run([FINETUNE, "--config", "mine.yaml", *arguments], stdin=subprocess.DEVNULL,
                         capture_output=True, text=True, timeout=60)
    assert "Traceback" not in out.stderr
    return out


def flowers(rows=600):
    """Features of three kinds, far enough apart to be learned, and the kinds."""
    rng = numpy.random.default_rng(3)
    kinds = rng.integers(0, 3, rows)
    return (rng.normal(size=(rows, 4)) + 4 * kinds[:, None]).astype("f4"), kinds


def csv_write(path, features, kinds, names=("oak", "ash", "elm")):
    with open(path, "w") as f:
        f.write("height,width,\"leaf, length\",leaf width,tree\r\n")
        for row, kind in zip(features, kinds):
            f.write(",".join("%.17g" % v for v in row) + ",\"%s\"\r\n" % names[kind])


@limit(120)
def test_csv_becomes_a_finished_run():
    features, kinds = flowers()
    csv_write("trees.csv", features, kinds)
    pipeline("csv", "trees.csv", "target: tree, validation_fraction: 0.2")
    run = Run("run", "--config", "mine.yaml")
    report = run.finish()
    assert report["steps"] == 4 * 15, report["steps"]  # 480 rows in batches of 32
    with h5py.File("mine.h5") as f:
        assert f.attrs["classes"] in ("ash\nelm\noak", b"ash\nelm\noak")
        assert f["train/features"].dtype == "f4" and f["train/features"].shape == (480, 4)
        both = numpy.concatenate([f["train/features"][:], f["validation/features"][:]])
        classes = numpy.concatenate([f["train/targets"][:], f["validation/targets"][:]])
    # Every row is there once, bit for bit, with its own class.
    wanted = {tuple(row): (2, 0, 1)[kind] for row, kind in zip(features.tolist(), kinds)}
    assert {tuple(row): c for row, c in zip(both.tolist(), classes.tolist())} == wanted and len(wanted) == 600
    accuracy = [float(a) for a in re.findall(r"accuracy +([0-9.]+) %", run.output())]
    assert accuracy and accuracy[-1] > 80, run.output()[-2000:]


@limit(120)
def test_npy_becomes_the_same_run_as_csv():
    features, kinds = flowers()
    os.mkdir("arrays")
    numpy.save("arrays/features.npy", features)
    numpy.save("arrays/targets.npy", kinds)
    csv_write("trees.csv", features, kinds, names="012")
    pipeline("npy", "arrays", "normalise: standard")
    weights = Run("npy", "--config", "mine.yaml").finish()["weights_sha256"]
    with h5py.File("mine.h5") as f:
        train = f["train/features"][:]
        assert abs(train.mean(0)).max() < 1e-5 and abs(train.std(0) - 1).max() < 1e-5
        assert f["normalise/mean"].shape == (4,) and "classes" not in f.attrs
    os.remove("mine.h5")
    pipeline("csv", "trees.csv", "normalise: standard, target: tree")
    assert Run("csv", "--config", "mine.yaml").finish()["weights_sha256"] == weights


@limit(60)
def test_npy_drops_rows_with_nan_and_numbers_odd_classes():
    rng = numpy.random.default_rng(5)
    features = rng.normal(size=(3000, 2, 250))  # several blocks of 1 MiB
    features[[7, 1500, 2999], 1, 3] = numpy.nan
    classes = rng.integers(-1, 2, (3000, 1)).astype("i2") * 100
    os.mkdir("arrays")
    numpy.save("arrays/features.npy", features)
    numpy.save("arrays/targets.npy", classes)
    pipeline("npy", "arrays", "missing: drop, split: last, validation_fraction: 0.25")
    out = finetune("--check-data")
    assert out.returncode == 0 and "3 rows with missing values were dropped" in out.stderr, out
    kept = ~numpy.isnan(features).any((1, 2))
    with h5py.File("mine.h5") as f:
        assert (f["train/features"][:] == features[kept][:2248].reshape(2248, 500).astype("f4")).all()
        assert (f["validation/features"][:] == features[kept][2248:].reshape(749, 500).astype("f4")).all()
        assert (f["train/targets"][:] == classes[kept][:2248, 0] // 100 + 1).all()
        assert f.attrs["classes"] in ("-100\n0\n100", b"-100\n0\n100")


def prepared(kind, *options, out=("--out", "mine.h5")):
    """`prepare KIND` by itself, of mine.yaml."""
    return subprocess.run([os.path.join(ROOT, "build/release/bin/prepare"), kind, "--config", "mine.yaml", *out,
                           *(w for o in options for w in ("--set", o))],
                          capture_output=True, text=True, timeout=60)


@limit(60)
def test_npy_values_are_kept_as_floats():
    rng = numpy.random.default_rng(5)
    os.mkdir("arrays")
    features, targets = rng.normal(size=(700, 3)).astype("f4"), rng.normal(size=(700, 2, 2))
    targets[5, 1, 1] = numpy.nan
    numpy.save("arrays/features.npy", features)
    numpy.save("arrays/targets.npy", targets)
    pipeline("npy", "arrays", "task: values, split: last, validation_fraction: 0.5")
    out = prepared("npy")
    assert out.returncode == 100 and "targets.npy: row 5, value 3 is NaN" in out.stderr, out
    out = prepared("npy", "model.missing_targets=true")
    assert out.returncode == 0 and "1 of 2800 targets are missing and kept so" in out.stderr, out
    with h5py.File("mine.h5") as f:
        both = numpy.concatenate([f["train/targets"][:], f["validation/targets"][:]])
        assert numpy.array_equal(both, targets.reshape(700, 4).astype("f4"), equal_nan=True)
    out = prepared("npy", "prepare.missing=drop")
    assert out.returncode == 0 and "4 target values" in out.stderr, out
    kept = numpy.arange(700) != 5
    with h5py.File("mine.h5") as f:
        both = [numpy.concatenate([f[s + name][:] for s in ("train/", "validation/")]) for name in ("features", "targets")]
        assert both[1].dtype == "f4" and (both[1] == targets[kept].reshape(699, 4).astype("f4")).all()
        assert (both[0] == features[kept]).all() and "class_count" not in f.attrs
    numpy.save("arrays/targets.npy", numpy.arange(700))
    assert prepared("npy", "prepare.missing=drop").returncode == 0
    with h5py.File("mine.h5") as f:
        assert (f["validation/targets"][:] == numpy.arange(350, 700)[:, None]).all()


@limit(60)
def test_missing_targets_of_a_table_are_kept_where_the_model_takes_them():
    with open("t.csv", "w") as f:
        f.write("a,x,b,y\n" + "".join("%d.5,%s,%d,%s\n" % (i, ("", "NA", 1, 2, "nan")[i % 5], i, i / 2 if i % 10 else "")
                                     for i in range(100)) + ",3,4,5\n")
    pipeline("csv", "t.csv", "task: values, target: 'y, x', split: last, validation_fraction: 0.4, missing: drop")
    kept = "model.missing_targets=true"
    out = prepared("csv", kept, "prepare.missing=error")
    assert out.returncode == 100 and 'line 102, column 1 (a): "" is no value' in out.stderr, out  # a feature
    out = prepared("csv", "prepare.missing=error")
    assert out.returncode == 100 and "line 2, column 2 (x): the target has no value" in out.stderr and kept[:21] in out.stderr
    out = prepared("csv", kept)
    assert out.returncode == 0 and "70 of 200 targets are missing" in out.stderr and "1 rows with" in out.stderr, out
    assert "up to date" in prepared("csv", kept).stderr and "up to date" not in prepared("csv").stderr
    assert prepared("csv", kept).returncode == 0
    rows = numpy.arange(100)
    y = numpy.where(rows % 10 > 0, rows / 2, numpy.nan)
    x = numpy.choose(rows % 5, (numpy.nan, numpy.nan, 1, 2, numpy.nan))
    with h5py.File("mine.h5") as f:
        both = numpy.concatenate([f["train/targets"][:], f["validation/targets"][:]])
        assert numpy.array_equal(both, numpy.stack([y, x], 1).astype("f4"), equal_nan=True)
    with open("t.csv") as f, open("dog.csv", "w") as out:  # classes: x, as texts
        out.writelines(line.replace(".5,1,", ".5,dog,").replace(".5,2,", ".5,-7,").replace(",nan,", ",-2.5,") for line in f)
    classes = ("data.source=" + os.path.abspath("dog.csv"), "prepare.task=classes", "prepare.target=x", kept)
    assert prepared("csv", *classes).returncode == 0
    with h5py.File("mine.h5") as f:
        both = numpy.concatenate([f["train/targets"][:], f["validation/targets"][:]])
        assert both.dtype == "i1" and f.attrs["class_count"] == 2
        assert (both == numpy.choose(rows % 5, (-1, -1, 1, -1, 0))[rows % 10 > 0]).all()  # -2.5 is no whole number
    out = prepared("check", kept, out=())
    assert "values 0 to 1, missing 30, 2 classes" in out.stdout, out
    os.mkdir("arrays")
    numpy.save("arrays/features.npy", rows[:, None])
    numpy.save("arrays/targets.npy", numpy.where(rows % 3, rows + 100, -100))
    arrays = ("data.source=" + os.path.abspath("arrays"), "prepare.task=classes", kept)
    out = prepared("npy", *arrays)
    assert out.returncode == 0 and "34 of 100 targets are missing" in out.stderr, out
    with h5py.File("mine.h5") as f:
        both = numpy.concatenate([f["train/targets"][:], f["validation/targets"][:]])
        assert both.dtype == "i2" and (both == numpy.where(rows % 3, rows + 100, -1)).all()
    numpy.save("arrays/targets.npy", numpy.full(100, -1))
    out = prepared("npy", *arrays)
    assert out.returncode == 100 and "targets of all 100 usable rows" in out.stderr, out


@limit(60)
def test_a_class_that_is_na_or_nan_is_missing_and_no_class():
    kinds = ("ant", "bee", "NA", "nan", "cat")
    with open("t.csv", "w") as f:
        f.write("a,kind\n" + "".join("%d,%s\n" % (i, kinds[i % 5]) for i in range(20)))
    pipeline("csv", "t.csv", "split: last, validation_fraction: 0.5")
    out = prepared("csv")
    assert out.returncode == 100 and "line 4, column 2 (kind): the target has no value" in out.stderr, out
    rows = numpy.arange(20)
    for option, kept, classes in (("prepare.missing=drop", (rows % 5 != 2) & (rows % 5 != 3), (0, 1, 2)),
                                  ("model.missing_targets=true", rows >= 0, (0, 1, -1, -1, 2))):
        out = prepared("csv", option)
        assert out.returncode == 0, out
        with h5py.File("mine.h5") as f:
            assert f.attrs["classes"] in ("ant\nbee\ncat", b"ant\nbee\ncat") and f.attrs["class_count"] == 3
            both = [numpy.concatenate([f[s + n][:] for s in ("train/", "validation/")]) for n in ("features", "targets")]
            assert numpy.array_equal(both[0][:, 0], rows[kept])
            assert numpy.array_equal(both[1], [k for k in numpy.tile(classes, 4) if k >= 0 or len(classes) == 5])


@limit(60)
def test_the_tasks_tables_have_the_same_columns_and_classes():
    def table(task, classes, names="width,height", target="kind"):
        with open(task + ".csv", "w") as f:
            f.write("%s,%s\n" % (names, target) + "".join("%d,%d,%s\n" % (i, -i, classes[i % len(classes)]) for i in range(40)))
        assert prepared("csv", out=("--task", task, "--out", task + ".h5")).returncode == 0
    pipeline("csv", "A.csv", "target: -1, split: last")
    with open("mine.yaml") as f:
        text = f.read()
    with open("mine.yaml", "w") as f:
        f.write(text[:text.index("tasks:")] + "tasks:\n" + "".join(
            "  - {name: %s, epochs: 1, source: %s.csv, file: %s.h5}\n" % (t, t, t) for t in "ABC"))

    def answers(words):
        by_hand = "data.prepare=none"
        for out in (prepared("run", out=("--run", "run")), prepared("run", by_hand, out=("--run", "hand")),
                    prepared("check", by_hand, "data.file=A.h5", out=())):
            assert out.returncode == (100 if words else 0), out
            assert all(w in out.stderr for w in words), out.stderr
    for task in "ABC":
        table(task, ("ant", "bee", "cat"))
    answers(())
    table("B", ("bee", "cat"))
    answers(("classes of task B", "B.h5) are not those of task A", 'number 0 is "bee" and there "ant"', "accepted are"))
    table("B", ("ant", "bee"))
    answers(('number 2 is none by name and there "cat"',))
    table("B", ("0", "1", "2"))
    answers(('number 0 is none by name and there "ant"',))
    for task in "AC":
        table(task, ("0", "1", "2"))
    table("B", ("1", "2"))
    answers(())  # numbers stay what they are
    table("C", ("0", "1", "2"), names="height,width")
    answers(("features of task C", 'number 0 is "height" and there "width"', "the same columns in the same order"))
    os.remove("C.h5")
    answers(())


@limit(60)
def test_the_example_of_the_readme_works_as_printed():
    with open(os.path.join(ROOT, "README.md")) as f:
        section = f.read().split("## Your own data")[1].split("\n## ")[0]
    table, = re.findall(r"```csv\n(.*?)```", section, flags=re.S)
    config = re.findall(r"```yaml\n(.*?)```", section, flags=re.S)[0]
    assert len(table.splitlines()) == 5
    for name in ("data.source", "data.file"):
        assert "  %s: " % name.split(".")[1] in config
    with open("flowers.csv", "w") as f:
        f.write(table)
    with open("mine.yaml", "w") as f:
        f.write(config)
    places = ["--set", "data.source=" + os.path.abspath("flowers.csv"),
              "--set", "data.file=" + os.path.abspath("flowers.h5")]
    out = finetune("--check-data", *places)
    assert out.returncode == 0 and "4 rows of 4 features" in out.stderr, out
    assert "train/features: f32 [3, 4]" in out.stdout and "runs" not in os.listdir("."), out.stdout
    run = Run("run", "--config", "mine.yaml", *places)
    assert run.finish()["steps"] > 0
    changed = "the data are others now than the run in"
    for row in ("", "5.0,3.4,1.5,0.2,setosa\n"):
        with open("flowers.csv", "a") as f:
            f.write(row)
        again = Run("run", "--config", "mine.yaml", *places)
        assert again.wait() == 0 and (changed in again.output()) == (row != ""), again.output()


@limit(120)
def test_bad_tables_keep_the_old_file():
    features, kinds = flowers(60)
    os.mkdir("arrays")

    def refused(kind, source, *words, prepare=""):
        pipeline(kind, source, prepare)
        out = finetune("--run", os.path.abspath("bad"))
        sentences = [line for line in out.stderr.splitlines() if line.startswith("prepare ")]
        assert out.returncode == 100 and len(sentences) == 1, (words, out)
        assert all(w in sentences[0] for w in words), (words, sentences[0])
        assert open("mine.h5", "rb").read() == before, "the old file was touched"
        assert not [n for n in os.listdir(".") if ".tmp" in n]

    csv_write("trees.csv", features, kinds)
    pipeline("csv", "trees.csv")
    assert finetune("--check-data").returncode == 0
    before = open("mine.h5", "rb").read()
    good = open("trees.csv", "rb").read().splitlines(keepends=True)
    for spoil, words in ((lambda v: v[:9] + [b"1,2,3,oak\n"] + v[9:], ("line 10", "4 columns", "expected 5")),
                         (lambda v: v[:9] + [b"1,2,x,4,oak\n"], ("line 10", "column 3", "leaf, length", '"x"')),
                         (lambda v: v[:9] + [b"1,inf,3,4,oak\n"], ("line 10", "column 2", "width", "inf")),
                         (lambda v: v[:9] + [b"1,nan,3,4,oak\n"], ("line 10", "column 2", "prepare.missing")),
                         (lambda v: v[:9] + [b'1,2,3,4,"oak\n'], ("line 10", "column 5", "does not end")),
                         (lambda v: v[:1], ("0 usable rows",)),
                         (lambda v: [], ("no row",)),
                         (lambda v: [b"".join(v).decode().encode("utf-16")], ("UTF-16",))):
        with open("bad.csv", "wb") as f:
            f.writelines(spoil(good))
        refused("csv", "bad.csv", "bad.csv", *words)
    refused("csv", "absent.csv", "absent.csv", "No such file")
    refused("csv", "arrays", "not a regular file")
    refused("csv", "trees.csv", "no column", "shrub", "height", prepare="target: shrub")

    def arrays(x, y):
        numpy.save("arrays/features.npy", x)
        numpy.save("arrays/targets.npy", y)
    nan = features.copy()
    nan[7, 2] = numpy.nan
    for x, y, words in ((features[:-1], kinds, ("59 rows", "60")),
                        (features, kinds.astype("f4"), ("targets.npy", "whole number")),
                        (nan, kinds, ("features.npy", "row 7", "value 2", "NaN")),
                        (numpy.asfortranarray(features), kinds, ("Fortran",)),
                        (features.astype(">f4"), kinds, (">f4",)),
                        (features.astype("f8") * 1e39, kinds, ("row 0", "too large"))):
        arrays(x, y)
        refused("npy", "arrays", *words)
    arrays(features, kinds)
    whole = open("arrays/features.npy", "rb").read()
    with open("arrays/features.npy", "wb") as f:
        f.write(whole[:-4])
    refused("npy", "arrays", "956 bytes behind its header", "announces 960")
    # Nothing of ours: not replaced, not even when asked to rebuild.
    before = b"mine"
    with open("mine.h5", "wb") as f:
        f.write(before)
    refused("csv", "trees.csv", "mine.h5", "not made by prepare")
    pipeline("csv", "trees.csv")
    assert finetune("--rebuild-cache", "--check-data").returncode == 100
    assert open("mine.h5", "rb").read() == before


@limit(60)
def test_damaged_cache_is_said_to_be_damaged_and_rebuilt_when_told_to():
    csv_write("trees.csv", *flowers(60))
    pipeline("csv", "trees.csv")
    assert finetune("--check-data").returncode == 0
    whole = open("mine.h5", "rb").read()
    with open("mine.h5", "wb") as f:
        f.write(whole[:len(whole) // 2])
    out = finetune("--check-data")
    assert out.returncode == 100 and "mine.h5 is damaged" in out.stderr and "--rebuild-cache" in out.stderr, out
    assert os.path.getsize("mine.h5") == len(whole) // 2
    out = finetune("--check-data", "--rebuild-cache")
    assert out.returncode == 0 and open("mine.h5", "rb").read() == whole, out


@limit(60)
def test_cache_is_rebuilt_when_source_or_options_change():
    features, kinds = flowers(60)
    csv_write("trees.csv", features, kinds)
    pipeline("csv", "trees.csv")

    def is_made_anew(*arguments):
        out = finetune("--check-data", *arguments)
        assert out.returncode == 0, out
        return "up to date" not in out.stderr

    assert is_made_anew()
    assert not is_made_anew()
    assert is_made_anew("--rebuild-cache")
    assert is_made_anew("--set", "prepare.split=last")
    assert not is_made_anew("--set", "prepare.split=last")
    csv_write("trees.csv", features[:50], kinds[:50])
    assert is_made_anew("--set", "prepare.split=last")


@limit(60)
def test_a_file_that_a_run_uses_is_not_made_anew():
    csv_write("trees.csv", *flowers(600))
    pipeline("csv", "trees.csv")
    other = ("--set", "prepare.split=last")
    run = Run("run", "--config", "mine.yaml", "--set", "tasks.A.epochs=100000", "--set", "loader.persistent_workers=false")
    run.until(lambda: "loss" in run.output(), "no step")
    whole = open("mine.h5", "rb").read()
    out = finetune("--check-data", *other)
    assert out.returncode == 100 and "mine.h5 is in use by a run or another program, so it is not made anew" in out.stderr, out
    out = finetune("--check-data")  # as it is it serves others too
    assert out.returncode == 0 and "up to date" in out.stderr, out
    assert open("mine.h5", "rb").read() == whole
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.wait() == 143, run.output()
    out = finetune("--check-data", *other)
    assert out.returncode == 0 and "up to date" not in out.stderr, out


@limit(60)
def test_check_data_says_what_would_stop_a_run():
    def checked(change, code, *words, settings=(), **options):
        rng = numpy.random.default_rng(1)
        with h5py.File("mine.h5", "w") as f:
            for split in ("train", "validation"):
                f.create_dataset(split + "/features", data=rng.normal(size=(300, 20)).astype(">f8"),
                                 chunks=(64, 20), compression="gzip", fletcher32=True)
                f.create_dataset(split + "/targets", data=numpy.arange(300, dtype="i8") % 3)
            change(f)
        pipeline("none", "none", **options)
        out = prepared("check", *settings, out=()) if settings else finetune("--check-data")
        text = out.stdout + out.stderr
        assert out.returncode == code and all(w in text for w in words), (words, out)

    def value(f, row, v):
        f["train/features"][row, 4] = v

    def copies(f):
        f["train/features"][100:107] = f["validation/features"][:7]
    checked(lambda f: None, 0, "train/features: f64 [300, 20]", "NaN 0", "0: 100, 1: 100, 2: 100",
            "equal rows: 0 of 300")
    checked(copies, 0, "equal rows: 7 of 300")
    checked(lambda f: value(f, 123, numpy.nan), 100, "NaN 1, infinite 0", "row 123")
    checked(lambda f: value(f, 5, 1e300), 100, "NaN 0, infinite 1", "row 5")
    checked(lambda f: f["train/targets"].__setitem__(77, -1), 100, "class -1", "row 77")
    checked(lambda f: None, 100, "classes up to 2 and the model 2 outputs", outputs=2)
    checked(lambda f: f.__delitem__("validation/features"), 100, "no data set validation/features")

    def lzf(f):
        values = f["train/features"][:]  # too random to become smaller: stored as they are, the filter left out
        del f["train/features"]
        f.create_dataset("train/features", data=values, chunks=(64, 20), compression="lzf")
    checked(lzf, 100, "train/features in", "is stored with filter 32000 (lzf), which libhdf5 has only as a plugin")
    checked(lambda f: f.__delitem__("train"), 100, "no data set train/features")

    def weights(f, name="train", row=7, weight=1., rest=1.):
        for split in ("train", "validation"):
            f[split + "/w"] = numpy.full(300, rest if split == name else 1., "f4")
        f[name + "/w"][row] = weight

    def missing(f):
        weights(f, "validation", weight=0.)  # the one that is there weighs nothing
        f["validation/targets"][:] = -100
        f["validation/targets"][7] = 1
    named = {"settings": ("data.weights=w", "model.missing_targets=true")}
    checked(lambda f: weights(f, weight=2.), 0, "train/w: f32 [300], values 1 to 2, NaN 0", **named)
    checked(lambda f: None, 100, "train: there is no data set `w`, which data.weights names", **named)
    checked(lambda f: f.create_dataset("train/w", data=numpy.ones(299)), 100, "299 rows, where there are 300", **named)
    checked(lambda f: f.create_dataset("train/w", data=numpy.ones((300, 2))), 100, "train: its weights are 2 values a row; accepted", **named)
    checked(lambda f: weights(f, weight=-1.), 100, "train/w has a weight in row 7 that is negative", **named)
    checked(lambda f: weights(f, weight=numpy.nan), 100, "a weight in row 7 that is no finite float32", **named)
    checked(lambda f: weights(f, weight=0., rest=0.), 100, "train: none of the 300 rows has a target that counts", **named)
    checked(missing, 100, "validation: none of the 300 rows has a target that counts", **named)

    def begins(f, rows):
        f["validation/begins"] = numpy.asarray(rows)
    goes_on = {"settings": ("data.stateful=true", "data.shuffle=false")}
    checked(lambda f: begins(f, numpy.arange(300, dtype="u2") % 100 // 99), 0, "validation/begins: u16 [300], 3 rows begin", **goes_on)
    checked(lambda f: begins(f, numpy.ones(299, "u1")), 100, "299 rows, where 300 rows begin or go on", **goes_on)
    checked(lambda f: begins(f, numpy.ones(300)), 100, "expected one unsigned number a row", **goes_on)
    checked(lambda f: begins(f, numpy.ones(300, bool)), 100, "begins is one unsigned number a row", **goes_on)


@limit(60)
def test_check_data_says_what_the_plan_would_refuse():
    rng = numpy.random.default_rng(1)

    def written(name, features, targets):
        with h5py.File(name, "w") as f:
            for split in ("train", "validation"):
                f[split + "/features"], f[split + "/targets"] = features, targets
    x, classes = rng.normal(size=(300, 8)).astype("f4"), numpy.arange(300) % 3
    written("seven.h5", x[:, :7], classes)

    def checked(code, *words, features=x, targets=classes, layers="[{type: linear, out: 3}]", settings=(), others="", run=0):
        written("mine.h5", features, targets)
        with open("mine.yaml", "w") as f:
            f.write("data: {file: %s}\nmodel:\n  layers: %s\ntasks:\n  - {name: A}\n%s" % (os.path.abspath("mine.h5"), layers, others))
        out = finetune("--check-data", *(w for s in settings for w in ("--set", s)))
        assert out.returncode == code and all(w in out.stderr for w in words), (words, out)
        assert "equal rows" in out.stdout and "MiB" not in out.stdout, out  # what it looked at, and no plan
        assert len(out.stderr.splitlines()) == (code != 0), out
        if run:  # says the same
            told = Run(run, "--config", "mine.yaml", *(w for s in settings for w in ("--set", s)))
            assert told.wait() == 100 and out.stderr.split(": ", 1)[1].strip() in told.output(), (out.stderr, told.output())
    checked(0)
    checked(100, "are not 3 equal steps", layers="[{type: sequence, steps: 3}, {type: lstm, out: 4}, {type: pool, kind: last}, {type: linear, out: 3}]")
    checked(100, "(gcn)", layers="[{type: gcn, out: 4}, {type: pool, kind: mean}, {type: linear, out: 3}]")
    checked(100, "/features", features=x.reshape(300, 2, 2, 2))
    checked(100, "8 values a row", "with 7", others="  - {name: B, file: %s}\n" % os.path.abspath("seven.h5"))
    checked(100, "memory.host_limit_mb is 20 MiB", settings=("memory.host_limit_mb=20",))
    checked(100, "have 4 weights", settings=("model.target_weights=1,2,3,4",))
    steps = "[{type: sequence, steps: 4}, {type: lstm, out: 4}, {type: linear, out: 3}]"
    checked(100, "one integer class a row for each of the 4 steps", layers=steps, run="steps")
    checked(100, "values a row and the model has 12 outputs", layers=steps, targets=x[:, :3], run="values",
            settings=("model.loss=mean_squared_error",))
    checked(100, "of type f32, and the model's first layer, an embedding, takes tokens", run="floats",
            layers="[{type: embedding, count: 9, out: 4}, {type: pool, kind: mean}, {type: linear, out: 3}]")
    checked(100, "ends with one of 1 row", layers="[{type: batchnorm}, {type: linear, out: 3}]", run="one",
            settings=("training.batch_size=23",))
    checked(100, "drop_last leaves nothing", settings=("data.drop_last=true", "training.batch_size=301"), run="none")
    checked(100, "fisher_labels is all", targets=x[:, :3], others="  - {name: B, from: A, ewc: [A]}\n",
            settings=("model.loss=l1", "continual_learning.ewc_config.fisher_labels=all"))
    checked(100, "model.pretrained: cannot open", settings=("model.pretrained=" + os.path.abspath("gone.h5"),), run="gone")


def slopes(rows=600):
    """Features, and two numbers that follow from them."""
    rng = numpy.random.default_rng(7)
    x = rng.normal(size=(rows, 3))
    return x, numpy.stack([x[:, 0] - 2 * x[:, 1], abs(x[:, 2])], 1)


@limit(120)
def test_csv_values_are_learned():
    """A regression from a table to a finished run: the metric, which epoch is best, EWC of a second task."""
    x, y = slopes()
    numpy.savetxt("slopes.csv", numpy.hstack([x, y]), delimiter=",", header="a,b,c,sum,size", comments="")
    pipeline("csv", "slopes.csv", "task: values, target: 'sum,size', validation_fraction: 0.2", outputs=2)
    with open("mine.yaml", "a") as f:
        f.write("  - {name: B, epochs: 1, from: A, ewc: [A]}\ncontinual_learning: {ewc_config: {fisher_samples: 200}}\n")
    out = finetune("--check-data")
    assert out.returncode == 100 and "float values" in out.stderr, out
    squared = ("--config", "mine.yaml", "--set", "model.loss=mean_squared_error")
    assert finetune("--check-data", *squared[2:]).returncode == 0
    out = finetune("--check-data", "--set", "model.loss=binary_cross_entropy")
    assert out.returncode == 100 and "takes 0 to 1" in out.stderr, out
    run = Run("squared", *squared)
    a, b = run.finish()["tasks"]
    assert a["metric"] == b["metric"] == "r2" and a["after_own_training"] > 0.8, run.output()[-2000:]
    # from the table at the end: the display may have come too late for all of so short a run
    assert os.path.exists(run.path("fisher/A.h5")) and re.search(r"\br2 +0\.", run.output()), run.output()[-2000:]
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        assert b"loss=mean_squared_error\n" in f.attrs["model"]
    run = Run("huber", *squared[:2], "--set", "model.loss=huber", "--set", "model.huber_delta=0.5", "--set",
              "training.learning_rate=0.1", "--set", "tasks.A.epochs=120")
    assert run.finish()["tasks"][0]["metric"] == "mae"
    maes = [float(v) for v in re.findall(r"A after A epoch \d+: mae ([0-9.]+),", run.output())]
    with h5py.File(run.path("checkpoints/best-A.h5")) as f:
        best = f.attrs["best_value"] if f.attrs["task"] == 0 else float(bytes(f["results"][:]).split(b"\t")[3])
        assert b"loss=huber delta=0.5\n" in f.attrs["model"] and f.attrs["metric"] == b"mae"
    # the display may have come too late for the first epochs, which are not the best: hence so many
    assert len(maes) > 2 and abs(best - min(maes)) <= 1e-3 * best, (best, maes)
    run = Run("wrong", *squared, "--set", "training.metric=accuracy")
    assert run.wait() == 100 and "accepted: loss, r2, r2_zero, mae, cosine" in run.output(), run.output()
    run = Run("classes", *squared[:2])
    assert run.wait() == 100 and "takes one integer class a row" in run.output(), run.output()


@limit(60)
def test_two_classes_train_as_one_logit():
    """Classes 0 and 1 of a table are targets of binary_cross_entropy as they are."""
    x, y = slopes()
    numpy.savetxt("sides.csv", numpy.hstack([x, (y[:, :1] > 0)]), delimiter=",", fmt=["%.6f"] * 3 + ["%d"])
    pipeline("csv", "sides.csv", "header: no", outputs=1)
    settings = ("--set", "model.loss=binary_cross_entropy")
    assert finetune("--check-data", *settings).returncode == 0
    report = Run("run", "--config", "mine.yaml", *settings).finish()
    assert report["tasks"][0]["metric"] == "accuracy" and report["tasks"][0]["final"] > 0.9, report
    ask = [os.path.join(ROOT, "pipelines/predict.sh"), "--run", "run", "--data", "sides.csv", "--out", "said.csv"]
    subprocess.run(ask, check=True, capture_output=True)
    said = numpy.loadtxt("said.csv", delimiter=",", skiprows=1)
    with open("said.csv") as f:
        assert f.readline() == "row,p_1\n"  # of class 1
    assert ((said[:, 1] > 0.5) == (y[:, 0] > 0)).mean() > 0.9
    with open("sides.csv") as f, open("words.csv", "w") as g:
        g.writelines(line[:-2] + ("no\n", "yes\n")[line[-2] == "1"] for line in f)
    pipeline("csv", "words.csv", "header: no", outputs=1)
    Run("words", "--config", "mine.yaml", *settings, "--set", "data.file=" + os.path.abspath("words.h5")).finish()
    ask[2], ask[4] = "words", "words.csv"
    subprocess.run(ask, check=True, capture_output=True)
    with open("said.csv") as f:
        assert f.readline() == "row,yes\n"


@limit(120)
def test_series_are_learned_step_by_step():
    """[N, T, F] arrays as sequences: an lstm and residual layers from the pipeline file to the end, EWC included."""
    rng = numpy.random.default_rng(11)
    x = rng.normal(size=(500, 8, 3)).astype("f4")
    os.mkdir("arrays")
    numpy.save("arrays/features.npy", x)
    numpy.save("arrays/targets.npy", numpy.stack([x[:, :, 0].mean(1), x[:, -1, 1]], 1))
    pipeline("npy", "arrays", "task: values, validation_fraction: 0.2", outputs=2)
    with open("mine.yaml", "a") as f:
        f.write("""  - {name: B, epochs: 1, from: A, ewc: [A]}
continual_learning: {ewc_config: {fisher_samples: 100}}
model:
  loss: mean_squared_error
  layers:
    - {type: sequence, steps: 8}
    - {type: lstm, out: 12, bidirectional: true}
    - {type: residual_begin}
    - {type: layernorm}
    - {type: linear, out: 24}
    - {type: gelu}
    - {type: residual_end}
    - {type: pool, kind: mean}
    - {type: linear, out: 2}
""")
    text = open("mine.yaml").read()
    with open("mine.yaml", "w") as f:  # without the layers that pipeline() wrote
        f.write(text.replace(text[text.index("model:\n"):text.index("training:")], "", 1))
    assert finetune("--check-data").returncode == 0
    run = Run("run", "--config", "mine.yaml", "--set", "tasks.A.epochs=12", "--set", "training.slice_rows=16")
    report = run.finish()
    plan_check(report)
    a, b = report["tasks"]
    assert a["metric"] == "r2" and a["after_own_training"] > 0.8, run.output()[-2000:]
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        assert f["parameters/1.weight_hh_l0_reverse"].shape == (48, 12)
    with open("mine.yaml") as f:
        text = f.read()
    with open("mine.yaml", "w") as f:
        f.write(text.replace("steps: 8", "steps: 7"))
    run = Run("odd", "--config", "mine.yaml")
    assert run.wait() == 100 and "24 values a row (1 x 24) are not 7 equal steps" in run.output(), run.output()


@limit(120)
def test_wide_layers_on_several_threads_take_what_is_planned():
    """Whatever threads pack the operands of products into is little, and no thread's heap keeps any."""
    rng = numpy.random.default_rng(5)
    kinds = rng.integers(0, 3, 2600)
    os.mkdir("arrays")
    numpy.save("arrays/features.npy", (rng.normal(size=(2600, 2400)) + kinds[:, None]).astype("f4"))
    numpy.save("arrays/targets.npy", kinds)
    pipeline("npy", "arrays", "validation_fraction: 0.2")
    wide = "[{type: linear, out: 512}, {type: relu}, {type: linear, out: 3}]"
    with open("mine.yaml") as f:
        text = re.sub(r"  layers:\n(    - .*\n)+", "  layers: " + wide + "\n", f.read())
    with open("mine.yaml", "w") as f:
        f.write(text)
    plan_check(Run("wide", "--config", "mine.yaml", "--set", "training.batch_size=512", "--set", "training.threads=4",
                   "--set", "loader.use_chunk_loader=false", "--set", "tasks.A.epochs=2").finish(), ("trainerd",))


def test_a_signal_while_data_are_prepared_ends_all():
    """prepare, which holds the run's lock, too: it waits here for rows that do not come."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup a shell could not hear it
    os.mkfifo("slow.csv")
    pipeline("csv", "slow.csv")
    for sign, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)):
        run = Run("run", "--config", "mine.yaml")
        run.until(lambda: any("csv" in words for words in processes_naming(run.directory[:-4])), "prepare did not start")
        run.process.send_signal(sign)
        assert run.wait(20) == code, run.output()
        assert not processes_naming(run.directory[:-4]), processes_naming(run.directory[:-4])
