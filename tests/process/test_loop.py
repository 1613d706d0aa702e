"""What the training loop can do, on runs so small that each is interrupted at every checkpoint: they end with the
bits of the undisturbed run, whatever the loop keeps between steps and epochs."""
import os
import struct

from harness import limit, skip
from small_run import ROWS, SmallRun, trained

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
                "tasks.A.epochs=6", OFTEN)
    whole = run_whole("whole", *settings)
    run, starts = run_interrupted("interrupted", *settings)
    print("starts:", starts)
    assert starts >= 7
    compare(whole, run)
