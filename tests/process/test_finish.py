"""services/finish by itself, as s6-supervise calls it: what it keeps of a death, and when it gives up."""
import os
import shutil
import subprocess

from runs import ROOT


def run_make():
    """A run's directory with the supervisor's files and no supervisor."""
    for name in ("services/fisherd", "logs/fisherd", "exits", "checkpoints", "fisher/A.part"):
        os.makedirs("run/" + name)
    shutil.copy(os.path.join(ROOT, "pipelines/services/finish"), "run/services/fisherd/finish")


def death(code, signal=0):
    """fisherd ended so: the exit code of finish (125: it is not to be started again)."""
    return subprocess.run(["./finish", str(code), str(signal)], cwd="run/services/fisherd", capture_output=True,
                          env={**os.environ, "FINETUNED_BIN": "/nowhere"}, timeout=20).returncode


def text_of(path):
    with open("run/" + path) as f:
        return f.read()


def polite(code, sentence):
    with open("run/exits/fisherd", "w") as f:
        f.write("%d %s\n" % (code, sentence))


def test_a_death_is_explained():
    run_make()
    assert death(256, 9) == 0
    polite(111, "cannot read it")
    assert death(111) == 0
    lines = [line.split(" ", 3) for line in text_of("logs/deaths").splitlines()]
    assert [line[1:3] for line in lines] == [["fisherd", "256"], ["fisherd", "111"]], lines
    assert "signal 9" in lines[0][3] and "memory" in lines[0][3], lines
    assert lines[1][3] == "cannot read it; death 2 without progress", lines
    polite(111, "stopped by SIGTERM")  # a wish is no death
    assert death(111) == 0 and len(text_of("logs/deaths").splitlines()) == 2
    with open("run/logs/deaths", "a") as f:
        f.write("x" * 65536 + "\n")
    assert death(256, 11) == 0
    assert len(text_of("logs/deaths").splitlines()) == 1 and len(text_of("logs/deaths.old").splitlines()) == 3


def test_ten_deaths_without_progress_end_the_run():
    run_make()
    for name in ("checkpoints/step-1.h5", "fisher/A.part/sums-0"):
        assert [death(256, 9) for _ in range(9)] == [0] * 9 and not os.path.exists("run/verdict"), name
        with open("run/" + name, "ab") as f:
            f.write(b"progress")
    with open("run/fisher/A.part/sums-1", "wb") as f:
        f.truncate(4096)
    assert [death(256, 9) for _ in range(9)] == [0] * 9
    with open("run/fisher/A.part/sums-1", "ab") as f:
        f.write(b"numbers change before they are committed")
    assert death(256, 9) == 125
    code, sentence = text_of("verdict").split(" ", 1)
    assert code == "70" and "ten times without progress" in sentence and "signal 9" in sentence, sentence
