"""A file that faults its reader every time ends the run with one sentence, soon; one fault does not."""
import os
import re
import signal
import time

from harness import limit
from runs import Run, small, undisturbed

SPANS = ("--set", "order.span_rows=512")
FEW_SLOTS = (*SPANS, "--set", "arena.slots=5")


def readers(run):
    """Readers of the run's loaderd, as their own name says (a stage that starts one has not named it yet)."""
    found = []
    for pid in run.processes():
        try:
            with open("/proc/%d/comm" % pid) as f:
                if f.read().strip() == "loaderd-reader":
                    found.append(pid)
        except OSError:
            pass
    return found


@limit(60)
def test_a_file_that_faults_each_reader_is_rejected():
    run = Run("faults", *small(8), *FEW_SLOTS)
    begin = None
    hit = set()
    while run.process.poll() is None:
        for pid in readers(run):
            if pid not in hit:
                begin = begin or time.monotonic()
                hit.add(pid)
                try:
                    os.kill(pid, signal.SIGSEGV)
                except ProcessLookupError:
                    pass  # loaderd was quicker
        time.sleep(0.005)
    assert run.wait() == 100, run.output()[-2000:]
    assert time.monotonic() - begin < 15, "it took %.0f s" % (time.monotonic() - begin)
    assert 3 <= len(hit) <= 6, hit  # the splits have a reader each
    # the third one decides; the other split's reader may have been hit before that was heard
    assert re.search(r"[3-6] of its readers died, the last one of an access outside its memory \(SIGSEGV\)",
                     run.output()), run.output()[-2000:]


@limit(120)
def test_two_faults_change_nothing():
    run = Run("two-faults", *small(8), *FEW_SLOTS)
    for _ in range(2):
        found = []
        run.until(lambda: found.extend(readers(run)) or found, "no reader")
        pid = found[0]
        os.kill(pid, signal.SIGSEGV)
        run.until(lambda: pid not in readers(run), "the reader lives")
    assert run.finish()["weights_sha256"] == undisturbed(*small(8), *SPANS)["weights_sha256"]
