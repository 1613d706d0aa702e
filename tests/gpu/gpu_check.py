"""make gpu-check [NAMES=part,part] [DEPS=DIR]: all that is to be checked where a GPU is, in at most 8 minutes.

First the checks: the table of operations against the CPU backend, the same under compute-sanitizer, whole training runs
against the CPU's, kill and restart. Then our figures beside PyTorch's at its best (peer.py) on the same card in the same
run, outputs being compared first. Each step has a time limit, and what is not there (compute-sanitizer, PyTorch, time) is
skipped by name. Writes docs/gpu/RESULTS-<gpu>.md and .json, and the same into $OUT if that is set. Exit code 1 if a check failed; a
bar that is missed is told, and fails nothing.

--dry: the same with the emulated device and tiny sizes, to see that this program works; writes under build/gpu-check.
"""
import argparse
import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import numpy

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path[:0] = [HERE, os.path.join(ROOT, "tests")]
from cases import BINARIES, PROBE  # noqa: E402
from check import HALVES, Check, Failed, Skipped, peers_environment  # noqa: E402
from results import Results  # noqa: E402
import whole_runs  # noqa: E402

# ---- checks ----

def operations(check):
    out = check.output([os.path.join(BINARIES, "unit"), "cuda"])
    return out.strip().splitlines()[-1]


def sanitizer(check, tool):
    program = shutil.which("compute-sanitizer") or "/usr/local/cuda/bin/compute-sanitizer"
    if check.dry or not os.path.exists(program):
        raise Skipped("compute-sanitizer is not installed")
    out = check.output([program, "--tool", tool, "--target-processes", "all", "--error-exitcode", "99",
                        os.path.join(BINARIES, "unit"), "cuda"])
    found = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", out)
    return "%s; %s" % (out.strip().splitlines()[-1] if not found else found[-1], "%d processes" % len(found))


def memcheck(check):
    return sanitizer(check, "memcheck")


def racecheck(check):
    return sanitizer(check, "racecheck")


def training(check):
    """Losses of 20 steps on the device beside the CPU's, from the same weights, in float32 and bfloat16."""
    words = []
    for case in ("dense", "lstm", "gcn"):
        facts = check.case(case)
        for precision, bound in (("f32", 1e-4), ("bf16", 2e-2)):
            steps = check.settings(20, 3) if case == "dense" else check.settings(5, 2)
            common = ("steps=%d" % steps, "half=%d" % HALVES[precision], "eps=1e-5", "clip=1")
            losses = {}
            for device in ("cuda", "cpu"):
                check.output([PROBE, "train", check.path(case), "f32=1", "batch=%d" % facts["batch"], "device=" + device,
                              "threads=%d" % (os.cpu_count() if device == "cpu" else 1), *common])
                losses[device] = numpy.fromfile(os.path.join(check.path(case), "steps.f64")).reshape(-1, 3)[:, 0]
            error = float(abs(losses["cuda"] / losses["cpu"] - 1).max())
            words.append("%s %s %.1e" % (case, precision, error))
            if not error <= bound:
                raise Failed("losses of %d steps differ by %.1e, more than %.0e; so far: %s" % (steps, error, bound, ", ".join(words)))
    return "largest relative difference of the losses: " + ", ".join(words)


def repeatable(check):
    """Twice the same run: the same bits."""
    for case in ("dense", "lstm", "gcn"):
        weights = []
        for _ in range(2):
            check.ours("train", case, "steps=%d" % check.settings(20, 2), "half=2")
            with open(os.path.join(check.path(case), "trained.f32"), "rb") as f:
                weights.append(f.read())
        if weights[0] != weights[1]:
            raise Failed("two runs of %s end with different weights" % case)
    return "dense, lstm, gcn"


def processes(check):
    """The process tests of runs on a device: the CPU's weights but for rounding, the same bits however rows come and after
    kill -9, errors by name."""
    out = check.output([sys.executable, "tests/harness.py", "tests/process/test_cuda.py"])
    return out.strip().splitlines()[-1]


# ---- figures ----

def ceilings(check):
    rates = check.peer("ceilings", "none", "f32", check.settings(8192, 64), 5)
    made = check.output([os.path.join(BINARIES, "device_probe"), "cuda", *check.settings([], ["copy_mb=1", "upload_mb=1"])])
    facts = json.loads(made)
    check.rates = {k: v for k, v in rates.items() if not isinstance(v, str)}
    check.rates["copy_bytes"] = max(rates["copy_bytes"], facts["copy_bytes_per_second"])
    check.rates["upload_bytes"] = max(rates["upload_bytes"], facts["upload_bytes_per_second"])
    check.results.facts.update({"PyTorch": rates["torch"], "cuDNN": str(rates.get("cudnn", "")),
                                "context of ours, MiB": facts["context_bytes"] / 2 ** 20,
                                "copies on the device, GB/s (read and written)": check.rates["copy_bytes"] / 1e9,
                                "copies from page-locked memory, GB/s": check.rates["upload_bytes"] / 1e9,
                                **{"products %s, TFLOP/s" % k[:-6]: v / 1e12 for k, v in rates.items() if k.endswith("_flops")}})
    return "measured by PyTorch and by ours, the larger ones taken"


def step_compare(check, name, precision, bar, steps, tolerance, geometric=False):
    """A step's time beside PyTorch's best, the first batch's gradients being compared before."""
    theirs_precision = "f32" if check.dry and name == "lstm" else precision  # PyTorch's oneDNN has no LSTM in bf16 on every CPU
    check.ours("train", name, "steps=1", "half=%d" % HALVES[precision])
    ours_gradient = check.vector(name, "gradient.f32")
    mine = check.ours("repeat", name, "steps=%d" % steps, "half=%d" % HALVES[precision], "repeats=7")
    taken = statistics.median(mine["seconds_each"])
    theirs = check.peer(name, name, theirs_precision, steps, 5)
    error = check.difference(name, ours_gradient, "peer.f32")
    for form, why in theirs["absent"].items():
        print("  not timed: %s (%s)" % (form, why), flush=True)
    for form, seconds in sorted(theirs["seconds"].items(), key=lambda x: x[1]):
        print("  PyTorch, %s: %.1f us" % (form, seconds * 1e6), flush=True)
    best = min(theirs["seconds"], key=theirs["seconds"].get)
    more = {"limit": check.limit_s(name, precision) * 1e6, "compared": "gradients, relative L2 %.1e" % error}
    label = "%s step, %s" % (name, precision)
    if geometric:
        forms = {k: v for k, v in theirs["seconds"].items() if k.startswith("geometric")}
        if forms:
            one = min(forms, key=forms.get)
            check.results.row(label, taken * 1e6, "us", peer=forms[one] * 1e6, form="PyTorch " + one, bar=bar, **more)
        check.results.row(label + ", any form of PyTorch's", taken * 1e6, "us", peer=theirs["seconds"][best] * 1e6,
                          form="PyTorch " + best, **more)
    else:
        check.results.row(label, taken * 1e6, "us", peer=theirs["seconds"][best] * 1e6, form="PyTorch " + best, bar=bar, **more)
    if not error <= tolerance:
        raise Failed("%s %s: gradients differ by %.1e (relative L2), more than %.0e" % (name, precision, error, tolerance))
    return mine, theirs


def dense(check):
    for precision, tolerance in (("f32", 1e-4), ("bf16", 3e-2)):
        step_compare(check, "dense", precision, 2, check.settings(500, 2), tolerance)


def lstm(check):
    mine, theirs = step_compare(check, "lstm", "bf16", 1.2, check.settings(40, 2), 5e-2)
    if theirs["peak_bytes"]:
        check.results.row("lstm, device memory, bf16", mine["device_bytes"] / 2 ** 20, "MiB", peer=theirs["peak_bytes"] / 2 ** 20,
                          form="PyTorch eager, allocated", ratio=mine["device_bytes"] / theirs["peak_bytes"], bar=0.6, at_most=True)
    half = statistics.median(mine["seconds_each"])
    whole, _ = step_compare(check, "lstm", "f32", None, check.settings(20, 2), 1e-3)
    whole = statistics.median(whole["seconds_each"])
    check.results.row("lstm, mixed precision against float32: time", half * 1e6, "us", peer=whole * 1e6, form="ours in float32", bar=2)


def precision(check):
    """The loss after the same steps in bfloat16 and in float32: mean of the last tenth. After some 200 steps the rows are known by
    heart, and the loss, a thousandth of what it was, goes up and down by a third in either."""
    steps = check.settings(100, 5)
    last = {}
    for kind, half in HALVES.items():
        check.ours("train", "lstm", "steps=%d" % steps, "half=%d" % half, "clip=1")
        losses = numpy.fromfile(os.path.join(check.path("lstm"), "steps.f64")).reshape(-1, 3)[:, 0]
        last[kind] = float(losses[-max(1, steps // 10):].mean())
    check.results.row("lstm, mixed precision against float32: loss of the last steps", last["bf16"], "", peer=last["f32"],
                      form="ours in float32", ratio=abs(last["bf16"] / last["f32"] - 1), bar=0.01, at_most=True)


def gcn(check):
    for kind, tolerance in (("f32", 1e-3), ("bf16", 5e-2)):
        step_compare(check, "gcn", kind, 3, check.settings(100, 2), tolerance, geometric=True)


def fisher(check):
    check.ours("fisher", "fisher")
    sums = check.vector("fisher", "fisher_sums.f32")
    mine = check.ours("repeat", "fisher", "fisher=1", "steps=%d" % check.settings(10, 1), "repeats=5")
    theirs = check.peer("fisher", "fisher", "f32", 1, check.settings(3, 1))
    error = check.difference("fisher", sums, "peer.f32")
    for form, seconds in theirs["seconds"].items():
        print("  PyTorch, %s: %.1f ms" % (form, seconds * 1e3), flush=True)
    for form, why in theirs["absent"].items():
        print("  not timed: %s (%s)" % (form, why), flush=True)
    best = min(theirs["seconds"], key=theirs["seconds"].get)
    check.results.row("exact Fisher, lstm, %d samples, f32" % check.case("fisher")["batch"],
                      statistics.median(mine["seconds_each"]) * 1e3, "ms", peer=theirs["seconds"][best] * 1e3,
                      form="PyTorch " + best, bar=4, compared="squared gradients, relative L2 %.1e" % error)
    if not error <= 1e-3:
        raise Failed("squared gradients differ by %.1e (relative L2), more than 1e-3" % error)


def sweep(check):
    count = check.settings(500_000_000, 1_100_000)
    settings = ["parameters=%d" % count, *check.settings([], ["copy_mb=1", "upload_mb=1", "repeats=1"])]
    mine = json.loads(check.output([os.path.join(BINARIES, "device_probe"), "cuda", *settings]))
    if not mine["difference"] <= 1e-5:
        raise Failed("AdamW on the device differs from the CPU's by %.1e" % mine["difference"])
    theirs = check.peer("sweep", "none", "f32", count, 5)["seconds"]
    best = min(theirs, key=theirs.get)
    rate = max(check.rates["copy_bytes"], mine["copy_bytes_per_second"])
    compared = "with the CPU's, relative %.1e" % mine["difference"]
    for name, bytes_each, seconds in (("AdamW", 28, mine["adamw_seconds"]), ("sum of squares", 4, mine["norm_seconds"])):
        peer = {"peer": theirs[best] * 1e3, "form": "PyTorch AdamW " + best} if name == "AdamW" else {}
        moved = bytes_each * count / seconds
        check.results.row("sweep of %d million parameters, %s" % (count // 10 ** 6, name), seconds * 1e3, "ms", **peer,
                          ratio=moved / rate, bar=0.85, limit=bytes_each * count / rate * 1e3, compared=compared if peer else "")


# ---- whole runs on a file of the reference data's shape ----

def reference_file(check):
    path = os.path.join(check.directory, "reference.h5")
    if not os.path.exists(path):
        whole_runs.file_write(path, whole_runs.shape_of(check.dry))
    return path, whole_runs.shape_of(check.dry)


def reference_run(check, half):
    """Three epochs of the LSTM regressor, once for each precision."""
    if half not in check.runs:
        path, shape = reference_file(check)
        settings = ("training.use_amp=true", "training.amp_dtype=bfloat16") if half else ()
        watch = whole_runs.Utilisation()
        report = whole_runs.run(os.path.join(check.directory, "lstm-%d" % half), path, whole_runs.layers_lstm(shape), 3,
                                check.settings(128, 32), check.left_s(), (*settings, "training.metric=loss"), watch)
        check.runs[half] = report, watch.share()
    return check.runs[half]


def staging(check):
    """How fast rows come from the page cache to the device, a model that does hardly anything being trained on them."""
    path, shape = reference_file(check)
    report = whole_runs.run(os.path.join(check.directory, "staging"), path, whole_runs.layers_small(shape), 1,
                            check.settings(128, 32), check.left_s())
    row_bytes = 4 * shape["length"] * shape["inputs"]
    rate = report["samples_per_second"] * row_bytes
    check.results.row("staging, first epoch, uncompressed from the page cache", rate / 1e9, "GB/s", ratio=rate / check.rates["upload_bytes"],
                      bar=0.9)
    check.results.row("page-locked host memory, %.1f GB staged" % (shape["rows"] * row_bytes / 1e9),
                      report["memory"]["arena_bytes"] / 2 ** 20, "MiB", ratio=report["memory"]["arena_bytes"] / 2 ** 20, bar=300, at_most=True)


def loading(check):
    """Three epochs of the LSTM regressor, reading included, beside two PyTorch loops."""
    path, shape = reference_file(check)
    report, share = reference_run(check, 1)
    seconds = 3 * shape["rows"] / report["samples_per_second"]
    device = "cpu" if check.dry else "cuda"
    if share is not None:
        check.results.row("GPU utilisation, LSTM run", 100 * share, "%", ratio=share, bar=0.95)
    for way, epochs, bar in (("whole", 3, 1.3), ("dataloader", 1, 5)):
        theirs = check.python("peer_loading.py", way, path, device, epochs, check.settings(128, 32), shape["hidden"])
        form = "PyTorch, %s" % {"whole": "all rows on the GPU", "dataloader": "DataLoader over h5py, 4 workers; an epoch timed, times 3"}[way]
        check.results.row("chunk loading, 3 epochs of the LSTM, against " + way, seconds, "s", peer=theirs["seconds"] * 3 / epochs,
                          form=form, bar=bar)


def busy(check):
    """Share of time with a kernel running while the dense model is trained."""
    path = os.path.join(check.directory, "dense.h5")
    whole_runs.dense_write(path, check.settings(60000, 512))
    watch = whole_runs.Utilisation()
    report = whole_runs.run(os.path.join(check.directory, "dense"), path, whole_runs.LAYERS_DENSE, check.settings(60, 2), 128,
                            check.left_s(), ("data.scale=0.00392",), watch, "softmax_cross_entropy")
    share = watch.share()
    check.results.row("dense run, epochs of 60,000 rows", report["samples_per_second"], "rows/s")
    if share is not None:
        check.results.row("GPU utilisation, dense run", 100 * share, "%", ratio=share, bar=0.95)


def mixed(check):
    """Validation loss of the same run in bfloat16 and in float32, and their times."""
    (half, _), (whole, _) = (reference_run(check, h) for h in (1, 0))
    one, two = (r["tasks"][0]["final"] for r in (half, whole))
    check.results.row("LSTM run, mixed precision against float32: validation loss", one, "", peer=two, form="ours in float32",
                      ratio=abs(one / two - 1), bar=0.01, at_most=True)
    check.results.row("LSTM run, mixed precision against float32: samples/s", half["samples_per_second"], "rows/s",
                      peer=whole["samples_per_second"], form="ours in float32",
                      ratio=half["samples_per_second"] / whole["samples_per_second"], bar=2)


def exhausted(check):
    """Another process leaves room for the context, and not for the rows: exit code 111 and a sentence with the figures. With room
    again the same run ends."""
    if check.dry:
        raise Skipped("the emulated device has no other process")
    path, shape = reference_file(check)
    with subprocess.Popen([sys.executable, "-c", whole_runs.TAKE, str(3 << 30)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=peers_environment()) as other, \
            whole_runs.prepared(os.path.join(check.directory, "exhausted"), path, whole_runs.layers_small(shape), 1, 128) as run:
        if other.stdout.readline() != b"held\n":
            raise Failed("the other process could not take the device's memory")
        run.start("loaderd", "fisherd", "trainerd")
        code, said = run.wait("trainerd", check.left_s()), run.log("trainerd")
        found = re.search(r"no device memory for .*\d+ MiB are wanted, \d+ of \d+ are free", said)
        if code != 111 or not found:
            raise Failed("trainerd ended with %d: %s" % (code, said[-500:]))
        other.stdin.close()
        other.wait()
        run.start("trainerd")
        if run.wait("trainerd", check.left_s()) != 0:
            raise Failed("with room again trainerd said: " + run.log("trainerd")[-500:])
    return found[0]


# step, seconds at most; in this order
STEPS = ((ceilings, 60), (operations, 90), (training, 90), (repeatable, 40), (dense, 150), (lstm, 150), (fisher, 90), (sweep, 60),
         (gcn, 150), (precision, 40), (processes, 90), (staging, 90), (exhausted, 60), (busy, 60), (loading, 150),
         (mixed, 60), (memcheck, 120), (racecheck, 120))
UNTIMED = (operations, training, repeatable)  # what other work on the GPU does not disturb


def machine(check):
    """The GPU's name, and what the results say of the machine."""
    if check.dry:
        return "emulated", {}
    fields = ("name", "driver_version", "memory.total", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit")
    values = check.output(["nvidia-smi", "--query-gpu=" + ",".join(fields), "--format=csv,noheader"]).strip().splitlines()[0]
    facts = dict(zip(fields, (v.strip() for v in values.split(","))))
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    if os.path.exists(nvcc):
        facts["nvcc"] = re.search(r"release ([\d.]+)", check.output([nvcc, "--version"]))[1]
    return facts["name"], facts


def step_run(check, step, limit):
    began = time.monotonic()
    check.limit = min(began + limit, check.deadline)
    state, words = "passed", ""
    try:
        if check.limit - began < 5:
            raise Skipped("no time was left")
        words = step(check) or ""
    except Skipped as e:
        state, words = "skipped", str(e)
    except subprocess.TimeoutExpired:
        state, words = "failed", "took over %d s" % (check.limit - began)
    except Exception as e:  # the others are to run all the same
        state, words = "failed", "%s: %s" % (type(e).__name__, e)
    check.results.check(step.__name__, state, words, time.monotonic() - began)


def libraries_find(deps):
    """Where our programs find what they are linked with: the unpacked folder, CUDA's."""
    before = os.environ.get("LD_LIBRARY_PATH", "")
    os.environ["GPU_CHECK_LIBRARY_PATH"] = before
    folders = [os.path.join(os.path.abspath(deps), part) for part in ("usr/lib/x86_64-linux-gnu", "usr/lib")] if deps else []
    folders += [before, "/usr/local/cuda/lib64", "/usr/local/nvidia/lib64", *glob.glob(
        os.path.join(sys.prefix, "lib/python3*/site-packages/nvidia/cu1*/lib"))]
    os.environ["LD_LIBRARY_PATH"] = ":".join(f for f in folders if f)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--names", default="", help="steps whose name has one of these parts")
    parser.add_argument("--deps", default="", help="unpacked libraries (tests/gpu/deps.sh)")
    parser.add_argument("--dry", action="store_true")
    options = parser.parse_args()
    libraries_find(options.deps)
    library = "libengine-cuda-emulated.so" if options.dry else "libengine-cuda.so"
    os.environ["FINETUNED_CUDA_LIBRARY"] = os.path.join(os.path.dirname(BINARIES), "lib", library)
    wanted = [n for n in options.names.split(",") if n]
    with tempfile.TemporaryDirectory() as directory:
        check = Check(options.dry, directory)
        name, facts = machine(check)
        check.results = Results(name)
        check.results.facts.update(facts)
        chosen = [(s, limit) for s, limit in STEPS if not wanted or any(part in s.__name__ for part in wanted)]
        if {s for s, _ in chosen} & {dense, lstm, gcn, sweep, staging} and ceilings not in dict(chosen):
            chosen.insert(0, STEPS[0])
        out = os.path.join(ROOT, "build/gpu-check" if options.dry else "docs/gpu")
        for step, limit in chosen:
            if step not in (ceilings, *UNTIMED):
                check.warm_end()
            step_run(check, step, limit)
            if step is ceilings and not options.dry:
                check.warm_start([s.__name__ for s, _ in chosen if s in (dense, lstm, gcn)])
            written = check.results.write([out, *filter(None, [os.environ.get("OUT")])])  # whatever comes next
        check.warm_end()
        print("written:", written)
    print("%d checks failed: %s; bars missed: %s" % (len(check.results.failed()), ", ".join(check.results.failed()) or "none",
                                                     ", ".join(check.results.missed()) or "none"))
    sys.exit(1 if check.results.failed() else 0)


if __name__ == "__main__":
    main()
