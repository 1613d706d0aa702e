"""What the training loop can do, on runs so small that each is interrupted at every checkpoint: they end with the
bits of the undisturbed run, whatever the loop keeps between steps and epochs."""
import json
import os
import random
import re
import struct
import subprocess

from harness import limit, skip
from small_run import BINARIES, CLASSES, HIDDEN, LAYERS, PIPELINE, ROWS, SmallRun, data_read, data_write, facts, trained

try:
    import h5py
    import numpy
except ImportError:
    h5py = None

OFTEN = "training.checkpoint_every_s=0.05"


def run_whole(directory, *settings, layers=LAYERS):
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    return trained(directory, settings=settings, layers=layers)[0]


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


def run_interrupted(directory, *settings, commit=2, layers=LAYERS):
    """Each start of trainerd fails at its second commit of a file (where the first one is a checkpoint), so the run is
    resumed from each of its checkpoints. Returns the run and the number of starts."""
    run = SmallRun(directory, "data.h5", ROWS, settings, layers)
    starts, code = 0, 111
    with run:
        run.start("loaderd", "fisherd")
        while code == 111:
            run.start("trainerd", environment={"FINETUNED_FAIL": "rename:%d:EIO:once" % commit})
            code, starts = run.wait("trainerd"), starts + 1
            assert starts < 400, run.log("trainerd")[-2000:]
        assert code == 0, run.log("trainerd")[-2000:]
    assert "gave another loss" not in run.log("trainerd")
    return run, starts


def refused(directory, *settings):
    """(exit code, what was said) of a run whose options cannot be used."""
    with open(directory + ".yaml", "w") as f:
        f.write(PIPELINE % (os.path.abspath("data.h5"), "    - {type: linear, out: 5}", ROWS))
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


@limit(60)
def test_the_last_batch_that_is_left_out_is_no_whole_step():
    """Of 700 rows 64 x 4 trains on 640: steps of 256, 256 and 128 rows, those of a file that has no more."""
    settings = ("training.gradient_accumulation_steps=4", "data.shuffle=false", "tasks.A.epochs=2", "tasks.B.ewc=")
    whole = run_whole("whole", *settings, "data.drop_last=true")
    assert [r[2] for r in lineage(whole)] == 3 * [0, 256, 512]
    features, targets = data_read("data.h5")
    data_write("fewer.h5", features[:640], targets[:640])
    with SmallRun("fewer", "fewer.h5", settings=settings) as fewer:
        fewer.start("loaderd", "fisherd", "trainerd")
        assert fewer.wait("trainerd") == 0, fewer.log("trainerd")
    assert lineage(fewer) == lineage(whole)
    for name, array in weights(fewer, "B").items():
        assert numpy.array_equal(array, weights(whole, "B")[name]), name
    run, starts = run_interrupted("interrupted", *settings, "data.drop_last=true", OFTEN)
    assert starts >= 3
    compare(whole, run)


def needs(directory, *settings, **options):
    """MiB that the run's plan has."""
    with SmallRun(directory, "data.h5", settings=(*settings, "memory.host_limit_mb=1"), **options) as run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
        return int(re.search(r"the run needs (\d+) MiB", run.log("trainerd")).group(1))


@limit(120)
def test_micro_batches_that_memory_makes_smaller_give_the_same_bits():
    """A batch of 1000 rows has 15 slices of 64 and one of 40; computed as 512 and 488 it has the same."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    rows = numpy.random.default_rng(3)
    data_write("data.h5", rows.integers(0, 256, (2100, 3000)).astype("u1"), rows.integers(0, CLASSES, 2100).astype("u1"))
    settings = ("training.batch_size=1000", "training.gradient_accumulation_steps=2", "training.threads=1",
                "loader.use_chunk_loader=false", "tasks.A.epochs=2")
    whole = run_whole("whole", *settings)
    limited = "memory.host_limit_mb=%d" % (needs("needs", *settings) - 3)
    smaller = run_whole("smaller", *settings, limited)
    assert "micro_batch_rows=512 batch_size=1000" in smaller.log("trainerd")
    compare(whole, smaller)


@limit(180)
def test_an_accumulating_run_interrupted_at_each_checkpoint():
    settings = ("training.slice_rows=16", "training.batch_size=16", "training.gradient_accumulation_steps=4",
                "tasks.A.epochs=2", OFTEN)
    whole = run_whole("whole", *settings)
    run, starts = run_interrupted("interrupted", *settings)
    print("starts:", starts)
    assert starts >= 4
    compare(whole, run)


@limit(180)
def test_epochs_tell_what_was_before_a_restart_within_them():
    """Rows and seconds of an epoch, by however many processes: each writes some checkpoints inside it."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    data_write("data.h5")
    run, starts = run_interrupted("interrupted", "training.slice_rows=1", "training.batch_size=1",
                                  "training.checkpoint_every_s=0.01", commit=4,
                                  layers=("linear, out: 1000", "relu", "linear, out: 5"))
    told = [m for m in facts(run, "trainerd", "event.task") if m["what"] == "epoch-end"]
    assert starts > 4 and {m["rows"] for m in told} == {ROWS}, (starts, told)
    assert all(m["seconds"] > m["wait_seconds"] >= 0 for m in told), told


@limit(180)
def test_sgd_with_a_frozen_backbone_interrupted_at_each_checkpoint():
    """B's frozen layer is A's, in every checkpoint; moments there are of the layer that is trained only."""
    settings = ("training.optimizer=sgd", "training.learning_rate=0.05", "training.backbone_layers=1",
                "training.freeze_backbone=true", "training.scheduler_type=onecycle", "tasks.A.epochs=2", OFTEN)
    whole = run_whole("whole", *settings)
    run, starts = run_interrupted("interrupted", *settings)
    assert starts >= 4
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
    for own in ("training.freeze_backbone=true", "training.backbone_lr=1e-3"):
        with SmallRun("all-" + own, "data.h5", settings=(own, "training.backbone_layers=1"),
                      layers=("linear, out: %d" % CLASSES, "relu")) as run:
            run.start("loaderd", "trainerd")
            assert run.wait("trainerd") == 100
            assert "nothing behind the backbone: the first 1 layers hold all parameters" in run.log("trainerd")



def report_of(run):
    subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True,
                   stdout=subprocess.DEVNULL)
    with open(run.path("report/report.json")) as f:
        return json.load(f)


def checkpoint_at(run, task, epoch):
    """Path of the checkpoint at the end of an epoch (from 1) that is not the task's last."""
    for name in sorted(os.listdir(run.path("checkpoints"))):
        if name.startswith("step-"):
            with h5py.File(run.path("checkpoints", name)) as f:
                if (f.attrs["task"], f.attrs["epoch"], f.attrs["position"]) == (task, epoch, 0):
                    return run.path("checkpoints", name)
    raise AssertionError("no checkpoint of epoch %d of task %d" % (epoch, task))


def parameters(path):
    with h5py.File(path) as f:
        return {name: f["parameters"][name][:] for name in f["parameters"]}


KEPT = "training.checkpoint_keep=1000"


def back_to(run, step):
    """The checkpoints of a run that was killed behind this step of task A."""
    for name in os.listdir(run.path("checkpoints")):
        if not name.startswith("average-") and name > "step-%010d-00.h5" % step or name.startswith("best-"):
            os.remove(run.path("checkpoints", name))


@limit(240)
def test_plateau_interrupted_at_each_checkpoint():
    """Targets are random, so the validation loss (of the same rows) falls and then stops falling at a high rate."""
    settings = ("training.scheduler_type=plateau", "training.plateau_patience=0", "training.plateau_factor=0.5",
                "training.plateau_threshold=0.05", "training.learning_rate=0.01", "tasks.A.epochs=5", OFTEN)
    whole = run_whole("whole", *settings)
    with h5py.File(whole.path("checkpoints/task-A.h5")) as f:
        assert f.attrs["plateau_scale"] == 1 and f.attrs["epoch"] == 0  # those of the next task
    reductions = whole.log("trainerd").count("from now on the rate is")
    assert 2 <= reductions <= 8, whole.log("trainerd")
    run, starts = run_interrupted("interrupted", *settings)
    print("starts:", starts, "reductions:", reductions)
    compare(whole, run)
    other = run_whole("other", *settings, "training.scheduler_type=constant")
    assert end(other, "A") != end(whole, "A")


def test_a_run_that_goes_on_without_a_plateau_has_its_whole_rate():
    """The second epoch is no better by nine tenths than the first, so from the third on the rate is halved: not with the
    options of a run that never had a plateau, which ends the same."""
    lowered = ("training.scheduler_type=plateau", "training.plateau_patience=0", "training.plateau_factor=0.5",
               "training.plateau_threshold=0.9")
    constant = run_whole("constant", "tasks.A.epochs=4")
    run = run_whole("run", *lowered, "tasks.A.epochs=4", KEPT)
    assert end(run, "A") != end(constant, "A")
    back_to(run, 22)
    with h5py.File(checkpoint_at(run, 0, 2)) as f:
        assert f.attrs["plateau_scale"] == 0.5
    assert resume(run, "run", "tasks.A.epochs=4", KEPT)[0] == 0
    go_on(run)
    assert end(run, "A") == end(constant, "A")


@limit(240)
def test_early_stopping_keeps_every_count():
    """With a rate of 0 no epoch is better than the first. Task B, and its steps, come where they would anyway."""
    settings = ("training.learning_rate=0", "training.weight_decay=0", "training.early_stopping_patience=2",
                "tasks.A.epochs=9", "tasks.B.epochs=1", OFTEN)
    whole = run_whole("whole", *settings)
    log = whole.log("trainerd")
    assert "task A ends with epoch 3 of 9: 2 epochs without a better loss than" in log, log
    report = report_of(whole)
    assert [d["what"] for d in report["decisions"]] == ["early-stop"] and report["steps"] == 44, report
    records = lineage(whole)
    made = [r[0] for r in records if r[0]]
    assert made == list(range(1, 34)) + list(range(100, 111)), made
    with h5py.File(whole.path("checkpoints/task-B.h5")) as f:
        assert f.attrs["step"] == 10 * 11 and f.attrs["steps_skipped"] == 66
    assert "steps made: 44" in log, log
    run, starts = run_interrupted("interrupted", *settings)
    assert starts >= 4
    compare(whole, run)


@limit(240)
def test_the_best_epoch_is_kept():
    """By the metric, which here is the loss on the rows that are trained on: at a rate that is far too high for
    the last epochs, an epoch before is the best."""
    settings = ("training.learning_rate=0.3", "training.metric=loss", "tasks.A.epochs=6", OFTEN, KEPT)
    last = run_whole("last", *settings)
    best = run_whole("best", *settings, "training.keep=best")
    values = {}
    for epoch in range(1, 6):
        with h5py.File(checkpoint_at(last, 0, epoch)) as f:
            values[epoch] = f.attrs["best_value"]
    epoch = min(values, key=lambda k: (values[k], k))
    print("values:", values)
    assert "task A ends with the weights of its epoch %d " % epoch in best.log("trainerd"), best.log("trainerd")
    wanted, got = parameters(checkpoint_at(last, 0, epoch)), weights(best, "A")
    assert all(numpy.array_equal(wanted[n], got[n]) for n in wanted)
    assert end(last, "A") != end(best, "A")
    with h5py.File(best.path("checkpoints/task-A.h5")) as f:
        loss = float(bytes(f["results"][:]).decode().split("\t")[3])
    assert loss == values[epoch], (loss, values)
    run, starts = run_interrupted("interrupted", *settings, "training.keep=best")
    assert starts >= 5
    compare(best, run)
    told = report_of(best)["epochs"]  # what each came to, not the weights that the task ended with
    assert [(e["task"], e["epoch"]) for e in told] == [("A", k) for k in range(1, 7)] + [("B", k) for k in range(1, len(told) - 5)], told
    assert all(e["metric"] == "loss" and e["value"] == e["validation_loss"] for e in told), told
    of_a = {e["epoch"]: e["value"] for e in told if e["task"] == "A"}
    assert of_a[epoch] == loss == min(of_a.values()) and len(set(of_a.values())) == 6, (of_a, loss)
    assert report_of(run)["epochs"] == told
    with open(run.path("report/report.md")) as f, open(run.path("report/curve.png"), "rb") as picture:
        assert "![curve](curve.png)" in f.read() and picture.read(4) == b"\x89PNG"


@limit(120)
def test_a_task_that_ends_before_its_average_says_so():
    """Early stopping: its weights are those of the last epoch."""
    run = run_whole("early", "training.learning_rate=0", "training.weight_decay=0", "training.early_stopping_patience=2",
                    "training.use_swa=true", "training.swa_start_epoch=6", "tasks.A.epochs=8", "tasks.B.epochs=8")
    told = [d["sentence"] for d in report_of(run)["decisions"] if d["what"] == "average"]
    assert [s[:7] for s in told] == ["task A ", "task B "] and all(
        s.endswith("ends after 3 epochs, none of which training.use_swa averages: it does behind the first 6; its weights are those of "
                   "its last epoch") for s in told), told


@limit(240)
def test_weight_averaging():
    """The weights at a task's end are torch's running mean, in float32, of those at the ends of its last epochs."""
    settings = ("training.use_swa=true", "training.swa_start_epoch=3", "training.swa_lr=0.005", "tasks.A.epochs=6",
                "tasks.B.epochs=4", OFTEN, KEPT)
    whole = run_whole("whole", *settings)
    assert "task A ends with the average of the weights at the ends of 3 epochs" in whole.log("trainerd")
    assert "task B ends with the average of the weights at the ends of 1 epochs" in whole.log("trainerd")
    few = [d["sentence"] for d in report_of(whole)["decisions"] if d["what"] == "average"]
    assert len(few) == 1 and few[0].startswith("of the 4 epochs of task B training.use_swa averages the last alone") and \
        few[0].endswith("with training.swa_start_epoch 2 it averages two"), few
    last = [name for name in sorted(os.listdir(whole.path("checkpoints"))) if name == "step-0000000066-00.h5"]
    epochs = [parameters(checkpoint_at(whole, 0, 4)), parameters(checkpoint_at(whole, 0, 5)),
              parameters(whole.path("checkpoints", last[0]))]
    average = epochs[0]
    for n, p in enumerate(epochs[1:], 1):
        average = {k: average[k] + (p[k] - average[k]) / numpy.float32(n + 1) for k in average}
    got = weights(whole, "A")
    assert all(numpy.array_equal(average[k], got[k]) for k in got)
    run, starts = run_interrupted("interrupted", *settings, commit=3)  # the average is the first one
    assert starts >= 6
    compare(whole, run)


@limit(240)
def test_weight_averaging_renews_the_statistics_of_batchnorm():
    """10 equal batches an epoch: the mean of their means is that of all rows, whatever their order."""
    settings = ("training.use_swa=true", "training.swa_start_epoch=2", "tasks.A.epochs=4", "tasks.B.epochs=3",
                "training.batch_size=70", "training.slice_rows=35", OFTEN)
    layers = ("linear, out: %d" % HIDDEN, "relu", "batchnorm", "linear, out: %d" % CLASSES)
    whole = run_whole("whole", *settings, layers=layers)
    with h5py.File(whole.path("checkpoints/task-A.h5")) as f:
        assert f.attrs["batches_tracked"] == 10
        p = {n: f["parameters"][n][:].astype(float) for n in f["parameters"]}
        mean, variance = f["buffers/2.running_mean"][:], f["buffers/2.running_var"][:]
    x = data_read("data.h5")[0].astype(float) * 0.01
    y = numpy.maximum(x @ p["0.weight"].T + p["0.bias"], 0)
    assert numpy.abs(mean - y.mean(0)).max() < 1e-5 * numpy.abs(y.mean(0)).max()
    assert numpy.abs(variance - y.var(0)).max() < 0.1 * y.var(0).max()
    run, starts = run_interrupted("interrupted", *settings, commit=3, layers=layers)
    assert starts >= 4
    compare(whole, run)


@limit(120)
def test_a_lost_average_is_said():
    settings = ("training.use_swa=true", "training.swa_start_epoch=1", "tasks.A.epochs=4", "tasks.B.epochs=2")
    whole = run_whole("whole", *settings, KEPT)
    back_to(whole, 22)
    average = whole.path("checkpoints/average-0000000022-00.f32")
    with open(average, "r+b") as f:
        f.write(b"x")
    with whole:
        whole.start("loaderd", "fisherd", "trainerd")
        assert whole.wait("trainerd") == 100
    assert "average-0000000022-00.f32 is damaged" in whole.log("trainerd"), whole.log("trainerd")


@limit(120)
def test_more_epochs_begin_the_average_anew():
    """Of 20 epochs the last two are averaged, of 24 the last three: that of the 19th is given up, and the run goes on.
    With 21 it is the 19th's and the two after it, as before."""
    settings = ("training.use_swa=true", "tasks.A.epochs=20", KEPT)
    for epochs, averaged in ((24, 3), (21, 3)):
        name = "to-%d" % epochs
        run = run_whole(name, *settings)
        back_to(run, 209)  # the 19th's end
        code, said = resume(run, name, *settings, "tasks.A.epochs=%d" % epochs)
        assert code == 0, said
        log = go_on(run)
        told = "task A, epoch 20: the average of the weights at the ends of 1 epochs so far is given up; of 24 epochs it " \
               "begins behind the first 21"
        assert (told in log) == (epochs == 24), log[-3000:]
        assert "task A ends with the average of the weights at the ends of %d epochs" % averaged in log, log[-3000:]
        assert any("given up" in d["sentence"] for d in report_of(run)["decisions"]) == (epochs == 24)


RISING = ("training.optimizer=sgd", "training.learning_rate=1", "training.warmup_epochs=5", "tasks.A.epochs=6",
          "training.loss_max=1.7")


@limit(240)
def test_a_loss_that_explodes_goes_back_to_the_epoch_before():
    """Its loss passes 1.7 in the third epoch; wherever it is interrupted it goes back to the same state."""
    settings = (*RISING, "training.on_nan=restore", "training.restore_factor=0.3", OFTEN)
    whole = run_whole("whole", *settings)
    log = whole.log("trainerd")
    assert "back to step 22, checkpoints/restore.h5; from there on the rate is 0.3 of what it was, time 1 of 3" in log, log
    assert "of task A" in log and "more than the 1.7 that are accepted" in log
    assert log.count("back to step") == 1
    run, starts = run_interrupted("interrupted", *settings)
    print("starts:", starts)
    assert starts >= 4
    compare(whole, run)
    for directory in os.listdir(run.path("checkpoints")):
        assert directory in os.listdir(whole.path("checkpoints")) or directory.startswith("step-"), directory


@limit(120)
def test_going_back_goes_to_the_end_of_the_epoch_before_or_nowhere():
    """A restore.h5 of the first epoch, left by a run that went on with on_nan: stop, is not where a later one goes back
    to: a checkpoint that stands at the end of the epoch before is, and without one the run ends."""
    slow = ("tasks.A.epochs=4", "tasks.B.ewc=", "training.checkpoint_every_s=0.01", "training.batch_size=16",
            "training.slice_rows=16", KEPT)
    layers = ("linear, out: 2048", "relu", "linear, out: %d" % CLASSES)
    back = (*slow, "training.on_nan=restore", "training.loss_max=1e-3", "training.restores_max=1")
    steps = -(-ROWS // 16)
    for kept in (True, False):
        name = "kept-%s" % kept
        run = run_whole(name, *slow, layers=layers)
        inside = [int(n[5:15]) for n in os.listdir(run.path("checkpoints")) if n.startswith("step-") and n.endswith("-00.h5")]
        inside = max(s for s in inside if s % steps and s > 2 * steps)
        before = inside // steps * steps
        back_to(run, inside)
        os.link(run.path("checkpoints/step-%010d-00.h5" % steps), run.path("checkpoints/restore.h5"))
        if not kept:
            os.remove(run.path("checkpoints/step-%010d-00.h5" % before))
        assert resume(run, name, *back)[0] == 0
        with run:
            run.start("loaderd", "fisherd", "trainerd")
            assert run.wait("trainerd") == 100
        log = run.log("trainerd")
        assert "path=checkpoints/step-%010d-00.h5 step=%d going on" % (inside, inside) in log, log[-2000:]
        assert ("back to step %d, checkpoints/step-%010d-00.h5" % (before, before) in log) == kept, log[-2000:]
        assert ("the task went back to a checkpoint 1 times already" in log) == kept, log[-2000:]
        assert ("no checkpoint of the end of the epoch before" in log) != kept, log[-2000:]
        assert log.count("back to step") == kept, log[-2000:]


def test_where_a_run_goes_back_to_stays_as_long_as_it_may():
    run = stopped_in_task_a("run", "tasks.A.epochs=9", "training.on_nan=restore")
    assert os.path.exists(run.path("checkpoints/restore.h5"))
    assert resume(run, "run", "tasks.A.epochs=9")[0] == 0
    go_on(run)
    assert not os.path.exists(run.path("checkpoints/restore.h5"))


def test_going_back_has_an_end():
    """In the first epoch there is only the beginning to go back to; a rate that becomes no better stops the run."""
    code, log = ending("run", "training.loss_max=1", "training.on_nan=restore", "training.restores_max=2")
    assert code == 100
    assert log.count("back to step 0, the beginning") == 2, log
    assert "the task went back to a checkpoint 2 times already (training.restores_max)" in log, log


@limit(240)
def test_a_step_with_a_bad_number_is_skipped():
    """A row whose outputs overflow is in one batch of each epoch; that step changes nothing, is told and counted, and
    wherever the run is interrupted it ends the same. One more than allowed ends it."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    features = numpy.random.default_rng(3).standard_normal((ROWS, 60)).astype(numpy.float32)
    data_write("data.h5", features)
    with h5py.File("data.h5", "r+") as f:
        f["train/features"][123] = 3e38
    settings = ("data.scale=1", "training.on_nan=skip", "tasks.A.epochs=2", "tasks.B.ewc=", OFTEN)
    whole = run_whole("whole", *settings)
    log = whole.log("trainerd")
    told = re.findall(r"number (\d) of at most 100: step \d+ of task (.).*row 123 of train in the file", log)
    assert told[:3] == [("1", "A"), ("2", "A"), ("1", "B")], log[-3000:]
    with h5py.File(whole.path("checkpoints/best-A.h5")) as f:
        assert f.attrs["bad_steps"] == f.attrs["task_skipped"] == f.attrs["epoch"], dict(f.attrs)
    assert all(numpy.isfinite(w).all() for w in weights(whole, "B").values())
    run, starts = run_interrupted("interrupted", *settings, commit=4)
    assert starts >= 3
    compare(whole, run)
    code, log = ending("over", *settings[:3], "training.skips_max=1")
    assert code == 100 and "the task has skipped 1 steps already (training.skips_max)" in log, log[-2000:]


def test_a_loss_that_explodes_stops_the_run():
    code, log = ending("run", *RISING)
    assert code == 100 and "more than the 1.7 that are accepted; nothing was updated" in log, log
    # one number of the step, that of trainer.step and the journal, counted from 1
    assert re.search(r"error code=100 step \d+ of task [AB], rows \d+ to \d+ of epoch \d+: cannot take the step: ", log), log


def test_a_bad_number_names_layer_and_row():
    """At such a rate the weights overflow soon: a row's output of a layer is no number, and the same of both ways to
    take the batch."""
    said = []
    for settings in ((), ("training.batch_size=16", "training.gradient_accumulation_steps=4")):
        code, log = ending("run-%d" % len(said), "training.optimizer=sgd", "training.learning_rate=10", "data.scale=1",
                           "training.slice_rows=16", *settings)
        assert code == 100, log
        found = re.search(r"step (\d+) of task [AB], rows .* came up first in the output of layer 2 \(linear\), "
                          r"row (\d+) of train in the file", log)
        assert found, log
        said.append(found.groups())
    assert said[0] == said[1], said


def ending(directory, *settings):
    """(exit code of trainerd, its log) of a run that may fail."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    if not os.path.exists("data.h5"):
        data_write("data.h5")
    with SmallRun(directory, "data.h5", settings=settings) as run:
        run.start("loaderd", "fisherd", "trainerd")
        return run.wait("trainerd"), run.log("trainerd")


@limit(120)
def test_every_preset_trains():
    """The small pipeline gives a batch size of its own, and so the rows of a step; the rest is the preset's."""
    for name in ("standard", "saving", "tight", "roomy", "conservative"):
        run = run_whole(name, "preset=" + name, "tasks.A.epochs=3")
        with open(run.path("pipeline.yaml")) as f:
            text = f.read()
        assert "  batch_size: 64\n" in text.replace(" # as preset %s has it" % name, "")
        assert "  gradient_accumulation_steps: 1\n" in text, text
        assert "use_gradient_checkpointing: %s # as preset" % ("false" if name == "roomy" else "true") in text, text
        averaged = "ends with the average of the weights" in run.log("trainerd")
        assert averaged == (name not in ("saving", "conservative")), run.log("trainerd")


def resume(run, directory, *settings, data="data.h5"):
    """What `prepare run` says of the run with these settings: (exit code, stderr)."""
    words = [w for s in (*settings, "data.file=" + os.path.abspath(data)) for w in ("--set", s)]
    done = subprocess.run([os.path.join(BINARIES, "prepare"), "run", "--config", directory + ".yaml", "--run",
                           run.directory, *words], capture_output=True, text=True)
    return done.returncode, done.stderr


def stopped_in_task_a(directory, *settings):
    """A run whose trainerd has stopped with task A's third checkpoint."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    if not os.path.exists("data.h5"):
        data_write("data.h5")
    run = SmallRun(directory, "data.h5", ROWS, settings)
    with run:
        run.start("loaderd", "fisherd")
        run.start("trainerd", environment={"FINETUNED_FAIL": "rename:7:EIO"})  # a checkpoint and its name of best
        assert run.wait("trainerd") == 111, run.log("trainerd")[-2000:]
    return run


def go_on(run):
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")[-2000:]
    return run.log("trainerd")


def test_a_run_goes_on_with_other_rates_and_more_epochs():
    first = ("training.slice_rows=16", "tasks.A.epochs=9")
    run = stopped_in_task_a("run", *first)
    with open(run.path("lineage"), "rb") as f:
        before = f.read()
    then = ("training.slice_rows=16", "training.learning_rate=1e-4", "tasks.A.epochs=12", "training.batch_size=32",
            "training.gradient_accumulation_steps=2", "training.weight_decay=0")
    code, said = resume(run, "run", *then)
    assert code == 0, said
    log = go_on(run)
    report = report_of(run)
    assert report["decisions"][0]["what"] == "options" and report["reproducible"] is False, report
    told = "on with other options: training.batch_size 64 -> 32, training.gradient_accumulation_steps 1 -> 2, " \
           "training.learning_rate 0.001 -> 0.0001, training.weight_decay 0.01 -> 0, tasks.0.epochs 9 -> 12"
    assert told in log, log
    assert "gave another loss" not in log and not os.path.exists(run.path("changed"))
    step = int(re.search(r"from step (\d+) on with", log).group(1))
    with open(run.path("lineage"), "rb") as f:
        after = f.read()
    assert step > 0 and after[:32 * step] == before[:32 * step] and len(after) == 32 * 13 * 11
    whole = run_whole("whole", *first)
    assert end(whole, "A") != end(run, "A")
    back = stopped_in_task_a("back", *first)  # another way and back: as if nothing had been
    assert resume(back, "back", *then)[0] == 0 and resume(back, "back", *first)[0] == 0
    go_on(back)
    for task in "AB":
        assert end(whole, task) == end(back, task), task


def test_what_a_run_cannot_go_on_with():
    run = stopped_in_task_a("run", "tasks.A.epochs=9")
    for settings, reason in ((("training.slice_rows=16",), "other slices are another arithmetic"),
                             (("training.optimizer=sgd",), "the checkpoint holds the moments of the other one"),
                             (("training.use_swa=true",), "the average holds the epochs so far"),
                             (("data.scale=1",), "the rows so far, or their order, would have been others"),
                             (("training.batch_size=16",), "the steps so far took as many rows")):
        code, said = resume(run, "run", "tasks.A.epochs=9", *settings)
        assert code == 100 and reason in said, (settings, said)
    assert resume(run, "run", "tasks.A.epochs=1")[0] == 0  # nobody knows here how far task A is
    with run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
    said = re.search(r"task A has (\d) epochs behind it and more to come, but its epochs are 1; accepted are (\d) or more",
                     run.log("trainerd"))
    assert said and int(said.group(2)) == int(said.group(1)) + 1 > 2, run.log("trainerd")
    assert resume(run, "run", "tasks.A.epochs=" + said.group(2))[0] == 0  # one more than there are
    go_on(run)


def test_a_task_that_has_ended_keeps_its_epochs():
    settings = ("tasks.A.epochs=2", "tasks.B.epochs=2", KEPT)
    run = run_whole("run", *settings)
    for name in os.listdir(run.path("checkpoints")):  # as after a kill inside task B
        if name in ("task-B.h5", "best-B.h5") or name > "step-0000000033-01.h5" and name.startswith("step-"):
            os.remove(run.path("checkpoints", name))
    assert resume(run, "run", *settings, "tasks.A.epochs=3")[0] == 0
    with run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
    assert "task B began with step 22, which the options put at step 33: the tasks before it have ended, and their epochs " \
           "stay what they were" in run.log("trainerd"), run.log("trainerd")
    assert resume(run, "run", *settings)[0] == 0
    go_on(run)


@limit(240)
def test_everything_at_once_and_kill_9_at_any_moment():
    """Accumulation, one-cycle, plateau, averaging with batchnorm, an exploding loss and early stopping together."""
    settings = ("training.slice_rows=16", "training.batch_size=16", "training.gradient_accumulation_steps=4",
                "training.scheduler_type=onecycle", "training.learning_rate=10", "training.use_reduce_on_plateau=true",
                "training.plateau_patience=0", "training.plateau_factor=0.7", "training.use_swa=true",
                "training.swa_start_epoch=4", "training.early_stopping_patience=5", "training.on_nan=restore",
                "training.loss_max=5", "training.restores_max=20", "tasks.A.epochs=8", "tasks.B.epochs=5", OFTEN)
    layers = ("linear, out: %d" % HIDDEN, "batchnorm", "relu", "dropout, p: 0.1", "linear, out: %d" % CLASSES)
    whole = run_whole("whole", *settings, layers=layers)
    log = whole.log("trainerd")
    for sign in ("back to step", "from now on the rate is", "ends with the average of the weights"):
        assert sign in log, (sign, log)
    seed, kills = int(os.environ.get("TEST_SEED", "1")), 0
    for attempt in range(10):
        run, killed = run_killed("killed-%d" % attempt, random.Random(seed + attempt), settings, layers)
        print("seed", seed + attempt, "kills", killed)
        kills += killed
        compare(whole, run)
        if kills >= 8:
            return
    raise AssertionError("only %d kills hit trainerd" % kills)


def run_killed(directory, rng, settings, layers):
    """The run and how often its trainerd was killed, each time soon after its start."""
    run = SmallRun(directory, "data.h5", ROWS, settings, layers)
    kills, code = 0, None
    with run:
        run.start("loaderd", "fisherd")
        while code is None:
            run.start("trainerd")
            try:
                code = run.wait("trainerd", rng.uniform(0.05, 0.3) if kills < 25 else 60)
            except subprocess.TimeoutExpired:
                run.kill("trainerd")
                kills += 1
        assert code == 0, run.log("trainerd")[-2000:]
    assert "gave another loss" not in run.log("trainerd")
    return run, kills


def test_an_evaluation_that_gives_no_number():
    """A row for evaluation that is too large for any weights: going back does not help, and has an end."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    features = numpy.random.default_rng(3).standard_normal((ROWS, 60)).astype(numpy.float32)
    data_write("data.h5", features)
    with h5py.File("data.h5", "r+") as f:
        f["validation/features"][5] = 3e38
    code, log = ending("stop", "data.scale=1")
    assert code == 100 and "evaluating on task A after epoch 1 of task A: cannot evaluate 64 rows" in log, log
    code, log = ending("restore", "data.scale=1", "training.on_nan=restore", "training.restores_max=2")
    assert code == 100 and log.count("back to step 0, the beginning") == 2, log
    assert "the task went back to a checkpoint 2 times already" in log, log


def decisions(run):
    """What trainerd said of its micro-batches."""
    return re.findall(r"micro-batches of (\d+) rows instead of (\d+): ([a-z ]+);", run.log("trainerd"))


@limit(120)
def test_a_micro_batch_without_memory_is_repeated_in_smaller_ones():
    settings = ("training.batch_size=64", "training.gradient_accumulation_steps=2", "training.slice_rows=16",
                "tasks.A.epochs=%d" % (300 * 128 // ROWS + 1))
    whole = run_whole("whole", *settings)
    run = SmallRun("short", "data.h5", ROWS, settings)
    with run:
        run.start("loaderd", "fisherd")
        run.start("trainerd", environment={"FINETUNED_FAIL": "memory:7:ENOMEM:once"})  # the second half of step 3
        assert run.wait("trainerd") == 0, run.log("trainerd")[-2000:]
    assert decisions(run) == [("32", "64", "memory is short"), ("64", "32", "there is room again")], decisions(run)
    for task in ("A", "B"):
        assert end(run, task) == end(whole, task)
    assert lineage(run) == lineage(whole)
    with open(run.path("lineage"), "rb") as f:
        rows = [r[3] for r in struct.iter_unpack("<QQQII", f.read())]
    assert rows[:2] == [64, 64] and rows[2:250] == [32] * 248 and rows[-1] == 64, rows

    run = SmallRun("start", "data.h5", ROWS, settings)
    with run:
        run.start("loaderd", "fisherd")
        run.start("trainerd", environment={"FINETUNED_FAIL": "memory:1:ENOMEM:once"})  # the buffers themselves
        assert run.wait("trainerd") == 0, run.log("trainerd")[-2000:]
    assert "cannot reserve the buffers of a micro-batch" in run.log("trainerd")
    assert decisions(run) == [("64", "32", "there is room again")], decisions(run)
    assert (end(run, "A"), end(run, "B")) == (end(whole, "A"), end(whole, "B"))

    run = SmallRun("none", "data.h5", ROWS, settings)
    with run:
        run.start("loaderd", "fisherd")
        run.start("trainerd", environment={"FINETUNED_FAIL": "memory:4:ENOMEM"})
        assert run.wait("trainerd") == 111, run.log("trainerd")[-2000:]
    assert [d[0] for d in decisions(run)] == ["32", "16"], decisions(run)
    assert "no memory for it, and no smaller one of whole slices" in run.log("trainerd")
