"""What the training loop can do, on runs so small that each is interrupted at every checkpoint: they end with the
bits of the undisturbed run, whatever the loop keeps between steps and epochs."""
import os
import struct
import subprocess

from harness import limit, skip
from small_run import BINARIES, PIPELINE, ROWS, SmallRun, data_write, trained

try:
    import h5py
    import numpy
except ImportError:
    h5py = None

OFTEN = "training.checkpoint_every_s=0.01"


def run_whole(directory, *settings):
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    return trained(directory, settings=settings)[0]


def end(run, task):
    """What a task ended with: (digest of the weights, results)."""
    with h5py.File(run.path("checkpoints/task-%s.h5" % task)) as f:
        return f.attrs["parameters_sha256"], bytes(f["results"][:])


def weights(run, task):
    with h5py.File(run.path("checkpoints/task-%s.h5" % task)) as f:
        return {name: f["parameters"][name][:] for name in f["parameters"]}


def lineage(run):
    """(step + 1, task and epoch, position, bits of the loss) of each step; the rows of a micro-batch are left out."""
    with open(run.path("lineage"), "rb") as f:
        return [r[:3] + r[4:] for r in struct.iter_unpack("<QQQII", f.read())]


def run_interrupted(directory, *settings):
    """Each start of trainerd fails at its second commit of a file, so the run is resumed from each of its checkpoints.
    Returns the run and the number of starts."""
    run = SmallRun(directory, "data.h5", ROWS, settings)
    starts, code = 0, 111
    with run:
        run.start("loaderd", "fisherd")
        while code == 111:
            run.start("trainerd", environment={"FINETUNED_FAIL": "rename:2:EIO:once"})
            code, starts = run.wait("trainerd"), starts + 1
            assert starts < 400, run.log("trainerd")[-2000:]
        assert code == 0, run.log("trainerd")[-2000:]
    assert "gave another loss" not in run.log("trainerd")
    return run, starts


def refused(directory, *settings):
    """(exit code, what was said) of a run whose options cannot be used."""
    with open(directory + ".yaml", "w") as f:
        f.write(PIPELINE % (os.path.abspath("data.h5"), 32, 5, ROWS))
    words = [w for s in settings for w in ("--set", s)]
    done = subprocess.run([os.path.join(BINARIES, "prepare"), "run", "--config", directory + ".yaml", "--run", directory,
                           *words], capture_output=True, text=True)
    return done.returncode, done.stderr


def compare(whole, other, tasks="AB"):
    for task in tasks:
        assert end(whole, task) == end(other, task), task
    assert lineage(whole) == lineage(other)


def test_micro_batches_and_accumulation_give_the_same_bits():
    """16 x 4 = 32 x 2 = 64 x 1; the last batch of an epoch has 60 rows, its last slice 12."""
    slices = ("training.slice_rows=16", "tasks.A.epochs=3", "training.scheduler_type=onecycle")
    whole = run_whole("64x1", *slices)
    for rows, steps in ((16, 4), (32, 2)):
        other = run_whole("%dx%d" % (rows, steps), *slices, "training.batch_size=%d" % rows,
                          "training.gradient_accumulation_steps=%d" % steps)
        compare(whole, other)
    assert len(lineage(whole)) == 4 * 11


@limit(180)
def test_an_accumulating_run_interrupted_at_each_checkpoint():
    settings = ("training.slice_rows=16", "training.batch_size=16", "training.gradient_accumulation_steps=4",
                "tasks.A.epochs=3", OFTEN)
    whole = run_whole("whole", *settings)
    run, starts = run_interrupted("interrupted", *settings)
    print("starts:", starts)
    assert starts >= 5
    compare(whole, run)


@limit(180)
def test_sgd_with_a_frozen_backbone_interrupted_at_each_checkpoint():
    """B's frozen layer is A's, in every checkpoint; moments there are of the layer that is trained only."""
    settings = ("training.optimizer=sgd", "training.learning_rate=0.05", "training.backbone_layers=1",
                "training.freeze_backbone=true", "training.scheduler_type=onecycle", "tasks.A.epochs=3", OFTEN)
    whole = run_whole("whole", *settings)
    run, starts = run_interrupted("interrupted", *settings)
    assert starts >= 5
    compare(whole, run)
    a, b = weights(whole, "A"), weights(whole, "B")
    assert numpy.array_equal(a["0.weight"], b["0.weight"]) and not numpy.array_equal(a["2.weight"], b["2.weight"])
    with h5py.File(whole.path("checkpoints/task-B.h5")) as f:
        assert sorted(f["moments/m"]) == ["2.bias", "2.weight"] and "v" not in f["moments"]


def test_a_backbone_with_a_rate_of_its_own():
    """At a rate 1000 times smaller the backbone moves about so much less."""
    moved = {}
    start = run_whole("start", "training.learning_rate=0")
    for rate in ("auto", "1e-6"):
        run = run_whole("rate-" + rate, "training.backbone_layers=1", "training.backbone_lr=" + rate,
                        "training.weight_decay=0")
        change = [numpy.abs(weights(run, "A")[n] - weights(start, "A")[n]).max() for n in ("0.weight", "2.weight")]
        moved[rate] = change
    assert 300 < moved["auto"][0] / moved["1e-6"][0] < 3000, moved
    assert 0.3 < moved["auto"][1] / moved["1e-6"][1] < 3, moved


def test_settings_of_the_optimizer_that_do_not_go_together():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    for settings, sentence in (
            (("training.nesterov=true",), "goes with training.optimizer: sgd"),
            (("training.freeze_backbone=true",), "training.backbone_layers says"),
            (("training.backbone_lr=1e-4",), "backbone_lr is given, but no backbone")):
        code, log = refused("refused", *settings)
        assert code == 100 and sentence in log, (settings, log)
    data_write("data.h5")
    with SmallRun("all-frozen", "data.h5", settings=("training.freeze_backbone=true",
                                                     "training.backbone_layers=3")) as run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
        assert "leaves nothing to train: the first 3 layers hold all parameters" in run.log("trainerd")
