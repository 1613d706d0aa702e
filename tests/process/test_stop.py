"""A stage that is stopped (SIGSTOP) is silent but not dead: who waits for it kills it, and the run ends as ever."""
import os
import signal

from harness import limit
from runs import Run, STAGES, small, undisturbed

SPANS = ("--set", "order.span_rows=512")
IMPATIENT = ("--set", "loader.peer_timeout_s=1", "--set", "arena.slots=5")


def parent_of(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return int(f.read().rsplit(")", 1)[1].split()[1])
    except OSError:
        return 0


def reader_of(run):
    """One of loaderd's readers, perhaps before its exec, or 0."""
    main = run.pid("loaderd")
    return next((pid for pid in run.processes() if main and parent_of(pid) == main), 0)


def is_gone(pid):
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


@limit(120)
def test_stopped_processes_are_ended():
    run = Run("stopped", *small(8), *SPANS, *IMPATIENT)
    run.until(lambda: all(run.pid(s) for s in STAGES), "not all stages started")
    for find in (lambda: reader_of(run), lambda: run.pid("loaderd"), lambda: run.pid("fisherd")):
        run.until(find, "nothing to stop")
        pid = find()
        os.kill(pid, signal.SIGSTOP)
        run.until(lambda: is_gone(pid), "process %d is stopped and lives" % pid, 30)
    report = run.finish()
    assert report["weights_sha256"] == undisturbed(*small(8), *SPANS)["weights_sha256"]
    assert report["reproducible"] is True
    assert report["restarts"]["loaderd"] == 1 and report["restarts"]["fisherd"] == 1, report["restarts"]
