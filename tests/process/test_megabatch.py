"""How rows are kept on their way to the step (arena, mega-batch) and what is given back between epochs: the weights are
the same, the files are read as often as they must be."""
import glob

from harness import limit, skip
from small_run import ROWS, SmallRun, report, trained

try:
    import h5py
except ImportError:
    h5py = None

BATCH, EPOCHS = 64, 3
COMMON = ("order.span_rows=64", "order.window_spans=2", "tasks.A.epochs=%d" % EPOCHS, "loader.receipt=true",
          "data.verify=true")
WINDOW_GB = 2 * (64 * 60 + 64 + 64) / 2 ** 30  # two spans of 64 rows of 60 features and a class
WAYS = {
    "whole": ("loader.chunk_size_gb=auto",),
    "emptied": ("memory.empty_cache_every_n_epochs=2",),
    "windows": ("loader.chunk_size_gb=%.9f" % (2.5 * WINDOW_GB),),
    "one-window": ("loader.chunk_size_gb=%.9f" % (1.2 * WINDOW_GB),),
    "arena": ("loader.use_chunk_loader=false",),
    "on-a-gpu": ("loader.use_chunk_loader=gpu",),
    "given-back": ("loader.use_chunk_loader=false", "loader.persistent_workers=false"),
    "windows-given-back": ("loader.chunk_size_gb=%.9f" % (2.5 * WINDOW_GB), "loader.persistent_workers=false"),
    "no-thread": ("loader.use_chunk_loader=false", "loader.num_workers=0"),
    "read-ahead": ("loader.use_chunk_loader=false", "loader.prefetch_factor=3", "loader.num_workers=2"),
    "locked": ("loader.use_chunk_loader=false", "loader.pin_memory=true"),
}


def weights(run):
    with h5py.File(run.path("checkpoints/task-B.h5")) as f:
        return f.attrs["parameters_sha256"]


def steps(run):
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        return int(f.attrs["step"])


def last_epoch(run, consumer):
    """The epoch that the loader delivered last to a consumer, by its receipt in the report, and its task."""
    receipts = [r for r in report(run)["receipts"] if r["consumer"] == consumer]
    assert all(r["rows"] == ROWS and r["of"] == "whole" for r in receipts), receipts
    assert len({(r["task"], r["epoch"]) for r in receipts}) == len(receipts), receipts
    return receipts[-1]["task"], receipts[-1]["epoch"]


@limit(180)
def test_weights_do_not_depend_on_how_rows_are_kept():
    if h5py is None:
        skip("python3-h5py is not installed")
    found = {}
    for way, settings in WAYS.items():
        run, _, _ = trained(way, settings=COMMON + settings)
        found[way] = weights(run)
        train, validation = last_epoch(run, "trainer.train"), last_epoch(run, "trainer.validation")
        if way == "whole":
            assert train == ("A", 1) and validation == (None, 1), (train, validation)
        elif way == "emptied":
            assert train == ("A", 3) and validation[1] > 1, (train, validation)
        else:
            assert train == ("B", 1) and validation[1] >= EPOCHS + 2, (way, train, validation)
    assert len(set(found.values())) == 1, found


@limit(60)
def test_the_last_batch_is_left_out_if_asked():
    if h5py is None:
        skip("python3-h5py is not installed")
    kept, _, _ = trained("kept", settings=COMMON)
    dropped, _, _ = trained("dropped", settings=COMMON + ("data.drop_last=true",))
    assert steps(kept) == EPOCHS * (ROWS // BATCH + 1) and steps(dropped) == EPOCHS * (ROWS // BATCH)
    assert weights(kept) != weights(dropped)


@limit(60)
def test_streams_in_time_order():
    if h5py is None:
        skip("python3-h5py is not installed")
    order = ("data.shuffle=false", "data.stateful=true", "order.span_rows=auto")
    found = {}
    for way in ("whole", "arena"):
        run, _, _ = trained("streams-" + way, settings=COMMON + order + WAYS[way])
        found[way] = weights(run)
        assert steps(run) == EPOCHS * (ROWS // BATCH)
    plain, _, _ = trained("plain", settings=COMMON + ("data.shuffle=false", "data.drop_last=true"))
    assert found["whole"] == found["arena"] != weights(plain)


WIDE = """name: wide
data: {file: wide.h5}
model:
  loss: mean_squared_error
  layers: [{type: linear, out: 4}, {type: linear, out: 2}]
training: {checkpoint_every_s: 0.02}
tasks: [{name: A, epochs: 3}]
"""
WIDE_ROWS, WIDE_FEATURES = 700, 60120  # rows so wide that the steps wait for them


def wide_write():
    import numpy
    random = numpy.random.default_rng(4)
    with h5py.File("wide.h5", "w") as f:
        for split, rows in (("train", WIDE_ROWS), ("validation", 100)):
            f.create_dataset(split + "/features", data=random.random((rows, WIDE_FEATURES), numpy.float32), chunks=(4, WIDE_FEATURES))
            f[split + "/targets"] = random.random((rows, 2), numpy.float32)


def killed_late_in_an_epoch(directory):
    """A run whose trainerd was killed with most of its first epoch made. None: the epoch was over."""
    run = SmallRun(directory, "wide.h5", pipeline=WIDE)
    pattern = run.path("checkpoints/step-000000000[3-%d]-*.h5" % (WIDE_ROWS // 128))
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        run.until(lambda: glob.glob(pattern) or run.processes["trainerd"].poll() is not None, "a checkpoint")
        run.kill("trainerd")
    with h5py.File(max(glob.glob(run.path("checkpoints/step-*.h5")))) as f:
        return run if f.attrs["epoch"] == 0 and f.attrs["position"] > 0 else None


@limit(120)
def test_going_on_within_an_epoch_takes_no_more_than_planned():
    """Rows before the checkpoint come after the epoch's end, and before those of the evaluation: never two arenas."""
    if h5py is None:
        skip("python3-h5py is not installed")
    wide_write()
    run = next(filter(None, (killed_late_in_an_epoch("within-%d" % i) for i in range(8))))
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")
    memory = report(run)["memory"]
    planned, peak = memory["plan"]["trainerd"], memory["peak"]["trainerd"]
    print("planned %.1f MiB, peak %.1f" % (planned / 2 ** 20, peak / 2 ** 20))
    assert planned > 150 << 20 and peak <= planned + max(0.01 * peak, 4 << 20), memory
