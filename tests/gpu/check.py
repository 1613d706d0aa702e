"""What a step of gpu_check.py is given (Check), and a step in work (Work): a child process that ends when its time is up,
with all that it has started, so that nothing that hangs can take another step's time."""
import collections
import json
import os
import re
import select
import signal
import subprocess
import sys
import time
import traceback

import numpy

from cases import PROBE, case_path
from results import row_make, row_print

MARK = "GPU_CHECK_STEP"  # in the environment of all that a step starts: its directory
END_S = 2  # for what is killed to end
HALVES = {"f32": 0, "f16": 1, "bf16": 2}

# name; what it does, given a Check; seconds at most; steps that must have passed before; the peers that it times, as
# (name, precision); bars by the names of its rows; its share of the cores, where these are divided.
Step = collections.namedtuple("Step", "name run limit_s needs peers bars share", defaults=((), (), {}, 1))


class Skipped(Exception):
    pass


class Failed(Exception):
    pass


def shown(text):
    """The end of what a command said, without what was skipped."""
    return "\n".join(line for line in text.strip().splitlines() if "SKIP" not in line and "not written" not in line)[-4000:]


def counts_read(out, least):
    """The words of tests that ended with "N passed, N failed, N skipped", and what was skipped. At least so many must have
    passed: where nearly all are skipped nothing was checked."""
    found = re.findall(r"^(\d+) passed, (\d+) failed, (\d+) skipped$", out, re.MULTILINE)
    if not found:
        raise Failed("they ended without a count: " + shown(out)[-300:])
    passed, failed, skipped = (int(n) for n in found[-1])
    words = "%d passed, %d failed, %d skipped" % (passed, failed, skipped)
    if failed or passed < least:
        raise Failed("%s; at least %d are to pass" % (words, least))
    return ", ".join([words, *re.findall(r"^SKIP (.*)", out, re.MULTILINE)])


def marked_kill(mark):
    """Ends the processes that have it, or a folder in it, in their environment, whatever sessions they are in. One that a driver
    holds is left."""
    wanted, until = ("%s=%s/" % (MARK, mark)).encode(), time.monotonic() + END_S
    while time.monotonic() < until:
        left = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/environ" % name, "rb") as f:
                    marked = any((entry + b"/").startswith(wanted) for entry in f.read().split(b"\0"))
                if marked and int(name) != os.getpid():
                    os.kill(int(name), signal.SIGKILL)
                    left.append(name)
            except OSError:  # it has ended, or is another user's
                continue
        if not left:
            return
        time.sleep(0.05)


class Check:
    """What the steps share; each has a copy of its own, as it was when the step began."""

    def __init__(self, dry, directory, commit=""):
        self.dry, self.directory, self.commit = dry, directory, commit
        self.rates, self.peers = {}, {}  # amounts a second, and other figures handed on; peers by (name, precision)
        self.step, self.own, self.cores = None, directory, None  # of the step that this copy is for: itself, its directory, its cores

    def settings(self, full, dry):
        return dry if self.dry else full

    # -- what it found: each a line of the file `records`, so that it is kept whatever comes next

    def record(self, kind, *values):
        with open(os.path.join(self.own, "records"), "a") as f:
            f.write(json.dumps([kind, *values]) + "\n")

    def row(self, name, ours, unit, **more):
        row = row_make(ours, unit, self.step.bars.get(name), self.commit, **more)
        row_print(name, row)
        self.record("row", name, row)

    def fact(self, name, value):
        self.record("fact", name, value)

    def step_times(self, name, value):
        """kernel_times.step_summary's."""
        self.record("step", name, value)

    def rate(self, name, value):
        self.rates[name] = value
        self.record("rate", name, value)

    # -- commands

    def output(self, command, **environment):
        """Standard output of a command that must succeed."""
        paths = [os.path.join(self.own, name) for name in ("output", "errors")]
        with open(paths[0], "w") as out, open(paths[1], "w") as errors:
            code = subprocess.run([str(c) for c in command], stdin=subprocess.DEVNULL, stdout=out, stderr=errors,
                                  env={**os.environ, **environment}).returncode
        said = [open(path, errors="replace").read() for path in paths]
        if code:
            words = shown("\n".join(said))
            print(words, flush=True)
            raise Failed("%s ended with %d: %s" % (os.path.basename(command[0]), code, " ".join(words.splitlines()[-1:])))
        return said[0]

    def line(self, command, **environment):
        """What the last line of its output says."""
        return json.loads(self.output(command, **environment).strip().splitlines()[-1])

    # -- cases (cases.py), in the step's own directory: links to what all have, and what its programs write

    def path(self, case):
        own, common = os.path.join(self.own, case), case_path(self.directory, case)
        if not os.path.exists(own):
            os.mkdir(own)
            for name in os.listdir(common):
                os.symlink(os.path.join(common, name), os.path.join(own, name))
        return own

    def case(self, name):
        with open(os.path.join(self.path(name), "case.json")) as f:
            return json.load(f)

    def vector(self, case, file, kind="f4"):
        return numpy.fromfile(os.path.join(self.path(case), file), kind).astype(float)

    def ours(self, mode, case, *settings, device="cuda", **environment):
        return self.line([PROBE, mode, self.path(case), "f32=1", "device=" + device, "batch=%d" % self.case(case)["batch"],
                          *settings], **environment)


def difference(ours, wanted):
    """Relative L2."""
    return float(numpy.linalg.norm(ours - wanted) / numpy.linalg.norm(wanted))


class Work:
    """A step in work."""

    def __init__(self, step, check, limit_s):
        self.step, self.limit_s, self.began = step, limit_s, time.monotonic()
        self.directory = os.path.join(check.directory, "steps", step.name)
        os.makedirs(self.directory)
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self.child_run(check)
        self.descriptor = os.pidfd_open(self.pid)

    def child_run(self, check):
        """Never returns."""
        state, words = "failed", ""
        try:
            os.setsid()
            os.environ[MARK] = self.directory
            os.chdir(self.directory)
            if check.cores:
                os.sched_setaffinity(0, check.cores)
            check.step, check.own = self.step, self.directory
            state, words = "passed", self.step.run(check) or ""
        except Skipped as e:
            state, words = "skipped", str(e)
        except Failed as e:
            words = str(e)
        except BaseException as e:
            traceback.print_exc()
            words = "%s: %s" % (type(e).__name__, e)
        finally:
            try:
                check.record("end", state, words)
                sys.stdout.flush()
            finally:
                os._exit(0)

    def left_s(self):
        return max(0, self.began + self.limit_s - time.monotonic())

    def end(self, in_time):
        """Ends it and all that it has started; returns what it recorded, the end's record last."""
        if not in_time:
            os.kill(self.pid, signal.SIGKILL)
            select.select([self.descriptor], [], [], END_S)
        os.waitpid(self.pid, os.WNOHANG)
        os.close(self.descriptor)
        marked_kill(self.directory)
        records = []
        if os.path.exists(os.path.join(self.directory, "records")):
            with open(os.path.join(self.directory, "records")) as f:
                records = [json.loads(line) for line in f if line.endswith("\n")]
        if not records or records[-1][0] != "end":
            for name in ("output", "errors"):
                if os.path.exists(os.path.join(self.directory, name)):
                    with open(os.path.join(self.directory, name), errors="replace") as f:
                        print(shown(f.read()), flush=True)
            records.append(["end", "failed", "it ended without a word" if in_time else "took over %d s" % self.limit_s])
        return records


def work_await(running):
    """Waits until one of them has ended or its time is up; takes it out. Returns it and its records."""
    soonest = min(work.left_s() for work in running)
    ready = select.select([work.descriptor for work in running], [], [], soonest)[0]
    ended = [work for work in running if work.descriptor in ready]
    work = ended[0] if ended else min(running, key=Work.left_s)
    running.remove(work)
    return work, work.end(bool(ended))
