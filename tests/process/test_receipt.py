"""The loader's receipts: what the report says was delivered is what numpy finds in the file."""
import json
import os
import subprocess
import sys

from harness import skip
from small_run import BINARIES, ROOT, ROWS, trained

try:
    import h5py  # noqa: F401
    import numpy  # noqa: F401
except ImportError:
    h5py = None


def receipts_of(settings):
    if h5py is None:
        skip("python3-numpy or python3-h5py is not installed")
    run, features, targets = trained(settings=settings)
    subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True,
                   stdout=subprocess.DEVNULL)
    with open(run.path("report/report.json")) as f:
        return json.load(f)["receipts"], features, targets


def test_the_report_shows_what_was_delivered():
    receipts, features, targets = receipts_of(("loader.receipt=true", "order.span_rows=128"))
    sys.path.append(os.path.join(ROOT, "tests/bench"))
    from peer_loader import digest
    expected = "%016x" % digest(features, targets)
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
