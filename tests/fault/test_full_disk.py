"""A full disk during a checkpoint or a Fisher block: exit 111, the old file stays, the run goes on afterwards."""
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "process"))
from disk import disk
from harness import limit
from runs import Run, small, undisturbed

OFTEN = ("--set", "training.checkpoint_every_s=0.1")


@limit(180)
def test_disk_full_during_checkpoints_and_blocks():
    for call in ("write:40:ENOSPC", "fsync:9:EIO", "rename:7:ENOSPC"):
        name = "full-" + call.split(":")[0]
        run = Run(name, *small(2), *OFTEN, environment={"FINETUNED_FAIL": call})
        code = run.wait(120)
        output = run.output()
        # every incarnation fails after the n-th call: it makes progress between, or ends with the verdict 70
        assert code in (0, 70), (call, code, output[-2000:])
        assert code == 70 or any(run.report()["restarts"].values()), call  # else nothing has failed
        if code == 70:
            sentence = output.lower()
            assert "no space" in sentence or "input/output" in sentence, output[-2000:]
        left = [f for f in os.listdir(run.path("checkpoints")) if "tmp" in f]
        assert not left, left
        report = Run(name, *small(2), *OFTEN).finish()
        assert report["weights_sha256"] == undisturbed(*small(2))["weights_sha256"], call


@limit(60)
def test_checkpoint_that_cannot_be_written_exits_111():
    run = Run("one", *small(), *OFTEN, environment={"FINETUNED_FAIL": "rename:6:ENOSPC"})
    run.wait(100)
    logs = subprocess.run("cat " + run.path("logs/trainerd/current"), shell=True, capture_output=True, text=True)
    assert "code=111" in logs.stdout, logs.stdout[-2000:]


@limit(120)
def test_disk_without_a_byte_left_ends_the_run():
    """The whole run's disk, that of the supervisor's files too: verdict 70, and it goes on when there is room."""
    space = disk("run")
    table = ("--set", "monitor.csv=true")
    run = Run("run", *small(8), *OFTEN, *table)
    run.until(lambda: os.path.isdir("run/checkpoints") and os.listdir("run/checkpoints"), "no checkpoint")
    end = time.monotonic() + 60
    while run.process.poll() is None:
        assert time.monotonic() < end, run.output()[-2000:]
        space.fill()
        time.sleep(0.05)
    assert run.process.returncode == 70, (run.process.returncode, run.output()[-2000:])
    assert "died ten times without progress" in run.output(), run.output()[-2000:]
    space.empty()
    report = Run("run", *small(8), *OFTEN, *table).finish()
    with open("run/logs/metrics.csv") as f:
        columns = [line.count(",") for line in f]
    assert len(columns) > 1 and len(set(columns)) == 1, set(columns)
    assert report["weights_sha256"] == undisturbed(*small(8))["weights_sha256"]


@limit(120)
def test_fisher_information_without_a_byte_left_ends_the_run():
    """Its disk alone (continual_learning.fisher_dir): verdict 70 that names it, and it goes on when there is room."""
    space = disk("fast", 8)
    words = (*small(8), "--set", "continual_learning.fisher_dir=" + space.directory)
    run = Run("run", *words)
    run.await_path("fisher/run")
    space.fill()
    assert run.wait(100) == 70, run.output()[-2000:]
    assert "fisherd died ten times without progress" in run.output(), run.output()[-2000:]
    assert "No space left on device" in run.output() and space.directory in run.output().splitlines()[-1], run.output()[-2000:]
    space.empty()
    assert Run("run", *words).finish()["weights_sha256"] == undisturbed(*small(8))["weights_sha256"]
