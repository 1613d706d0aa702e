"""What a run will take of the disk, said before it is taken; and clean.sh, which makes room and leaves what is needed."""
import os
import re
import subprocess
import time

from harness import limit, skip
from runs import Run, small
from small_run import ROOT

try:
    import h5py
except ImportError:
    h5py = None


def clean(*words, code=0):
    done = subprocess.run([os.path.join(ROOT, "pipelines/clean.sh"), *words], capture_output=True, text=True)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done.stdout + done.stderr


@limit(120)
def test_forecast_and_clean_up_of_a_finished_run():
    """The forecast of --plan is not less than what the run leaves; cleaned, it can still be compared and predicted from."""
    if h5py is None:
        skip("python3-h5py is not installed")
    words = (*small(), "--set", "training.checkpoint_every_s=0.01")
    plan = Run("run", *words, "--plan")
    assert plan.wait() == 0, plan.output()
    told = re.search(r"disk: up to ([0-9.]+) MiB of [0-9]+ MiB free: (\d+) checkpoints of ([0-9.]+) MiB", plan.output())
    assert told, plan.output()[-2000:]
    run = Run("run", *words)
    report = run.finish()
    files = {os.stat(run.path(d, f)).st_ino: os.stat(run.path(d, f)).st_size
             for d in ("checkpoints", "fisher") for f in os.listdir(run.path(d)) if os.path.isfile(run.path(d, f))}
    assert sum(files.values()) <= float(told.group(1)) * 1.05 * (1 << 20), (files, told.groups())
    steps = sorted(f for f in os.listdir(run.path("checkpoints")) if f.startswith("step-"))
    assert len(steps) == 3
    said = clean("--checkpoints", run.directory)
    assert "would remove 2 files" in said and sorted(os.listdir(run.path("checkpoints")))[-5:], said
    clean("--checkpoints", "--yes", run.directory)
    left = sorted(os.listdir(run.path("checkpoints")))
    assert [f for f in left if f.startswith("step-")] == steps[-1:] and "task-A.h5" in left and "best-B.h5" in left, left
    done = subprocess.run([os.path.join(ROOT, "pipelines/compare.sh"), run.directory, run.directory], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    again = Run("run", *words)
    assert again.finish()["weights_sha256"] == report["weights_sha256"]
    assert "would remove the run" not in clean("--older-than", "1", run.directory)
    past = time.time() - 3 * 86400
    os.utime(run.path("verdict"), (past, past))
    holder = subprocess.Popen(["sh", "-c", "exec 9>>$0/lock; flock 9; echo held; exec sleep 60", run.directory],
                              stdout=subprocess.PIPE)
    assert holder.stdout.readline() == b"held\n"
    assert "going on" in clean("--older-than", "2", "--yes", run.directory)
    holder.kill()
    holder.wait()
    assert "removes the run" in clean("--older-than", "2", "--yes", run.directory)
    assert not os.path.exists(run.directory)
    os.mkdir("other")
    assert "other is no run" in clean("other", code=100)
