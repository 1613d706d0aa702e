"""What the process tests share: a pipeline started as a user starts it, watched and disturbed. Where a case
names none it is pipelines/fashion.yaml, which takes seconds; the default one takes a minute.

A case that disturbs a run need not disturb a large one: small() makes this pipeline one of a tenth of the rows.
It ends as an undisturbed run did, which undisturbed() has done once for all cases."""
import hashlib
import json
import os
import signal
import subprocess
import time

from harness import shared
from small_run import data_write

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FASHION = ("--config", os.path.join(ROOT, "pipelines/fashion.yaml"))
STAGES = ("loaderd", "trainerd", "fisherd", "monitord")


def plan_check(report, stages=STAGES):
    """Each stage's peak is what was planned: to 1 % or 4 MiB, whichever is more."""
    memory = report["memory"]
    for stage in stages:
        planned, peak = memory["plan"][stage], memory["peak"][stage]
        assert peak > 1 << 20 and abs(planned - peak) <= max(0.01 * peak, 4 << 20), (stage, planned, peak, memory)


SMALL_ROWS = 6016  # 47 steps an epoch


def small_write(path):
    """Ten classes of images of Fashion-MNIST's size, each a pattern of its own under noise."""
    import numpy
    random = numpy.random.default_rng(5)
    targets = random.integers(0, 10, SMALL_ROWS).astype(numpy.uint8)
    patterns = random.integers(0, 128, (10, 784)).astype(numpy.uint8)
    noise = random.integers(0, 16, (SMALL_ROWS, 784)).astype(numpy.uint8)
    data_write(path, patterns[targets] + 8 * noise, targets, validation_rows=1000)


def small(epochs=1, others=1):
    """Settings: a tenth of Fashion-MNIST's rows, made up, this many epochs of task A and of the other tasks. 8
    epochs take a second or two, so that there is time to meddle."""
    settings = ("data.prepare=none", "data.file=" + shared("small.h5", small_write), "tasks.A.epochs=%d" % epochs,
                "tasks.B.epochs=%d" % others, "tasks.B-without-ewc.epochs=%d" % others)
    return tuple(word for setting in settings for word in ("--set", setting))


def undisturbed(*settings, report=None):
    """The report of a run with these settings that nobody disturbed; a case that has one already gives it."""
    def write(path):
        made = report or Run("undisturbed", *settings).finish()
        assert not any(made["restarts"].values()) and made["reproducible"] is True, made
        with open(path, "w") as f:
            json.dump(made, f)
    name = "report-" + hashlib.sha256("\0".join(settings).encode()).hexdigest()
    with open(shared(name, write)) as f:
        return json.load(f)


class Run:
    """One `finetune.sh --run DIR`, or another script; arguments are passed on. Output is kept in DIR.log."""

    def __init__(self, directory, *arguments, environment=None, script="finetune.sh"):
        self.directory = os.path.abspath(directory)
        self.log_path = self.directory.rstrip("/") + ".log"
        self.log = open(self.log_path, "ab")
        if script == "finetune.sh" and "--config" not in arguments:
            arguments = (*FASHION, *arguments)
        self.process = subprocess.Popen(
            [os.path.join(ROOT, "pipelines", script), "--run", self.directory, *arguments],
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})}, start_new_session=True)

    def path(self, *parts):
        return os.path.join(self.directory, *parts)

    def output(self):
        with open(self.log_path, errors="replace") as f:
            return f.read()

    def wait(self, timeout=120):
        """Exit code of the script; the run is stopped when it takes longer."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(20)
            raise AssertionError("the run took over %d s; its output:\n%s" % (timeout, self.output()[-3000:]))

    def finish(self, timeout=120):
        code = self.wait(timeout)
        assert code == 0, "exit code %d; output:\n%s" % (code, self.output()[-3000:])
        return self.report()

    def report(self):
        with open(self.path("report/report.json")) as f:
            return json.load(f)

    def pid(self, stage):
        """Process id of a stage that holds its lock, or 0."""
        try:
            with open(self.path("locks", stage)) as f:
                pid = int(f.read().split()[1])
            with open("/proc/%d/cmdline" % pid) as f:
                return pid if stage in f.read() and self.directory in open("/proc/%d/cmdline" % pid).read() else 0
        except (OSError, IndexError, ValueError):
            return 0

    def await_path(self, *parts, timeout=60):
        self.until(lambda: os.path.exists(self.path(*parts)), "no " + "/".join(parts), timeout)

    def until(self, condition, what, timeout=60):
        """Poll a condition; fails when the run ends or the time is over before it holds."""
        end = time.monotonic() + timeout
        while not condition():
            assert self.process.poll() is None, what + ": the run ended:\n" + self.output()[-3000:]
            assert time.monotonic() < end, what + " within %d s:\n" % timeout + self.output()[-3000:]
            time.sleep(0.02)

    def processes(self):
        """Every daemon and helper of this run: {pid: first word of its command line}."""
        found = {}
        for name in os.listdir("/proc"):
            if not name.isdigit():
                continue
            try:
                with open("/proc/%s/cmdline" % name) as f:
                    words = f.read().split("\0")
            except OSError:
                continue
            stage = os.path.basename(words[0])
            if stage in STAGES and any(w == self.directory for w in words):
                found[int(name)] = stage
        return found
