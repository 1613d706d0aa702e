"""The loader's receipts: what the report says was delivered is what numpy finds in the file."""
import os
import sys

from harness import skip
from small_run import FEATURES, ROOT, ROWS, SmallRun, data_read, data_write, report, trained

try:
    import h5py  # noqa: F401
    import numpy  # noqa: F401
except ImportError:
    h5py = None

LONG_ROWS, SPAN_ROWS = 60000, 640


def receipts(run):
    return report(run)["receipts"]


def receipts_of(settings):
    if h5py is None:
        skip("python3-numpy or python3-h5py is not installed")
    run, features, targets = trained(settings=settings)
    return receipts(run), features, targets


def digest_of(features, targets):
    sys.path.append(os.path.join(ROOT, "tests/bench"))
    from peer_loader import digest
    return "%016x" % digest(features, targets)


def test_the_report_shows_what_was_delivered():
    receipts, features, targets = receipts_of(("loader.receipt=true", "order.span_rows=128"))
    expected = digest_of(features, targets)
    found = {(r["consumer"], r["split"]): r for r in receipts}
    for key in (("trainer.train", "train"), ("trainer.validation", "validation")):
        receipt = found[key]
        assert receipt["rows"] == ROWS and receipt["digest"] == expected, (receipt, expected)
        assert receipt["spans"] == 6 and receipt["of"] == "whole" and receipt["amplification"] == 1, receipt
        shares = [receipt[name + "_share"] for name in ("read", "decode", "credit")]
        assert abs(sum(shares) - 1) < 2e-4 and min(shares) >= 0, receipt
        assert 0 < receipt["bytes_read"] and receipt["bytes_decoded"] == features.nbytes + targets.nbytes, receipt


def test_without_the_option_there_is_none():
    assert receipts_of(())[0] == []


def first_epoch_after_a_kill(settings):
    """The receipt of the first task's epoch where trainerd was killed with a checkpoint inside it; (it, digest)."""
    if h5py is None:
        skip("python3-numpy or python3-h5py is not installed")
    values = numpy.random.default_rng(5)
    data_write("data.h5", values.integers(0, 256, (LONG_ROWS, FEATURES)).astype(numpy.uint8))
    settings = ("loader.receipt=true", "order.span_rows=%d" % SPAN_ROWS, "order.window_spans=2",
                "training.batch_size=8", "training.checkpoint_every_s=0.01", *settings)
    with SmallRun("killed", "data.h5", settings=settings) as run:
        run.start("loaderd", "fisherd", "trainerd")
        run.until(lambda: newest_step(run) >= LONG_ROWS // 8 // 4, "no checkpoint")
        run.kill("trainerd")
        assert newest_step(run) < LONG_ROWS // 8, "killed too late"
        run.start("trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")
    found, = (r for r in receipts(run) if r["consumer"] == "trainer.train" and (r["task"], r["epoch"]) == ("A", 1))
    return found, digest_of(*data_read("data.h5"))


def newest_step(run):
    names = [n for n in os.listdir(run.path("checkpoints")) if n.startswith("step-") and n.endswith(".h5")]
    return max((int(n.split("-")[1]) for n in names), default=0)


def test_an_epoch_read_round_after_a_restart_is_whole():
    """All rows are kept: the reading begins where the checkpoint was and goes round to the spans before."""
    receipt, digest = first_epoch_after_a_kill(("loader.chunk_size_gb=auto",))
    assert receipt["first_span"] > 0 and receipt["of"] == "whole", receipt
    assert receipt["rows"] == LONG_ROWS and receipt["digest"] == digest, receipt


def test_an_epoch_resumed_inside_is_a_part():
    receipt, digest = first_epoch_after_a_kill(("loader.use_chunk_loader=false",))
    spans = -(-LONG_ROWS // SPAN_ROWS)
    assert receipt["of"] == "part" and receipt["first_span"] + receipt["spans"] == spans, receipt
    assert receipt["first_span"] > 0 and receipt["rows"] < LONG_ROWS and receipt["digest"] != digest, receipt
