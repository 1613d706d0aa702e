"""make gpu-check [NAMES=part,part] [DEPS=DIR]: all that is to be checked where a GPU is, in at most 8 minutes.

Four phases. First what the others read is written. Then the checks that time nothing, all of them beside one another, and
beside them PyTorch's side of the comparisons is made ready (peers.py). Then the figures, one after the other, each with the
GPU for itself. At last compute-sanitizer, with the time that is left. Each step is a process that is killed with all it has
started when its time is up; the limits of the first three phases together are less than the time there is, so that one
that hangs takes nothing from the others.

Writes docs/gpu/RESULTS-<gpu>.md and .json after each step, and the same into $OUT if that is set. Exit code 1 if a chosen
check failed, was skipped, or left a bar without a figure; a bar that is missed is told, and fails nothing.

--dry: the same with the emulated device and tiny sizes, to see that this program works; writes under build/gpu-check, and
what is skipped fails nothing.
"""
import argparse
import copy
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests")]
import checks  # noqa: E402
import figures  # noqa: E402
from cases import BINARIES  # noqa: E402
from check import Check, Failed, Step, Work, work_await  # noqa: E402
from results import Results, least, most  # noqa: E402

TOTAL_S = 480
BOTH = ("f32", "bf16")


def peers_of(name, *precisions):
    return tuple((name, precision) for precision in precisions)


def sanitizers():
    """A step for each tool and file of unit tests: what has no time left leaves the others their results."""
    for tool in ("memcheck", "racecheck"):
        for part, share in (("test_cuda_core", 1), ("test_cuda_step", 2), ("test_cuda_micro_batches", 1), ("ops.def", 4)):
            name = "%s-%s" % (tool, part.removeprefix("test_cuda_").removesuffix(".def"))
            yield Step(name, lambda check, tool=tool, part=part: checks.sanitizer(check, tool, part), TOTAL_S, share=share)


FIRST = (Step("cases", checks.cases, 20),)
BESIDE_S = 125  # all that is done beside one another, the peers included
BESIDE = (Step("operations", checks.operations, 120),
          Step("training", checks.training, 120, ("cases",)),
          Step("repeatable", checks.repeatable, 120, ("cases",)),
          Step("processes", checks.processes, 120),
          Step("file", checks.file, 90))
ALONE = (
    Step("ceilings", figures.ceilings, 20, peers=peers_of("ceilings", "f32")),
    Step("dense", figures.dense, 25, ("cases", "ceilings"), peers_of("dense", *BOTH),
         {"dense step, f32": least(2), "dense step, bf16": least(2)}),
    Step("lstm", figures.lstm, 25, ("cases", "ceilings"), peers_of("lstm", *BOTH),
         {"lstm step, bf16": least(1.2), "lstm, mixed precision against float32: time": least(2)}),
    Step("gcn", figures.gcn, 25, ("cases", "ceilings"), peers_of("gcn", *BOTH), {"gcn step, f32": least(3), "gcn step, bf16": least(3)}),
    Step("fisher", figures.fisher, 25, ("cases",), peers_of("fisher", "f32"), {"exact Fisher, lstm, 128 samples, f32": least(4)}),
    Step("sweep", figures.sweep, 20, ("ceilings",), peers_of("sweep", "f32"),
         {"sweep of 500 million parameters, AdamW": least(0.85), "sweep of 500 million parameters, sum of squares": least(0.85)}),
    Step("memory", figures.memory, 25, ("cases",), bars={"lstm, device memory with libraries, bf16": most(0.6)}),
    Step("staging", figures.staging, 20, ("file", "ceilings"),
         bars={"staging, first epoch, uncompressed from the page cache": least(0.9), "page-locked host memory, 12.5 GB staged": most(300)}),
    Step("busy", figures.busy, 25, bars={"GPU utilisation, dense run": least(0.95)}),
    Step("kernels", figures.kernels, 20, ("cases",)),
    Step("mixed", figures.mixed, 35, ("file",),
         bars={"LSTM run, mixed precision against float32: validation loss": most(0.01),
               "LSTM run, mixed precision against float32: samples/s": least(2), "GPU utilisation, LSTM run": least(0.95)}),
    Step("loading", figures.loading, 50, ("file", "mixed"),
         bars={"chunk loading, 3 epochs of the LSTM, against whole": least(1.3),
               "chunk loading, 3 epochs of the LSTM, against dataloader": least(5)}),
    Step("exhausted", checks.exhausted, 20, ("file",)))
LAST = tuple(sanitizers())
STEPS = {step.name: step for step in FIRST + BESIDE + ALONE + LAST}


class Run:
    """Of the chosen steps."""

    def __init__(self, check, results, chosen, folders, spent_s):
        self.check, self.results, self.chosen, self.folders = check, results, chosen, folders
        self.until = time.monotonic() + TOTAL_S - spent_s
        self.written = None

    def steps(self, phase):
        return [step for step in phase if step.name in self.chosen]

    def told(self, step, state, words, seconds):
        self.results.check(step.name, state, words, seconds)
        self.written = self.results.write(self.folders)  # whatever comes next

    def start(self, step, until, cores=None):
        """Its Work; None: it was skipped."""
        left_s = min(until, self.until) - time.monotonic()
        lacking = [n for n in step.needs if self.results.checks[n]["state"] != "passed"]
        if lacking or left_s < 5:
            self.told(step, "skipped", "it needs " + ", ".join(lacking) if lacking else "no time was left", 0)
            return None
        own = copy.copy(self.check)
        own.cores = cores
        return Work(step, own, min(step.limit_s, left_s))

    def together(self, steps, until, cores=()):
        """Steps beside one another; cores: those of each, all unless given."""
        running = [self.start(step, until, *cores[i:i + 1]) for i, step in enumerate(steps)]
        running = [work for work in running if work]
        try:
            while running:
                self.take(*work_await(running))
        finally:  # where somebody has ended this program
            for work in running:
                work.end(False)

    def take(self, work, records):
        """What a step has found."""
        places = {"row": self.results.rows, "fact": self.results.facts, "rate": self.check.rates, "step": self.results.steps}
        for kind, name, value in records[:-1]:
            places[kind][name] = value
        self.told(work.step, *records[-1][1:], time.monotonic() - work.began)

    def peers_start(self, limit_s):
        for step in self.steps(ALONE):
            for name, precision in step.peers:
                self.check.peers[name, precision] = figures.peer_of(self.check, name, precision, limit_s)

    def peers_await(self, until):
        for peer in self.check.peers.values():
            try:
                peer.ready_await(until)
            except Failed as e:
                print("  " + str(e), flush=True)

    def peers_close(self, names):
        for name in names:
            if name in self.check.peers:
                self.check.peers.pop(name).close()

    def phases(self):
        self.together(self.steps(FIRST), self.until)
        until = time.monotonic() + BESIDE_S
        self.peers_start(BESIDE_S - 10)
        self.together(self.steps(BESIDE), until)
        self.peers_await(until)
        for step in self.steps(ALONE):
            self.together([step], self.until)
            self.peers_close(step.peers)
        last = self.steps(LAST)
        self.together(last, self.until, cores_divide([step.share for step in last]))

    def not_measured(self):
        return [bar for name in self.chosen for bar in STEPS[name].bars if bar not in self.results.rows]


def cores_divide(shares):
    """Those of each; none are shared where there are enough."""
    cores, found, at = sorted(os.sched_getaffinity(0)), [], 0
    for share in shares:
        count = max(1, len(cores) * share // sum(shares))
        found.append([cores[(at + i) % len(cores)] for i in range(count)])
        at += count
    return found


def chosen_find(wanted):
    """Names of the steps that have one of those parts, all unless given, and of those that these need."""
    found = [name for name in STEPS if not wanted or any(part in name for part in wanted)]
    for name in found:  # grows
        found += [other for other in STEPS[name].needs if other not in found]
    return found


def machine(dry):
    """The GPU's name, and what the results say of the machine."""
    if dry:
        return "emulated", {}
    fields = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
    values = said(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"]).splitlines()[0]
    facts = dict(zip(fields, (v.strip() for v in values.split(","))))
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if os.path.exists(nvcc):
        facts["nvcc"] = re.search(r"release ([\d.]+)", said([nvcc, "--version"]))[1]
    return facts["name"], facts


def said(command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=20).stdout.strip()


def commit_find():
    """COMMIT says it where the tree is a copy without its history."""
    try:
        return os.environ.get("COMMIT") or said(["git", "-C", ROOT, "describe", "--always", "--dirty"])
    except (OSError, subprocess.CalledProcessError):
        return "unknown commit"


def libraries_find(deps):
    """Where our programs find what they are linked with: the unpacked folder, CUDA's."""
    before = os.environ.get("LD_LIBRARY_PATH", "")
    os.environ["GPU_CHECK_LIBRARY_PATH"] = before
    folders = [os.path.join(os.path.abspath(deps), part) for part in ("usr/lib/x86_64-linux-gnu", "usr/lib")] if deps else []
    folders += [before, "/usr/local/cuda/lib64", "/usr/local/cuda/extras/CUPTI/lib64", "/usr/local/nvidia/lib64", *glob.glob(
        os.path.join(sys.prefix, "lib/python3*/site-packages/nvidia/cu1*/lib"))]
    os.environ["LD_LIBRARY_PATH"] = ":".join(f for f in folders if f)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default="", help="steps whose name has one of these parts: " + ", ".join(STEPS))
    parser.add_argument("--deps", default="", help="unpacked libraries (tests/gpu/deps.sh)")
    parser.add_argument("--spent", type=float, default=0, help="seconds of the %d that building took" % TOTAL_S)
    parser.add_argument("--out", help="where the results go, beside $OUT")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    chosen = chosen_find([n for n in options.names.split(",") if n])
    if not chosen:
        parser.error("no step's name has a part of '%s'; the steps are %s" % (options.names, ", ".join(STEPS)))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    libraries_find(options.deps)
    library = "libengine-cuda-emulated.so" if options.dry else "libengine-cuda.so"
    os.environ["FINETUNED_CUDA_LIBRARY"] = os.path.join(os.path.dirname(BINARIES), "lib", library)
    try:
        name, facts = machine(options.dry)
    except (OSError, subprocess.SubprocessError) as e:
        parser.error("cannot ask nvidia-smi which GPU is there: %s; --dry does without one" % e)
    results = Results(name, commit_find())
    results.facts.update(facts)
    out = options.out or os.path.join(ROOT, "build/gpu-check" if options.dry else "docs/gpu")
    with tempfile.TemporaryDirectory() as directory:
        run = Run(Check(options.dry, os.path.realpath(directory), results.commit), results, chosen,
                  [out, *filter(None, [os.environ.get("OUT")])], options.spent)
        try:
            run.phases()
        finally:
            run.peers_close(list(run.check.peers))
    failed, skipped, unmeasured = results.named("failed"), results.named("skipped"), run.not_measured()
    print("written after %d s: %s" % (time.monotonic() - run.until + TOTAL_S, run.written))
    for what, names in (("checks failed", failed), ("skipped", skipped), ("bars without a figure", unmeasured),
                        ("bars missed", results.missed())):
        print("%d %s: %s" % (len(names), what, "; ".join(names) or "none"))
    sys.exit(1 if failed or not options.dry and (skipped or unmeasured) else 0)


if __name__ == "__main__":
    main()
