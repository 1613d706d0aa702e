"""services/finish by itself, as s6-supervise calls it: what it keeps of a death, and when it gives up."""
import os
import subprocess

from disk import disk
from runs import ROOT


def run_make():
    """A run's directory with the supervisor's files and no supervisor."""
    for name in ("exits", "checkpoints", "fisher/A.part"):
        os.makedirs("run/" + name)
    subprocess.run(["bash", "-c", '. "$here/launch.sh" && run=$PWD/run && deaths_make && services_write'], check=True,
                   env={**os.environ, "here": os.path.join(ROOT, "pipelines")})


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


def test_the_first_verdict_stands_and_is_whole():
    run_make()
    polite(100, "x" * 700)
    assert death(100) == 125 and text_of("verdict") == "100 fisherd: %s\n" % ("x" * 700)
    polite(100, "another one")  # somebody started it again
    assert death(100) == 125 and text_of("verdict") == "100 fisherd: %s\n" % ("x" * 700)


def test_deaths_that_cannot_be_counted_end_the_run():
    run_make()
    os.remove("run/deaths/fisherd")
    os.mkdir("run/deaths/fisherd")  # nobody, not even root, can write into it
    assert death(256, 11) == 125
    assert text_of("verdict").startswith("70 fisherd died and its deaths cannot be counted"), text_of("verdict")


def test_a_disk_without_a_byte_left_counts_and_decides():
    """On a tmpfs: what finish writes was made before."""
    space = disk("disk")
    os.chdir(space.directory)
    run_make()
    space.fill()
    assert [death(111) for _ in range(10)] == [0] * 9 + [125]
    assert "ended with code 111; no space is left" in text_of("verdict"), text_of("verdict")


def test_a_disk_of_its_own_for_fisher_information_is_told():
    run_make()
    space = disk("fast", 1)
    os.rmdir("run/fisher/A.part")
    os.rmdir("run/fisher")
    os.symlink(space.directory, "run/fisher")
    space.fill()
    assert death(111) == 0
    assert text_of("logs/deaths").endswith("ended with code 111; no space is left in %s\n" % os.path.abspath("run/fisher"))
