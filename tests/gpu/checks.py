"""Steps of gpu_check.py that time nothing: is what the device computes right, the same each time, and does a run survive what
may happen to it?"""
import os
import re
import shutil
import subprocess
import sys

import numpy

import whole_runs
from cases import BINARIES, CASES, ROOT, case_write
from check import HALVES, Failed, Skipped, counts_read
from peers import peers_environment

UNIT = os.path.join(BINARIES, "unit")


def cases(check):
    """What the other steps read."""
    for name in CASES:
        case_write(name, check.directory, check.dry)


def file(check):
    """A file of the reference data's shape."""
    whole_runs.file_write(whole_runs.file_path(check), whole_runs.shape_of(check.dry))


def operations(check):
    """The table of operations and whole models against the CPU backend; the cases have more time, as others are at work, too."""
    return counts_read(check.output([UNIT, check.settings("cuda", "cuda_lanes")], TEST_LIMIT_TIMES="3"), check.settings(100, 1))


def training(check):
    """Losses of some steps on the device beside the CPU's, from the same weights. The bounds are at least ten times what was seen
    on a GPU; where the first layer's weights stay as they are they differ by 3e-1, 2e-2 and 1e-3."""
    words = []
    for case, steps, half_bound in (("dense", 8, 1e-3), ("lstm", 5, 1e-3), ("gcn", 5, 5e-4)):
        for precision, bound in (("f32", 1e-4), ("bf16", half_bound)):
            settings = ("steps=%d" % steps, "half=%d" % HALVES[precision], "eps=1e-5", "clip=1")
            losses = []
            for device, threads in (("cuda", 1), ("cpu", 2)):  # others are at work, too
                check.ours("train", case, *settings, "threads=%d" % threads, device=device)
                losses.append(check.vector(case, "steps.f64", "f8").reshape(-1, 3)[:, 0])
            error = float(abs(losses[0] / losses[1] - 1).max())
            words.append("%s %s %.1e" % (case, precision, error))
            if not error <= bound:
                raise Failed("the losses differ by more than %.0e: %s" % (bound, ", ".join(words)))
    return "largest relative difference of the losses: " + ", ".join(words)


def twice(check, what, case, mode, file, *settings):
    found = []
    for _ in range(2):
        check.ours(mode, case, *settings)
        with open(os.path.join(check.path(case), file), "rb") as f:
            found.append(f.read())
    if found[0] != found[1]:
        raise Failed("two runs of %s end with different %s" % (what, file))
    return what


def repeatable(check):
    """Twice the same: the same bits, in every precision, with a protected task, and of the Fisher information."""
    words = []
    for case in ("dense", "lstm", "gcn"):
        steps = "steps=%d" % check.settings(5 if case == "lstm" else 20, 2)
        for precision, half in HALVES.items():
            words.append(twice(check, "%s %s" % (case, precision), case, "train", "trained.f32", steps, "half=%d" % half, "clip=1"))
        words.append(twice(check, case + " Fisher", case, "fisher", "fisher_sums.f32"))
        weights = check.vector(case, "weights.f32")
        numpy.abs(weights).astype("f4").tofile(os.path.join(check.path(case), "fisher.f32"))
        (weights / 2).astype("f4").tofile(os.path.join(check.path(case), "star.f32"))
        words.append(twice(check, case + " EWC", case, "train", "trained.f32", steps))
    return ", ".join(words)


def processes(check):
    """The process tests of runs on a device: the CPU's weights but for rounding, the same bits however rows come and after
    kill -9, errors by name."""
    part = check.settings([], ["-k", "a_bad_row"])
    return counts_read(check.output([sys.executable, os.path.join(ROOT, "tests/harness.py"),
                                     os.path.join(ROOT, "tests/process/test_cuda.py"), *part], TEST_LIMIT_TIMES="2"),
                       check.settings(8, 1))


def sanitizer(check, tool, part):
    """The unit tests of one file under a tool of compute-sanitizer; each process that computed on the GPU has its summary, also
    behind the tests' last line."""
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if not os.path.exists(program):
        raise Skipped("compute-sanitizer is not installed")
    out = check.output([program, "--tool", tool, "--target-processes", "all", "--error-exitcode", "99", UNIT,
                        check.settings(part, "cuda_lanes")], TEST_LIMIT_TIMES="10")
    words = counts_read(out, 1)
    found = re.findall(r"SUMMARY: (.*)", out)
    wrong = [line for line in found if not line.startswith("0 ")]
    if wrong or not found:
        raise Failed("%s; %s" % (words, wrong[0] if wrong else "it has looked at no process"))
    return "%s; %d processes: %s" % (words, len(found), found[-1])


def exhausted(check):
    """Another process leaves room for the context, and not for the rows: exit code 111 and a sentence with the figures. With room
    again the same run ends."""
    if check.dry:
        raise Skipped("the emulated device has no other process")
    path, shape = whole_runs.file_path(check), whole_runs.shape_of(check.dry)
    with subprocess.Popen([sys.executable, "-c", whole_runs.TAKE, str(3 << 30)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=peers_environment()) as other, \
            whole_runs.prepared("exhausted", path, whole_runs.layers_small(shape), 1, 128) as run:
        if other.stdout.readline() != b"held\n":
            raise Failed("the other process could not take the device's memory")
        run.start("loaderd", "fisherd", "trainerd")
        code, said = run.wait("trainerd", None), run.log("trainerd")
        found = re.search(r"no device memory for .*\d+ MiB are wanted, \d+ of \d+ are free", said)
        if code != 111 or not found:
            raise Failed("trainerd ended with %d: %s" % (code, said[-500:]))
        other.stdin.close()
        other.wait()
        run.start("trainerd")
        if run.wait("trainerd", None) != 0:
            raise Failed("with room again trainerd said: " + run.log("trainerd")[-500:])
    return found[0]
