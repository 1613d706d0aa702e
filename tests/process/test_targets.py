"""Targets that are missing or weigh, through a whole run: from the data set named by an option to loss, metric, Fisher
information, evaluation and prediction; and what is refused."""
import os
import subprocess

from harness import limit, skip
from small_run import CLASSES, ROOT, ROWS, SmallRun, data_write, facts, trained
import test_fisherd as fisherd

try:
    import h5py
    import numpy
except ImportError:
    h5py = None

LOSS = ("model.loss=mean_squared_error", "model.missing_targets=true", "model.target_weights=1,2,0.5,1,3",
        "data.weights=weights", "training.slice_rows=16", "training.metric=mae")


def weighed_write(width=1):
    """Values of which a third is missing, and weights of the rows (or of each of them), some of them 0."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    random = numpy.random.default_rng(7)
    targets = random.standard_normal((ROWS, CLASSES)).astype(numpy.float32)
    targets[random.random((ROWS, CLASSES)) < 0.3] = numpy.nan
    data_write("data.h5", targets=targets)
    weights = (random.random((ROWS, width)) * (random.random((ROWS, width)) > 0.2)).astype(numpy.float32)
    with h5py.File("data.h5", "r+") as f:
        for split in ("train", "validation"):
            f[split + "/weights"] = weights[:, 0] if width == 1 else weights


def end(run, task):
    with h5py.File(run.path("checkpoints/task-%s.h5" % task)) as f:
        return f.attrs["parameters_sha256"], bytes(f["results"][:]).decode()


@limit(120)
def test_weighted_targets_give_the_same_bits_however_batches_are_cut():
    weighed_write()
    whole, features, targets = trained("64x1", settings=LOSS)
    with open("w.txt", "w") as f:
        f.write("1\n2\n0.5\n1\n3\n")  # what LOSS has, from a file
    other = trained("16x4", settings=(*LOSS, "model.target_weights=w.txt", "training.batch_size=16",
                                      "training.gradient_accumulation_steps=4"))[0]
    assert end(whole, "B") == end(other, "B")
    plain = trained("plain", settings=LOSS[:2] + LOSS[4:])[0]  # the penalty is of another Fisher information, too
    assert end(whole, "B")[0] != end(plain, "B")[0]
    done = subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), "--run", whole.directory, "--task", "B",
                           "--out", "out.csv"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    metric, value, loss = end(whole, "B")[1].splitlines()[-1].split("\t")[2:5]
    assert metric == "mae" and "loss %.6g" % float(loss) in done.stdout, (done.stdout, loss)
    z = numpy.loadtxt("out.csv", delimiter=",", skiprows=1)[:, 1:]
    with h5py.File("data.h5") as f:
        counts = ~numpy.isnan(targets) & (f["validation/weights"][:][:, None] > 0)
        weights = numpy.where(counts, f["validation/weights"][:][:, None] * [1, 2, 0.5, 1, 3], 0)
    error = numpy.where(counts, z - numpy.nan_to_num(targets), 0)
    assert abs(abs(error).sum() / counts.sum() - float(value)) < 1e-5
    assert abs((weights * error ** 2).sum() / weights.sum() - float(loss)) < 1e-5 * float(loss)


@limit(120)
def test_fisher_information_is_of_the_weighted_mean():
    """Weights ten times as large are the same loss, so the same curvature; rows without targets are as if not there."""
    fisherd.client_needs()
    weighed_write()
    run, features, targets = trained("run", settings=LOSS)
    exact = "fisher_computation.use_compression=false"

    def of(name, change=None, rows=slice(None), *more, others=LOSS):
        with h5py.File("data.h5") as f:
            weights = f["train/weights"][rows] * (change or 1)
        data_write(name + ".h5", features[rows], targets[rows])
        with h5py.File(name + ".h5", "r+") as f:
            f["train/weights"] = f["validation/weights"] = weights.astype(numpy.float32)
        return fisherd.estimated(run, name, exact, *more, weighed=name + ".h5", others=others)
    once, ones = of("once")
    tens, tenfold = of("tens", 10)
    assert fisherd.off(tens, once) < 1e-6 and abs(tenfold["trace"] / ones["trace"] - 1) < 1e-6
    assert 0 < ones["noise"] < 1 and abs(tenfold["noise"] / ones["noise"] - 1) < 1e-5
    assert ones["samples"] == ROWS and ones["blocks"] > 1
    whole, _ = of("whole", None, slice(None), "fisher_computation.block_size=1000000")
    assert numpy.array_equal(whole, once)  # weights that were kept in files or in memory
    factors = [of("factored-%d" % k, k, slice(None), "fisher_computation.estimator=factored")[0] for k in (1, 10)]
    assert fisherd.off(*factors) < 1e-6
    targets = targets.copy()
    alone, _ = of("alone", None, slice(ROWS // 2, None))
    targets[:ROWS // 2] = numpy.nan
    half, attributes = of("half")
    assert attributes["samples"] == ROWS and fisherd.off(half, alone) < 1e-6
    targets[:] = numpy.nan
    assert not of("nothing")[0].any()


def test_the_loss_of_an_epoch_is_of_steps_in_which_something_counts():
    """Of 16 rows each, nearly half of which have no row that weighs; the weights stay (the rate is 0)."""
    weighed_write()
    with h5py.File("data.h5", "r+") as f:
        f["train/weights"][:] *= numpy.random.default_rng(3).random(ROWS) < 0.06
    run, _, _ = trained("run", settings=(*LOSS, "training.batch_size=16", "training.learning_rate=0", "tasks.B.ewc="))
    steps = numpy.fromfile(run.path("lineage"), "<u8,<u8,<u8,<u4,<f4")[:44]  # of task A
    rows = numpy.array([16] * 43 + [12])
    loss, count = steps["f4"], rows[steps["f4"] > 0]
    assert 10 < (loss == 0).sum() < 34
    told = [m["loss"] for m in facts(run, "trainerd", "event.task") if m["task"] == "A" and m["what"] == "epoch-end"]
    assert abs(told[0] / ((loss * rows).sum() / count.sum()) - 1) < 1e-6, told


def refused(directory, *settings):
    with SmallRun(directory, "data.h5", settings=settings) as run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 100, run.log("trainerd")
        return run.log("trainerd")


def test_targets_and_weights_that_cannot_be_used():
    weighed_write(3)
    assert "its weights are 3 values a row; accepted: one for the row, or one for each of its 5" in refused("three", *LOSS)
    weighed_write()
    log = refused("missing", *LOSS[:1])
    assert "or with model.missing_targets a NaN for one that is missing" in log, log
    log = refused("none", *LOSS, "data.weights=nothing")
    assert "train of" in log and "there is no data set `nothing`, which data.weights names" in log, log
    with h5py.File("data.h5", "r+") as f:
        f["validation/targets"][:] = numpy.nan
    log = refused("validation", *LOSS)
    assert "none of the 700 rows has a target that counts" in log and "validation of " in log, log
