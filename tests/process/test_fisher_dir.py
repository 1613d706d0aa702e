"""continual_learning.fisher_dir: Fisher information on another disk. Everybody finds it below the run's directory, a disk
that is not mounted is told and never replaced, and clean.sh removes what is the run's and nothing else."""
import os
import re
import shutil
import signal
import subprocess

from disk import disk
from harness import Skipped, limit, skip
from runs import Run, small, undisturbed
from small_run import BINARIES, ROOT, SmallRun, data_write

try:
    import h5py
except ImportError:
    h5py = None

OPTION = "continual_learning.fisher_dir="
BLOCKS = ("--set", "continual_learning.ewc_config.fisher_computation.block_size=100000")  # three: sums lie in files


def elsewhere():
    """A new directory, on a disk of its own where this user may mount one."""
    try:
        return os.path.realpath(disk("fast").directory)
    except Skipped:
        os.makedirs("fast", exist_ok=True)
        return os.path.realpath("fast")


def clean(*words):
    done = subprocess.run([os.path.join(ROOT, "pipelines/clean.sh"), *words], capture_output=True, text=True)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return done.stdout


def fisherd_is_killed(run):
    run.await_path("fisher/A.part")
    pid = run.pid("fisherd")
    if pid:
        os.kill(pid, signal.SIGKILL)


def everybody_finds_it(run, fast):
    """h5py, the report, predict.sh, which leaves nothing there, compare.sh and the forecast."""
    target = os.readlink(run.path("fisher"))
    assert os.path.dirname(target) == fast and re.search(r"/fashion-[0-9a-f]{8}$", target), target
    assert os.listdir(fast) == [os.path.basename(target)]
    assert sorted(os.listdir(target)) == ["A.h5", "run"] and os.stat(target).st_mode & 0o777 == 0o700
    with h5py.File(run.path("fisher/A.h5")) as f:
        assert f.attrs["parameters"] == 269322 and len(f["blocks"]) == 3
    state, = run.report()["ewc_state"]
    assert state["bytes"] == os.path.getsize(os.path.join(target, "A.h5"))
    for words in (["predict.sh", "--run", run.directory, "--task", "B", "--out", "out.h5"], ["compare.sh", run.directory, run.directory]):
        done = subprocess.run([os.path.join(ROOT, "pipelines", words[0]), *words[1:]], capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
    assert os.listdir(fast) == [os.path.basename(target)]


@limit(120)
def test_a_run_whose_fisher_information_lies_elsewhere():
    """Killed, stopped and resumed it ends as one without the option, and goes as a whole."""
    if h5py is None:
        skip("python3-h5py is not installed")
    fast = elsewhere()
    words = (*small(4), *BLOCKS)
    there = (*words, "--set", OPTION + os.path.relpath(fast, ROOT))
    nowhere = Run("run", *words, "--set", OPTION + fast + "/none", "--plan")
    assert nowhere.wait() == 100 and "cannot keep Fisher information in %s/none" % fast in nowhere.output(), nowhere.output()
    plan = Run("run", *there, "--plan")
    assert plan.wait() == 0, plan.output()
    told = re.search(r"Fisher information [0-9.]+ MiB( on another disk, \d+ MiB free at %s)?" % fast, plan.output())
    assert told and bool(told.group(1)) == (os.stat(fast).st_dev != os.stat(".").st_dev), plan.output()
    run = Run("run", *there)
    fisherd_is_killed(run)
    run.process.send_signal(signal.SIGTERM)
    assert run.wait() == 143, run.output()
    run = Run("run", *there)
    report = run.finish()
    whole = undisturbed(*words)
    assert report["weights_sha256"] == whole["weights_sha256"] and report["reproducible"] is True
    everybody_finds_it(run, fast)
    again = Run("run", *words)
    assert again.wait() == 100 and "the Fisher information so far lies in the old one" in again.output(), again.output()
    said = clean("--older-than", "0", run.directory)
    assert "would remove the run and " + fast in said and os.listdir(fast), said
    assert "removes the run and " + fast in clean("--older-than", "0", "--yes", run.directory)
    assert not os.path.exists(run.directory) and not os.listdir(fast)


def finished(name, fast):
    """A run's directory as prepare makes it, that says it is finished, with Fisher files and something left over."""
    run = SmallRun(name, "data.h5", settings=(OPTION + os.path.abspath(fast),))
    with open(run.path("verdict"), "w") as f:
        f.write("0 done\n")
    os.mkdir(run.path("fisher/A.part"))
    for path in ("fisher/A.h5", "fisher/A.part/sums-0"):
        with open(run.path(path), "wb") as f:
            f.write(b"x" * (3 << 20))
    return run, os.path.join(run.directory, os.readlink(run.path("fisher")))


def test_clean_up_removes_what_is_the_runs_and_nothing_else():
    data_write("data.h5")
    os.mkdir("fast")
    run, target = finished("run", "fast")
    assert "run: 7 MiB, 0 days, ended with 0" in clean("run")
    assert "would remove 1 files that only going on would need (3 MiB)" in clean("--checkpoints", "run")
    clean("--checkpoints", "--yes", "run")
    assert os.listdir(os.path.join(target, "A.part")) == [] and os.path.exists(run.path("fisher/A.h5"))

    shutil.copytree("run", "copy", symlinks=True)
    assert "leaves %s, which is not known to be this run's" % target in clean("--older-than", "0", "--yes", "copy")
    assert not os.path.exists("copy") and os.path.exists(run.path("fisher/A.h5"))

    os.makedirs("home/mine-12345678")
    with open("home/mine-12345678/run", "w") as f:
        f.write("run the machine\n")
    other, its = finished("other", "fast")
    shutil.copytree("other", "kept", symlinks=True)
    for place in (os.path.abspath("home"), os.path.abspath("home/mine-12345678"), "/", "../home/mine-12345678", its, target):
        shutil.copytree("kept", "mistaken", symlinks=True)
        os.remove("mistaken/fisher")
        os.symlink(place, "mistaken/fisher")
        assert "leaves %s, which" % place in clean("--older-than", "0", "--yes", "mistaken"), place
    assert sorted(os.listdir("home")) == ["mine-12345678"] and os.listdir("home/mine-12345678") == ["run"]
    assert os.path.exists(other.path("fisher/A.h5")) and os.path.exists(run.path("fisher/A.h5"))

    os.rename("fast", "unmounted")
    said = clean("--older-than", "0", "--yes", "run")
    assert "left alone: its Fisher information is in %s, which cannot be reached" % target in said, said
    os.rename("unmounted", "fast")
    os.rename("run", "moved")
    shutil.copytree("moved", "copy", symlinks=True)  # of one that is not where its file says
    assert "leaves %s, which is not known to be this run's" % target in clean("--older-than", "0", "--yes", "copy")
    assert not os.path.exists("copy") and os.path.exists(os.path.join(target, "A.h5"))
    assert "removes the run and " + target in clean("--older-than", "0", "--yes", "moved")
    assert not os.path.exists("moved") and not os.path.exists(target) and os.listdir("fast") == [os.path.basename(its)]


def test_a_disk_that_is_not_mounted_ends_the_run_with_its_name():
    """At a launch, and of a stage that is started again; nothing is made in its place."""
    data_write("data.h5")
    space = disk("fast", 8)
    run, target = finished("run", "fast")
    os.remove(run.path("verdict"))
    subprocess.run(["umount", space.directory], check=True)
    sentence = "the run's Fisher information is in %s, which cannot be reached; mount its disk" % target
    launched = subprocess.run([os.path.join(BINARIES, "prepare"), "run", "--config", "run.yaml", "--run", "run", "--set",
                               OPTION + space.directory, "--set", "data.file=" + os.path.abspath("data.h5")],
                              capture_output=True, text=True)
    assert launched.returncode == 111 and sentence in launched.stderr, launched
    with run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 111 and sentence in run.log("trainerd"), run.log("trainerd")
    assert os.listdir(space.directory) == []
