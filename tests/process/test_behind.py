"""Checkpoints that a thread writes behind training, where the device is apart (the emulated one of test_cuda.py): held in the
middle of one by ptrace, killed there, told of a full disk, and stopped politely."""
import ctypes
import os
import re
import signal
import subprocess
import time

from harness import limit, shared, skip
from small_run import BINARIES, SmallRun, facts
from test_cuda import SETTINGS, device_take, report, run_on, state

OFTEN = (*SETTINGS, "tasks.A.epochs=12", "device=cuda", "training.batch_size=8", "training.checkpoint_every_s=0.01")
SEIZE, INTERRUPT, DETACH, ALL_THREADS = 0x4206, 0x4207, 17, 0x40000000


class Held:
    """A thread that stands still while the rest of its process goes on."""
    trace = ctypes.CDLL(None, use_errno=True).ptrace
    trace.argtypes = [ctypes.c_long] * 4

    def __init__(self, thread):
        self.thread, self.is_held = thread, self.trace(SEIZE, thread, 0, 0) == 0
        if not self.is_held and ctypes.get_errno() in (1, 38):
            skip("ptrace is not permitted here")
        if self.is_held:
            self.trace(INTERRUPT, thread, 0, 0)
            self.is_held = os.WIFSTOPPED(os.waitpid(thread, ALL_THREADS)[1])

    def let_go(self):
        if self.is_held:
            self.trace(DETACH, self.thread, 0, 0)


def writers(pid):
    """The threads of trainerd that write a checkpoint now."""
    for thread in os.listdir("/proc/%d/task" % pid):
        try:
            with open("/proc/%d/task/%s/comm" % (pid, thread)) as f:
                if f.read() == "checkpoint\n":
                    yield int(thread)
        except OSError:  # it has ended
            pass


def steps_made(run):
    return os.path.getsize(run.path("lineage")) // 32


def goes_on(run, seconds=0.3):
    """Three steps more."""
    before, end = steps_made(run), time.monotonic() + seconds
    while time.monotonic() < end:
        if steps_made(run) >= before + 3:
            return True
        time.sleep(0.001)
    return False


def hold_a_write(run, pid):
    """The step of a checkpoint of which a part is written, while training has gone on: its thread stands still."""
    def attempt():
        for thread in writers(pid):
            held = Held(thread)
            part = re.search(r"step-(\d+)-\d+\.h5\.tmp-%d " % pid, " ".join(os.listdir(run.path("checkpoints"))) + " ")
            if held.is_held and part and goes_on(run):
                return held, int(part.group(1))
            held.let_go()
        return None
    end = time.monotonic() + 20
    while time.monotonic() < end and os.path.exists("/proc/%d/task" % pid):
        found = attempt()
        if found:
            return found
    raise AssertionError("no write was seen behind training: " + run.log("trainerd"))


def expected():
    """Digest of the weights of a run that nothing disturbs."""
    def make(path):
        with open(path, "w") as f:
            f.write(state(run_on("undisturbed", settings=OFTEN))[1].decode())
    with open(shared("behind", make)) as f:
        return f.read()


def told(run):
    return [fact["step"] for fact in facts(run, "trainerd", "trainer.checkpoint")]


@limit(60)
def test_killed_while_a_checkpoint_is_written_behind_training():
    device_take()
    with SmallRun("killed", "data.h5", settings=OFTEN) as run:
        run.start("loaderd", "fisherd", "trainerd")
        run.until(lambda: os.path.exists(run.path("lineage")), "no lineage")
        for _ in range(2):
            trainerd = run.processes["trainerd"].pid
            held, step = hold_a_write(run, trainerd)
            assert step not in told(run) and step < steps_made(run), (step, told(run))
            os.kill(trainerd, signal.SIGKILL)
            os.waitpid(held.thread, ALL_THREADS)
            run.processes["trainerd"].wait()
            assert not os.path.exists(run.path("checkpoints/step-%010d-00.h5" % step))
            run.start("trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
    assert state(run)[1].decode() == expected() and report(run)["reproducible"] is True
    assert not [n for n in os.listdir(run.path("checkpoints")) if "tmp" in n]


def epochs_behind_a_write(name, *settings):
    """How many epochs end while the checkpoint of an epoch is not yet written, 5 at most, and of which steps checkpoints were told,
    in a run of 16 epochs of 20 steps."""
    def attempt():
        for thread in writers(trainerd):
            held = Held(thread)
            if held.is_held and goes_on(run):
                return held
            held.let_go()
        return None
    with SmallRun(name, "data.h5", settings=(*OFTEN, "tasks.A.epochs=16", "training.batch_size=16", "training.checkpoint_every_s=3600",
                                                   *settings)) as run:
        run.start("loaderd", "fisherd", "trainerd")
        trainerd, held = run.processes["trainerd"].pid, None
        run.until(lambda: os.path.exists(run.path("journals/trainerd")) and len(told(run)) > 1, "no checkpoint was told")
        while not held and run.processes["trainerd"].poll() is None:
            held = attempt()
        assert held, run.log("trainerd")
        before, end = steps_made(run) // 20, time.monotonic() + 2
        while steps_made(run) // 20 < before + 5 and time.monotonic() < end:
            time.sleep(0.01)
        behind = steps_made(run) // 20 - before
        held.let_go()
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
    return behind, [step for step in told(run) if step <= 320]


@limit(60)
def test_epochs_shorter_than_the_writing_of_a_checkpoint():
    """Those that are not better than the best before do not wait for the checkpoint before them, and have none then. The others do:
    they are the best that there is."""
    device_take()
    still = ("training.learning_rate=1e-12", "training.metric=loss")  # the loss is what it was
    behind, steps = epochs_behind_a_write("short", *still)
    assert behind >= 5 and steps[-1] == 320 and len(steps) < 13, (behind, steps)
    behind, steps = epochs_behind_a_write("restores", *still, "training.on_nan=restore")
    assert behind <= 1 and steps == list(range(20, 321, 20)), (behind, steps)
    behind, steps = epochs_behind_a_write("better", "training.learning_rate=1e-5", "training.metric=loss")
    assert behind <= 1 and steps == list(range(20, 321, 20)), (behind, steps)


@limit(60)
def test_a_full_disk_and_a_stop_behind_training():
    """One sentence and 111; asked for a checkpoint and for its memory it goes on; a stop waits for what is under way and
    leaves its last step as a checkpoint."""
    device_take()
    with SmallRun("full", "data.h5", settings=OFTEN) as run:
        run.start("loaderd", "fisherd")
        for fails in ("fsync:5:ENOSPC", "rename:3:ENOSPC"):
            run.start("trainerd", environment={"FINETUNED_FAIL": fails})
            assert run.wait("trainerd") == 111, run.log("trainerd")
        errors = re.findall(r" error code=111 (cannot \w+) checkpoints[^:]*: No space left on device\n", run.log("trainerd"))
        assert errors == ["cannot fsync", "cannot rename"] and run.log("trainerd").count(" error ") == 2, run.log("trainerd")
        os.remove(run.path("lineage"))  # of steps that were made before the disk was full
        run.start("trainerd")
        begun = len(told(run))
        run.until(lambda: len(told(run)) > begun + 1, "no checkpoint was told")
        for verb in ("checkpoint", "release"):  # between steps, of which one may be on its way
            subprocess.run([os.path.join(BINARIES, "tap"), "--run", run.directory, "--ask", "trainerd", verb], check=True,
                           stdout=subprocess.DEVNULL)
        run.processes["trainerd"].terminate()
        assert run.wait("trainerd") == 111 and told(run)[-1] == steps_made(run), (told(run), steps_made(run))
        newest = max(n for n in os.listdir(run.path("checkpoints")) if n.startswith("step-"))
        assert int(newest[5:15]) == told(run)[-1]
        run.start("trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
    assert state(run)[1].decode() == expected()
