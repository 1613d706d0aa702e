"""predict.sh: rows that are prepared as the run's data were, of tables, molecules and files made by hand: what is accepted,
what is refused, and what classes and targets are called."""
import csv
import os
import shutil
import subprocess

from harness import limit, skip
from predict_run import command, f1_macro, network, predict, refused, small
from small_run import CLASSES, ROOT, SmallRun, trained

try:
    import h5py
    import numpy as np
except ImportError:
    h5py = None


FLOWERS = """name: flowers
data: {prepare: csv, source: flowers.csv, file: flowers.h5}
prepare: {target: species, normalise: standard, validation_fraction: 0.25}
model:
  layers:
    - {type: linear, out: 8}
    - {type: relu}
    - {type: linear, out: 3}
training: {batch_size: 32, threads: 2, learning_rate: 1e-2}
tasks:
  - {name: first, epochs: 60}
"""


def flowers_write(path, rows, with_species=True, names=("length", "width", "height")):
    with open(path, "w") as f:
        f.write(",".join(names + ("species",) * with_species) + "\n")
        for values, species in rows:
            f.write(",".join(["%.6g" % v for v in values] + [species] * with_species) + "\n")


KINDS = ("iris", "rose", "tulip")
PREPARE = os.path.join(ROOT, "build/release/bin/prepare")


def prepared_trained(name, kind, pipeline):
    """A run of NAME.yaml, which is the pipeline, on NAME.h5, made by `prepare KIND`."""
    with open(name + ".yaml", "w") as f:
        f.write(pipeline)
    subprocess.run([PREPARE, kind, "--config", name + ".yaml", "--out", name + ".h5"], check=True)
    run = SmallRun("run", name + ".h5", pipeline=pipeline)
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")
    return run


def flowers_trained():
    """A run of flowers.yaml, and its rows."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    random = np.random.default_rng(8)
    rows = [(random.normal((20 + 9 * k, 300 - 80 * k, 4), (2, 20, 1)), KINDS[k]) for k in random.integers(0, 3, 240)]
    flowers_write("flowers.csv", rows)
    return prepared_trained("flowers", "csv", FLOWERS), rows


@limit(180)
def test_new_rows_follow_what_the_run_keeps_of_its_data():
    run, rows = flowers_trained()
    flowers_write("new.csv", rows[:20])

    def classes():
        predict(run, data="new.csv")
        with h5py.File("out.h5") as f:
            assert f.attrs["accuracy"] > 0.9, dict(f.attrs)
            return f["outputs"][:]
    said = classes()
    with h5py.File(run.path("prepared/first.h5")) as kept, h5py.File("flowers.h5") as f:
        assert kept["validation/features"].shape == (0, 3) and kept.attrs["classes"] == f.attrs["classes"]
        assert np.array_equal(kept["normalise/mean"][:], f["normalise/mean"][:])
    os.rename("flowers.h5", "old.h5")
    assert np.array_equal(classes(), said)  # without the file
    other = [(10 * values, "azalea") for values, _ in rows[:80]]  # other means, and class 0 is another one
    flowers_write("flowers.csv", rows + other)
    subprocess.run([PREPARE, "csv", "--config", "flowers.yaml", "--out", "flowers.h5"], check=True)
    assert np.array_equal(classes(), said)
    said_no = refused(run, data="flowers.h5", out="x.h5")  # class 1 of it is what was 0
    assert "classes of" in said_no and 'number 0 is "azalea" and there "iris"' in said_no, said_no
    flowers_write("flowers.csv", [(values + values[1] / 7, kind) for values, kind in rows])
    subprocess.run([PREPARE, "csv", "--config", "flowers.yaml", "--out", "flowers.h5"], check=True)
    done = subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), "--run", run.directory, "--out", "x.h5"],
                          capture_output=True, text=True)
    assert done.returncode == 100 and "are normalised otherwise, or not" in done.stderr, done
    assert len(done.stderr.splitlines()) == 1 and not os.path.exists("x.h5"), done
    predict(run, data="flowers.csv", out="x.h5")
    os.remove("x.h5")
    again = [PREPARE, "run", "--config", "flowers.yaml", "--run", run.directory]
    subprocess.run([*again, "--set", "data.file=" + os.path.abspath("flowers.h5")], check=True)
    assert np.array_equal(classes(), said)  # what is kept is of what it was trained on
    # a run that keeps nothing
    os.remove(run.path("prepared/first.h5"))
    said_no = refused(run, data="new.csv", out="x.h5")
    assert "was prepared anew since (fingerprint" in said_no and "flowers.h5" in said_no, said_no
    os.rename("old.h5", "flowers.h5")
    assert np.array_equal(classes(), said)
    os.remove("flowers.h5")
    assert "flowers.h5" in refused(run, data="new.csv", out="x.h5")


@limit(180)
def test_each_task_keeps_what_its_own_file_has():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    random = np.random.default_rng(3)
    pipeline = FLOWERS[:FLOWERS.index("tasks:")] + "tasks:\n"
    for i, task in enumerate("AB"):
        rows = [(random.normal(0, 1, 3) * (1 + 9 * i) + 20 * i, KINDS[k]) for k in random.integers(0, 3, 80)]
        flowers_write(task + ".csv", rows)
        pipeline += "  - {name: %s, epochs: 2, source: %s, file: %s}\n" % (
            task, os.path.abspath(task + ".csv"), os.path.abspath(task + ".h5"))
    with open("two.yaml", "w") as f:
        f.write(pipeline)
    for task in "AB":
        subprocess.run([PREPARE, "csv", "--config", "two.yaml", "--task", task, "--out", task + ".h5"], check=True)
    run = SmallRun("run", "A.h5", pipeline=pipeline)
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")
    flowers_write("new.csv", rows[:9])
    values = np.array([["%.6g" % v for v in values] for values, _ in rows[:9]], np.float64)

    def asked(task):
        predict(run, "--task", task, data="new.csv")
        with h5py.File(task + ".h5") as f, h5py.File("out.h5") as out:
            x = (values - f["normalise/mean"][:]) / f["normalise/standard_deviation"][:]
            assert np.abs(out["outputs"][:] - network(run, "task-%s.h5" % task, x)).max() < 1e-4
    for task in "AB":
        asked(task)
    assert "--data-as TASK says as whose" in refused(run, "--last", data="new.csv", out="x.h5")
    predict(run, "--last", "--data-as", "B", data="new.csv", out="last.h5")
    with h5py.File("out.h5") as f, h5py.File("last.h5") as last:
        assert np.array_equal(f["outputs"][:], last["outputs"][:])
    os.rename("B.h5", "of_run.h5")  # what became of it is no matter: it has other columns now
    flowers_write("B.csv", rows, names=("x", "y", "z"))
    subprocess.run([PREPARE, "csv", "--config", "two.yaml", "--task", "B", "--out", "B.h5"], check=True)
    predict(run, "--task", "A", data="new.csv")
    os.rename("of_run.h5", "B.h5")
    shutil.rmtree(run.path("prepared"))
    asked("B")
    os.rename("A.h5", "B.h5")  # of the two files together no other may be one of them
    os.remove("out.h5")
    assert "A.h5" in refused(run, "--task", "B", data="new.csv")


@limit(180)
def test_a_table_is_prepared_as_the_runs_data_were():
    """Rows whose own mean and classes are others: normalised by themselves they would be told wrong."""
    run, rows = flowers_trained()
    roses = [row for row in rows if row[1] != "iris"]  # other mean, fewer classes
    flowers_write("new.csv", roses)
    flowers_write("bare.csv", roses, with_species=False)
    for name in ("new", "bare"):
        out = predict(run, data=name + ".csv", out=name + ".h5")
        assert ("accuracy" in out) == (name == "new"), out
        assert "rows of %s.csv, weights" % os.path.abspath(name) in out, out
    os.rename("new.csv", "NEW.TXT")  # what it is its content tells
    predict(run, data="NEW.TXT", out="new.h5")
    with h5py.File("new.h5") as new, h5py.File("bare.h5") as bare, h5py.File("flowers.h5") as f:
        assert np.array_equal(new["outputs"][:], bare["outputs"][:])
        expected = np.array([KINDS.index(species) for _, species in roses])
        assert (new["classes"][:] == expected).mean() == new.attrs["accuracy"] > 0.95, dict(new.attrs)
        mean, deviation = f["normalise/mean"][:], f["normalise/standard_deviation"][:]
    values = np.array([["%.6g" % v for v in values] for values, _ in roses], np.float64)
    with h5py.File("mine.h5", "w") as f:  # what it must have been
        f["validation/features"] = ((values - mean) / deviation).astype(np.float32)
    predict(run, data="mine.h5", out="again.h5")
    with h5py.File("new.h5") as new, h5py.File("again.h5") as again:
        assert np.array_equal(new["outputs"][:], again["outputs"][:])
    for name in ("new", "bare"):  # prepared by hand
        subprocess.run([PREPARE, "csv", "--config", "flowers.yaml", "--out", "like.h5", "--rebuild", "--set", "data.source=%s" % (
            "NEW.TXT" if name == "new" else "bare.csv"), "--set", "prepare.like=" + run.path("prepared/first.h5")], check=True)
        predict(run, data="like.h5", out="again.h5")
        with h5py.File("new.h5") as new, h5py.File("again.h5") as again:
            assert np.array_equal(new["outputs"][:], again["outputs"][:]) and ("loss" in again.attrs) == (name == "new")
    os.remove("like.h5")
    predict(run, data="bare.csv", out="out.csv")
    predict(run, out="own.csv", data="flowers.h5")
    for name in ("out.csv", "own.csv"):
        with open(name) as f:
            lines = list(csv.reader(f))
        assert lines[0][:4] == ["row", "class", "name", "p_0"], lines[0]
        assert all(l[2] == KINDS[int(l[1])] for l in lines[1:]) and {l[2] for l in lines[1:]} >= set(KINDS[1:])
    os.mkdir("arrays")
    np.save("arrays/features.npy", values)
    np.save("arrays/targets.npy", expected)
    assert "is none of those of" in refused(run, data="arrays", out="x.h5")  # numbers where texts were numbered
    numbers = FLOWERS.replace("csv", "npy").replace("source: flowers.npy", "source: numbers")
    with open("numbers.yaml", "w") as f:
        f.write(numbers)
    os.mkdir("numbers")
    np.save("numbers/features.npy", np.array([v for v, _ in rows]))
    np.save("numbers/targets.npy", np.array([KINDS.index(k) for _, k in rows]))
    subprocess.run([PREPARE, "npy", "--config", "numbers.yaml", "--out", "numbers.h5"], check=True)
    subprocess.run([PREPARE, "npy", "--config", "numbers.yaml", "--out", "like.h5", "--set", "data.source=arrays",
                    "--set", "prepare.like=numbers.h5"], check=True)
    with h5py.File("numbers.h5") as a, h5py.File("like.h5") as b:
        x = (values - a["normalise/mean"][:]) / a["normalise/standard_deviation"][:]
        assert np.array_equal(b["validation/features"][:], x.astype(np.float32)) and "train" not in b
        assert np.array_equal(b["validation/targets"][:], expected) and b.attrs["class_count"] == 3
    os.remove("arrays/targets.npy")
    predict(run, data="arrays", out="again.h5")
    with h5py.File("new.h5") as new, h5py.File("again.h5") as again:
        assert np.abs(new["outputs"][:] - again["outputs"][:]).max() < 1e-6 and "loss" not in again.attrs
    # what is not alike
    flowers_write("order.csv", roses, names=("width", "length", "height"))
    assert 'feature 0 of' in (said := refused(run, data="order.csv", out="x.h5")) and '"width"' in said, said
    flowers_write("kind.csv", [(roses[0][0], "orchid")])
    assert 'the class "orchid" is none of those' in refused(run, data="kind.csv", out="x.h5")
    with open("narrow.csv", "w") as f:
        f.write("length,species\n3,rose\n")
    assert "has 1 features a row" in refused(run, data="narrow.csv", out="x.h5")
    for names, what in ((("length", "width"), 'feature 2 is "height" there and not here'),
                        (("length", "width", "colour", "height"), 'feature 2 is "height" there and "colour" here'),
                        (("length", "width", "height", "colour"), '"colour" is none of those')):
        with open("count.csv", "w") as f:  # without the target's column
            f.write(",".join(names) + "\n" + ",".join("1234"[:len(names)]) + "\n")
        said = refused(run, data="count.csv", out="x.h5")
        assert "has %d features a row" % len(names) in said and what in said, said
    flowers_write("none.csv", [])
    assert "none.csv has no row; at least one is needed" in refused(run, data="none.csv", out="x.h5")
    for words, files, what in (((), {"data": "bare.csv", "out": "bare.csv"}, "is the data file"),
                               ((), {"data": "bare.csv", "out": "flowers.h5"}, "the run was trained on"),
                               (("--checkpoint", "w.h5"), {"data": "bare.csv", "out": "w.h5"}, "the file of the weights")):
        shutil.copy(run.path("checkpoints/task-first.h5"), "w.h5")
        with open(files["out"], "rb") as f:
            before = f.read()
        done = subprocess.run(command(run, *words, **files), capture_output=True, text=True)
        assert done.returncode == 100 and what in done.stderr and len(done.stderr.splitlines()) == 1, done
        with open(files["out"], "rb") as f:
            assert f.read() == before
    with open("count.csv", "w") as f:  # a delimiter at the end makes a column
        f.write("length,width,height,\n1,2,3,\n")
    said = refused(run, data="count.csv", out="x.h5")
    assert 'has 4 features a row' in said and '; "" is none of those' in said, said
    assert "leave --split out" in refused(run, "--split", "train", data="bare.csv", out="x.h5")
    assert "accepted is the directory" in refused(run, data="arrays/features.npy", out="x.h5")
    os.mkdir("empty")
    assert "holds no features.npy" in refused(run, data="empty", out="x.h5")
    config = run.path("pipeline.yaml")
    with open(config) as f:
        text = f.read()
    with open(config, "w") as f:
        f.write(text.replace("prepare: csv", "prepare: text"))
    said = refused(run, data="order.csv", out="x.h5")
    assert "is not an HDF5 file" in said and "was text" in said, said
    small_run, _, _ = trained("plain")  # whose data prepare did not make
    said = refused(small_run, "--task", "A", data="order.csv", out="x.h5")
    assert "cannot be prepared as those of the run" in said and "data.h5 was not made by prepare" in said, said
    assert "ask with an HDF5 file of its layout" in said and "attribute" not in said, said


@limit(180)
def test_no_row_is_left_out_and_a_target_may_be_missing():
    run, rows = flowers_trained()
    config = run.path("pipeline.yaml")
    with open(config) as f:
        text = f.read()
    with open(config, "w") as f:  # the run's own rows were dropped where they were not whole
        f.write(text.replace("missing: error", "missing: drop"))
        assert "missing: error" in text
    rows = rows[:20]
    flowers_write("whole.csv", rows)
    predict(run, data="whole.csv", out="whole.h5")
    some = [(v, kind if i % 3 else ("", "NA", "nan", "-1")[i // 3 % 4]) for i, (v, kind) in enumerate(rows)]
    flowers_write("some.csv", some)
    out = predict(run, data="some.csv", out="some.h5")
    flowers_write("known.csv", [row for row in some if row[1] in KINDS])
    predict(run, data="known.csv", out="known.h5")
    flowers_write("none.csv", [(v, "") for v, _ in rows])
    out = predict(run, data="none.csv", out="none.h5")
    assert "none of the rows has a target that counts" in out, out
    os.mkdir("arrays")
    values = np.array([["%.6g" % v for v in v] for v, _ in rows], np.float64)
    with h5py.File("whole.h5") as w, h5py.File("some.h5") as s, h5py.File("known.h5") as k, h5py.File("none.h5") as n:
        assert np.array_equal(w["outputs"][:], s["outputs"][:]) and np.array_equal(w["outputs"][:], n["outputs"][:])
        assert abs(s.attrs["loss"] / k.attrs["loss"] - 1) < 1e-6 and s.attrs["accuracy"] == k.attrs["accuracy"]
        assert "loss" not in n.attrs and w.attrs["model"] == s.attrs["model"]
        assert s.attrs["f1_macro"] == k.attrs["f1_macro"]
    os.remove("some.h5")
    # the same of an HDF5 file of the layout
    with h5py.File("flowers.h5") as f, h5py.File("mine.h5", "w") as m:
        x = (values - f["normalise/mean"][:]) / f["normalise/standard_deviation"][:]
        m["validation/features"] = x.astype(np.float32)
        m["validation/targets"] = np.array([KINDS.index(k) if k in KINDS else -1 for _, k in some], np.int8)
    predict(run, data="mine.h5", out="some.h5")
    with h5py.File("some.h5") as s, h5py.File("known.h5") as k:
        assert abs(s.attrs["loss"] / k.attrs["loss"] - 1) < 1e-6
    # a feature must be there
    holes = [(v.copy(), kind) for v, kind in rows]
    holes[5][0][1] = np.nan
    flowers_write("holes.csv", holes)
    said = refused(run, data="holes.csv", out="x.h5")
    assert "line 7, column 2 (width)" in said and "none is left out" in said and "drop" not in said, said
    np.save("arrays/features.npy", np.array([v for v, _ in holes]))
    said = refused(run, data="arrays", out="x.h5")
    assert "row 5, value 1 is NaN" in said and "none is left out" in said and "drop" not in said, said


@limit(60)
def test_a_class_below_0_is_missing_unless_the_run_knows_it():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    rows, source = np.arange(12), {"npy": "arrays", "csv": "table"}
    with open("t.yaml", "w") as f:
        f.write(FLOWERS.replace("target: species", "target: -1"))

    def made(kind, out, classes, *like):
        os.makedirs("arrays", exist_ok=True)
        np.save("arrays/features.npy", rows[:, None])
        np.save("arrays/targets.npy", classes)
        with open("table", "w") as f:
            f.write("a,kind\n" + "".join("%d,%d\n" % pair for pair in zip(rows, classes)))
        subprocess.run([PREPARE, kind, "--config", "t.yaml", "--set", "data.source=" + source[kind], "--out", out, "--rebuild",
                        *like], check=True)
    for kind in ("npy", "csv"):
        for old, new, wanted in ((rows % 3 * 100 - 100,) * 2 + (rows % 3,), (rows % 3, rows % 3 - 1, rows % 3 - 1)):
            made(kind, "old.h5", old)
            made(kind, "new.h5", new, "--set", "prepare.like=old.h5")
            with h5py.File("new.h5") as f:
                assert np.array_equal(f["validation/targets"][:], wanted) and f.attrs["class_count"] == 3
    for text, code in (("a\n1\n2\n\n\n", 0), ("a\n1\n\n2\n", 100)):  # an empty line may be a row of one column
        with open("table", "w") as f:
            f.write(text)
        done = subprocess.run([PREPARE, "csv", "--config", "t.yaml", "--set", "data.source=table", "--out", "new.h5", "--set",
                               "prepare.like=old.h5", "--rebuild"], capture_output=True, text=True)
        assert done.returncode == code and ("line 3 is empty" in done.stderr) == (code != 0), done


@limit(60)
def test_the_one_task_of_a_run_may_have_a_file_of_its_own():
    small(settings=("tasks.A.epochs=1",))
    os.rename("data.h5", "own.h5")
    run = SmallRun("one", "nowhere.h5", pipeline="""name: one
data: {file: nowhere.h5, scale: 0.01}
model: {layers: [{type: linear, out: %d}]}
tasks: [{name: only, epochs: 1, file: %s}]
""" % (CLASSES, os.path.abspath("own.h5")))
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")
    done = subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), "--run", "one", "--out", "out.h5"],
                          capture_output=True, text=True)
    assert done.returncode == 0 and "rows of %s" % os.path.abspath("own.h5") in done.stdout, done


@limit(60)
def test_values_are_called_as_the_columns_that_they_are_of():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    pipeline = FLOWERS.replace("target: species", "task: values, target: \"last, \\\"of\\\" all\"").replace("out: 3", "out: 1")
    pipeline = pipeline.replace("model:", "model:\n  loss: mean_squared_error").replace("epochs: 60", "epochs: 1")
    random = np.random.default_rng(8)
    rows = [(v, "%g" % v.sum()) for v in random.normal(0, 1, (64, 3))]
    for name in ("flowers.csv", "new.csv"):
        flowers_write(name, rows)
        with open(name) as f:
            text = f.read()
        with open(name, "w") as f:
            f.write(text.replace("species", '"last, ""of"" all"'))
    run = prepared_trained("flowers", "csv", pipeline)
    for data in ("new.csv", "flowers.h5"):
        predict(run, data=data, out="out.csv")
        with open("out.csv") as f:
            assert next(csv.reader(f)) == ["row", 'last, "of" all'], data
    several = [PREPARE, "csv", "--config", "flowers.yaml", "--out", "part.h5", "--set", "prepare.like=flowers.h5", "--set",
               "data.source=new.csv", "--set", "prepare.target=length,colour"]
    done = subprocess.run(several, capture_output=True, text=True)
    assert done.returncode == 100 and 'no column "colour"' in done.stderr and "all targets" in done.stderr, done
    predict(run, data="new.csv")
    with h5py.File("out.h5") as f:
        assert f.attrs["target_names"] == b'last, "of" all' and "times" not in f


MOLECULES = """name: molecules
data: {prepare: molecules, source: t.csv, file: m.h5}
prepare: {descriptors: "rings,heteroatoms", validation_fraction: 0.4, energy: true}
model:
  loss: mean_squared_error
  layers:
    - {type: gcn, out: 8, edges: true}
    - {type: relu}
    - {type: pool, kind: mean_sum}
    - {type: linear, out: 2}
training: {batch_size: 16, threads: 2}
tasks:
  - {name: first, epochs: 2}
"""


@limit(120)
def test_new_molecules_are_prepared_as_the_runs_were():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    if "no chemistry library" in subprocess.run([PREPARE, "molecules", "--help"], capture_output=True, text=True).stderr:
        skip("this system has no libopenbabel-dev")
    smiles = ["C" * (i % 20 + 1) + "ONF"[i // 20] for i in range(60)]

    def write(path, rows, head="name,smiles\n"):
        with open(path, "w") as f:
            f.write(head + "".join("n,%s\n" % row if "," in head else row + "\n" for row in rows))
    write("t.csv", smiles)
    run = prepared_trained("m", "molecules", MOLECULES)
    predict(run, data="m.h5", out="own.h5")
    with h5py.File("m.h5") as f, h5py.File("own.h5") as own:
        rows, said = f["validation/source_row"][:], own["outputs"][:]
    os.remove("m.h5")
    for name, head in (("new.csv", "name,smiles\n"), ("list.smi", "SMILES\n")):
        write(name, [smiles[i] for i in rows], head)
        out = predict(run, data=name)
        assert "no targets" in out and name in out, out
        with h5py.File("out.h5") as f:
            assert np.array_equal(f["outputs"][:], said) and f.attrs["target_names"] == b"rings\nheteroatoms"
    os.remove("out.h5")
    for row, what in (("C(", "new.csv, line 3: cannot become a graph: its "), ("", "line 3: there is no SMILES"), ("C" * 1500, "line 3")):
        write("new.csv", ["CCO", row, "CC"])
        assert what in (told := refused(run, data="new.csv")), told
    with open("new.csv", "w") as f:
        f.write("name,structure\nn,CCO\n")
    assert 'has no column "smiles"' in refused(run, data="new.csv")
