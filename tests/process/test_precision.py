"""Ways of computing that cost less memory, or carry more state from batch to batch, over whole runs: activation
checkpointing changes no bit; batchnorm's running statistics survive every kill, go on with a task that begins from
another, and are what fisherd sees; 16 bits learn what float32 learns, and the loss scale and its skipped steps survive
every kill."""
import glob
import os

from harness import limit, skip
from small_run import CLASSES, HIDDEN, ROWS, SmallRun, trained

try:
    import h5py
    import numpy as np
    import torch
    from fisher_file import fisher_vector
except ImportError:
    h5py = np = torch = None

DEEP = ("linear, out: 32", "relu", "dropout, p: 0.2", "linear, out: 24", "layernorm", "gelu", "residual_begin",
        "linear, out: 24", "tanh", "residual_end", "linear, out: %d" % CLASSES)
EXACT = ("continual_learning.ewc_config.fisher_computation.compression=gzip",)
NORMED = ("linear, out: %d" % HIDDEN, "relu", "batchnorm", "linear, out: %d" % CLASSES)


def needed():
    if h5py is None:
        skip("python3-h5py, python3-numpy or python3-torch is not installed")


def state(run, name="task-B.h5"):
    """All arrays of a checkpoint, and its results."""
    with h5py.File(run.path("checkpoints", name)) as f:
        found = {"results": bytes(f["results"][:]), "batches": int(f.attrs["batches_tracked"])}
        found.update({n: float(f.attrs[n]) for n in ("loss_scale", "scale_tracker", "task_skipped")})
        f.visititems(lambda n, d: found.update({n: d[:].tobytes()}) if isinstance(d, h5py.Dataset) else None)
    return found


@limit(120)
def test_checkpointing_changes_no_bit():
    needed()
    off, _, _ = trained("off", layers=DEEP)
    for i, settings in enumerate((("training.checkpoint_segments=3",), ("training.gradient_accumulation_steps=2",
                                                                        "training.batch_size=32",
                                                                        "training.slice_rows=32"))):
        on, _, _ = trained("on%d" % i, layers=DEEP, settings=("training.use_gradient_checkpointing=true", *settings))
        if i == 0:
            assert state(on) == state(off)
        else:
            other, _, _ = trained("other", layers=DEEP, settings=settings)
            assert state(on) == state(other)


def test_a_resumed_run_may_switch_checkpointing():
    needed()
    settings = ("tasks.B.epochs=3", "training.checkpoint_every_s=0.01")
    whole, _, _ = trained("whole", layers=DEEP, settings=settings)
    run = SmallRun("switched", "data.h5", layers=DEEP, settings=settings)
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        run.until(lambda: os.path.exists(run.path("checkpoints/task-A.h5")), "no checkpoint of task A")
        run.kill("trainerd")
    assert not os.path.exists(run.path("checkpoints/task-B.h5"))
    run = SmallRun("switched", "data.h5", layers=DEEP, settings=(*settings, "training.use_gradient_checkpointing=true"))
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")[-2000:]
    assert state(run) == state(whole)


def killed(name, settings, layers):
    """The same run with trainerd killed at every checkpoint that it commits."""
    run, seen, kills = SmallRun(name, "data.h5", settings=settings, layers=layers), set(), 0
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        while run.processes["trainerd"].poll() is None:
            found = set(glob.glob(run.path("checkpoints/step-*-??.h5"))) - seen
            if found and kills < 12:
                seen |= found
                kills += 1
                run.kill("trainerd")
                run.start("trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")[-2000:]
    assert kills >= 3, kills
    return run


@limit(120)
def test_running_statistics_survive_every_kill():
    needed()
    settings = ("training.checkpoint_every_s=0.01", "training.batch_size=32", "training.gradient_accumulation_steps=2",
                "training.slice_rows=16", "tasks.B.epochs=10")
    whole, _, _ = trained("whole", settings=settings, layers=NORMED)
    wanted = state(whole)
    assert wanted["batches"] == 11 * ((ROWS + 31) // 32)  # task B goes on with what task A left
    assert "buffers/2.running_mean" in wanted and "buffers/2.running_var" in wanted
    assert state(killed("killed", settings, NORMED)) == wanted
    one, _, _ = trained("one", settings=(*settings, "training.threads=1"), layers=NORMED)
    assert state(one) == wanted
    assert "batchnorm: statistics are the micro-batch's" in whole.log("trainerd")


@limit(120)
def test_fisher_information_sees_the_running_statistics():
    """Against a loop with batch size 1 in evaluation mode."""
    needed()
    run, features, targets = trained(layers=NORMED, settings=EXACT)
    net = torch.nn.Sequential(torch.nn.Linear(features.shape[1], HIDDEN), torch.nn.ReLU(), torch.nn.BatchNorm1d(HIDDEN),
                              torch.nn.Linear(HIDDEN, CLASSES)).double().eval()
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        weights = {n: torch.tensor(d[:]) for g in ("parameters", "buffers") for n, d in f[g].items()}
        weights["2.num_batches_tracked"] = torch.tensor(int(f.attrs["batches_tracked"]))
    net.load_state_dict(weights)
    sums = [torch.zeros_like(p) for p in net.parameters()]
    x = torch.tensor(features.astype(np.float32) * np.float32(0.01)).double()
    for i in range(len(features)):
        loss = torch.nn.functional.cross_entropy(net(x[i:i + 1]), torch.tensor(targets[i:i + 1].astype(np.int64)))
        for s, g in zip(sums, torch.autograd.grad(loss, list(net.parameters()))):
            s += g * g
    wanted = np.concatenate([(s / len(features)).numpy().ravel() for s in sums])
    ours = fisher_vector(run.path("fisher/A.h5"))
    off = np.linalg.norm(ours - wanted) / np.linalg.norm(wanted)
    assert off < 1e-5, off


def test_a_tail_of_one_row_is_refused_before_the_run():
    needed()
    from small_run import data_write
    data_write("data.h5")
    run = SmallRun("run", "data.h5", layers=NORMED, settings=("training.batch_size=%d" % (ROWS - 1),))
    with run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
    log = run.log("trainerd")
    assert "ends with one of 1 row; set data.drop_last" in log and "layer 2 (batchnorm)" in log, log
    assert not os.listdir(run.path("checkpoints"))


SKIPPING = ("training.use_amp=true", "training.amp_init_scale=1e8", "training.amp_growth_interval=5",
            "training.scheduler_type=onecycle", "training.learning_rate=0.01")


@limit(180)
def test_loss_scale_and_skipped_steps_survive_every_kill():
    needed()
    settings = (*SKIPPING, "training.checkpoint_every_s=0.01", "tasks.B.epochs=10")
    whole, _, _ = trained("whole", settings=settings, layers=DEEP)
    wanted, first = state(whole), state(whole, sorted(n for n in os.listdir(whole.path("checkpoints")) if "step" in n)[-1])
    assert wanted == first
    skipped = whole.log("trainerd").count("the step was skipped")
    assert skipped >= 4, whole.log("trainerd")  # the scale is too large at the start of both tasks, and grows back
    with open(whole.path("lineage"), "rb") as f:
        records = np.frombuffer(f.read(), np.dtype([("step", "<u8"), ("epoch", "<u8"), ("position", "<u8"), ("micro", "<u4"),
                                                    ("loss", "<f4")]))
    assert (records["micro"] >> 31).sum() == skipped and set(records["micro"] & 0x7fffffff) == {64}
    run = killed("killed", settings, DEEP)
    assert state(run) == wanted
    with open(run.path("lineage"), "rb") as a, open(whole.path("lineage"), "rb") as b:
        assert a.read() == b.read()
    one, _, _ = trained("one", settings=(*settings, "training.threads=1"), layers=DEEP)
    assert state(one) == wanted


@limit(120)
def test_a_skipped_step_holds_the_schedule_unless_told_otherwise():
    needed()
    ends = {}
    for scale in ("1e8", "1"):
        for on_skip in ("false", "true"):
            run, _, _ = trained("run-%s-%s" % (scale, on_skip), layers=DEEP, settings=(
                *SKIPPING, "training.amp_init_scale=" + scale, "training.amp_schedule_on_skip=" + on_skip))
            ends[scale, on_skip] = state(run, "task-A.h5")
            assert ("the step was skipped" in run.log("trainerd")) == (scale == "1e8")
    assert ends["1e8", "false"] != ends["1e8", "true"]
    assert ends["1", "false"] == ends["1", "true"]
