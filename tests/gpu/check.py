"""What the steps of gpu_check.py share: programs run within a step's time, the cases that are timed, and their peers."""
import json
import os
import signal
import subprocess
import sys
import time

import numpy

from cases import PROBE, ROOT, case_write

HERE = os.path.dirname(os.path.abspath(__file__))
TOTAL_S = 480
HALVES = {"f32": 0, "bf16": 2}


class Skipped(Exception):
    pass


class Failed(Exception):
    pass


def shown(text):
    """The end of what a command said, without what was skipped."""
    return "\n".join(line for line in text.strip().splitlines() if "SKIP" not in line and "not written" not in line)[-4000:]


def peers_environment():
    """Without the libraries of ours."""
    return {**os.environ, "LD_LIBRARY_PATH": os.environ["GPU_CHECK_LIBRARY_PATH"]}


class Check:
    """What the steps share."""

    def __init__(self, dry, directory):
        self.dry, self.directory = dry, directory
        self.deadline = time.monotonic() + TOTAL_S
        self.limit = self.deadline
        self.results, self.rates, self.known, self.runs, self.warming = None, {}, {}, {}, []

    def output(self, command, **settings):
        """Standard output of a command that must succeed within the step's time; all it started ends with it."""
        process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
                                   start_new_session=True, **settings)
        try:
            out, errors = process.communicate(timeout=self.left_s())
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, errors = process.communicate()
            print(shown(out + errors), flush=True)
            raise
        if process.returncode:
            words = shown(out + errors)
            print(words, flush=True)
            raise Failed("%s ended with %d: %s" % (os.path.basename(command[0]), process.returncode, " ".join(words.splitlines()[-1:])))
        return out

    def left_s(self):
        return max(1, self.limit - time.monotonic())

    def ours(self, mode, case, *settings):
        out = self.output([PROBE, mode, self.path(case), "f32=1", "device=cuda", "batch=%d" % self.case(case)["batch"], *settings])
        return json.loads(out.strip().splitlines()[-1])

    def python(self, file, *arguments):
        """A peer in a process of its own."""
        out = self.output([sys.executable, os.path.join(HERE, file), *arguments], env=peers_environment())
        return json.loads(out.strip().splitlines()[-1])

    def warm_start(self, cases):
        """What torch.compile makes for their peers, all at once beside steps that time nothing; kept for the timed ones."""
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.path.join(self.directory, "inductor")
        for case in cases:
            self.case(case)
            for precision in HALVES:
                self.warming.append(subprocess.Popen(
                    [sys.executable, os.path.join(HERE, "peer.py"), case, self.path(case), "cuda", precision, "1", "1"],
                    env=peers_environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))

    def warm_end(self):
        while self.warming:
            self.warming.pop().wait()

    def peer(self, name, case, precision, steps, repeats):
        return self.python("peer.py", name, self.path(case), "cpu" if self.dry else "cuda", precision, steps, repeats)

    def path(self, case):
        return os.path.join(self.directory, case)

    def case(self, name):
        if name not in self.known:
            self.known[name] = case_write(name, self.path(name), self.dry)
        return self.known[name]

    def vector(self, case, file):
        return numpy.fromfile(os.path.join(self.path(case), file), "f4").astype(float)

    def difference(self, case, ours, wanted):
        a, b = (v if isinstance(v, numpy.ndarray) else self.vector(case, v) for v in (ours, wanted))
        return float(numpy.linalg.norm(a - b) / numpy.linalg.norm(b))

    def limit_s(self, case, precision):
        """Seconds of a step at the ceilings: its products, and AdamW's 28 bytes a parameter."""
        facts = self.case(case)
        return facts["flops"] / self.rates[precision + "_flops"] + 28 * facts["parameters"] / self.rates["copy_bytes"]

    def settings(self, full, dry):
        return dry if self.dry else full
