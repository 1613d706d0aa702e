"""What a run will take of the disk, said before it is taken; and clean.sh, which makes room and leaves what is needed."""
import fcntl
import os
import re
import shutil
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


def launch_during_removal(run):
    """Started while clean.sh holds the lock it waits, and takes that of the directory which then has the name."""
    with open("/proc/self/stat") as f:
        ours = "%d %s cleaning\n" % (os.getpid(), f.read().rsplit(")", 1)[1].split()[19])
    with open(run.path("lock"), "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)  # as a listing does for a moment: no reason to refuse another
        assert "3 days, ended with 0" in clean(run.directory)
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate()
        lock.write(ours)
        lock.flush()
        late = Run("run", "--set", "data.file=" + os.path.abspath("none.h5"), "--set", "data.source=/no/such")
        late.until(lambda: "waits for clean.sh (process %d)" % os.getpid() in late.output(), "does not wait")
        os.rename(run.directory, "aside")
    assert late.wait() == 100 and "/no/such" in late.output(), late.output()
    with open(run.path("lock")) as new, open("aside/lock") as old:
        assert "attached" in new.read() and old.read() == ours
    shutil.rmtree(run.directory)
    os.rename("aside", run.directory)


def paused_run_is_kept(run):
    """By a list of all runs, that is: it waits to go on. Below another repository's runs/, a link is no run either."""
    os.makedirs("repository/runs")
    shutil.copytree(os.path.join(ROOT, "pipelines"), "repository/pipelines")
    os.rename(run.directory, "repository/runs/run")
    os.symlink("run", "repository/runs/link")
    verdict = "repository/runs/run/verdict"
    with open(verdict) as f:
        ended, before = f.read(), os.stat(verdict)
    with open(verdict, "w") as f:
        f.write("75 the time limit is over\n")
    os.utime(verdict, (before.st_atime, before.st_mtime))
    all_runs = [os.path.abspath("repository/pipelines/clean.sh"), "--older-than", "2"]
    said = subprocess.run(all_runs + ["--yes"], capture_output=True, text=True, check=True).stdout
    assert said.count("\n") == 1 and "3 days, paused" in said, said
    said = subprocess.run(all_runs + ["repository/runs/run"], capture_output=True, text=True, check=True).stdout
    assert "would remove the run" in said, said
    with open(verdict, "w") as f:
        f.write(ended)
    os.utime(verdict, (before.st_atime, before.st_mtime))
    said = subprocess.run(all_runs, capture_output=True, text=True, check=True).stdout
    assert said.count("\n") == 2 and "would remove the run" in said, said
    os.rename("repository/runs/run", run.directory)
    interrupted_removal_is_ended(all_runs)


def interrupted_removal_is_ended(all_runs):
    """What a clean.sh that was killed had renamed goes; not what one that is there has."""
    ended = subprocess.Popen(["true"])
    ended.wait()
    left, live = ("repository/runs/.run.removed-%d" % pid for pid in (ended.pid, os.getpid()))
    for name in (left, live, "repository/runs/mine.removed-%d" % ended.pid):  # the last by its owner
        os.makedirs(name + "/checkpoints")
    said = subprocess.run(all_runs, capture_output=True, text=True, check=True).stdout
    assert said.count("\n") == 2 and "would remove it" in said and os.path.isdir(left), said
    subprocess.run(all_runs + ["--yes"], check=True, stdout=subprocess.DEVNULL)
    assert set(os.listdir("repository/runs")) == {"link", os.path.basename(live), "mine.removed-%d" % ended.pid}


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
    before = sorted(os.listdir(run.path("checkpoints")))
    os.rename(run.path("lock"), "lock")
    said = clean("--checkpoints", run.directory)
    assert "would remove 2 files" in said and sorted(os.listdir(run.path("checkpoints"))) == before, said
    assert not os.path.exists(run.path("lock")), "a listing has made a lock"
    os.rename("lock", run.path("lock"))
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
    os.symlink(run.directory, "link")
    for name in ("link", "link/"):
        assert "link is a link; name the run itself, " + run.directory in clean("--older-than", "2", "--yes", name, code=100)
    launch_during_removal(run)
    paused_run_is_kept(run)
    assert "removes the run" in clean("--older-than", "2", "--yes", run.directory)
    assert not os.path.exists(run.directory) and not [f for f in os.listdir(".") if "removed" in f]
    os.mkdir("other")
    assert "other is no run" in clean("other", code=100)
