"""Steps of gpu_check.py that time something, the GPU being theirs alone: our figures beside PyTorch's at its best, the outputs
being compared. The bars of their rows stand in gpu_check.py."""
import os
import statistics
import time

import numpy

import kernel_times
import whole_runs
from cases import BINARIES, case_path
from check import HALVES, Failed, Skipped, difference
from peers import peer_start

DEVICE_PROBE = os.path.join(BINARIES, "device_probe")
PARAMETERS = {False: 500_000_000, True: 1_100_000}  # of the sweep; by `dry`
PRODUCT = {False: 8192, True: 64}  # rows and columns of the products that are the ceiling of operations
SIZES = {"sweep": PARAMETERS, "ceilings": PRODUCT}


def peer_of(check, name, precision, limit_s):
    """Started; lstm also is the case of `memory`."""
    return peer_start(check.own, name, precision, case_path(check.directory, "lstm" if name == "memory" else name),
                      check.settings("cuda", "cpu"), SIZES.get(name, {}).get(check.dry, 0), limit_s)


def ceilings(check):
    peer = check.peers["ceilings", "f32"]
    times = peer.times(check.settings(4, 1), check.settings(5, 1))
    facts = check.line([DEVICE_PROBE, "cuda", *check.settings([], ["copy_mb=1", "upload_mb=1", "repeats=1"])])
    rates = {form: peer.forms[form]["amount"] / seconds for form, seconds in times.items()}
    rates["copy_bytes"] = max(rates["copy_bytes"], facts["copy_bytes_per_second"])
    rates["read_bytes"] = max(rates["read_bytes"], rates["copy_bytes"])
    rates["upload_bytes"] = max(rates["upload_bytes"], facts["upload_bytes_per_second"])
    for name, value in rates.items():
        check.rate(name, value)
    check.fact("PyTorch", peer.facts["torch"])
    check.fact("cuDNN", peer.facts["cudnn"])
    check.fact("context of ours, MiB", facts["context_bytes"] / 2 ** 20)
    check.fact("copies on the device, GB/s (read and written)", rates["copy_bytes"] / 1e9)
    check.fact("sums on the device, GB/s (read)", rates["read_bytes"] / 1e9)
    check.fact("copies from page-locked memory, GB/s", rates["upload_bytes"] / 1e9)
    for kind in ("f32", "tf32", "bf16"):
        check.fact("products %s, TFLOP/s" % kind, rates[kind + "_flops"] / 1e12)
    return "measured by PyTorch and by ours, the larger ones taken"


def limit_s(check, case, precision):
    """Seconds of a step at the ceilings: its products, and AdamW's 28 bytes a parameter. A product in float32 may be made of three
    on the tensor cores."""
    facts, rates = check.case(case), check.rates
    flops = max(rates["f32_flops"], rates["tf32_flops"] / 3) if precision == "f32" else rates[precision + "_flops"]
    return facts["flops"] / flops + 28 * facts["parameters"] / rates["copy_bytes"]


def step_compare(check, case, precision, steps, tolerance, ways=None):
    """A step's time beside PyTorch's best, whose gradient of the first batch is compared with ours. ways: rows, and how the forms
    begin that count in them; one row of any form unless given. Returns our facts."""
    check.ours("train", case, "steps=1", "half=%d" % HALVES[precision])
    gradient = check.vector(case, "gradient.f32")
    mine = check.ours("repeat", case, "steps=%d" % steps, "half=%d" % HALVES[precision], "repeats=%d" % check.settings(7, 2))
    peer, label, wrong = check.peers[case, precision], "%s step, %s" % (case, precision), []
    times = peer.times(steps, check.settings(5, 1))
    for row, beginning in (ways or {"": ""}).items():
        forms = {form: seconds for form, seconds in times.items() if form.startswith(beginning)}
        if not forms:  # its bar is then told as one without a figure
            continue
        best = min(forms, key=forms.get)
        error = difference(gradient, numpy.fromfile(peer.forms[best]["gradient"], "f4"))
        check.row(label + row, statistics.median(mine["seconds_each"]) * 1e6, "us", peer=forms[best] * 1e6, form="PyTorch " + best,
                  limit=limit_s(check, case, precision) * 1e6, compared="gradients, relative L2 %.1e" % error)
        if not error <= tolerance:
            wrong.append("gradients differ by %.1e (relative L2), more than %.0e" % (error, tolerance))
    if wrong or not times:
        raise Failed("%s: %s" % (label, "; ".join(wrong) or "no form of PyTorch's could be timed"))
    return mine


def dense(check):
    for precision, tolerance in (("f32", 1e-4), ("bf16", 3e-2)):
        step_compare(check, "dense", precision, check.settings(300, 2), tolerance)


def lstm(check):
    half = step_compare(check, "lstm", "bf16", check.settings(40, 2), 5e-2)
    whole = step_compare(check, "lstm", "f32", check.settings(20, 2), 1e-3)
    half_s, whole_s = (statistics.median(facts["seconds_each"]) for facts in (half, whole))
    check.row("lstm, mixed precision against float32: time", half_s * 1e6, "us", peer=whole_s * 1e6, form="ours in float32")


def memory(check):
    """Of the GPU, by an LSTM's step in bfloat16, as the driver counts it beside the bare context: with what libraries take."""
    mine = check.ours("repeat", "lstm", "steps=3", "half=2", "repeats=1")
    taken = mine["device_bytes"] + mine["device_context_bytes"]
    peer = peer_of(check, "memory", "bf16", 20)
    try:
        peer.ready_await(time.monotonic() + 20)
    finally:
        peer.close()
    if not peer.forms:
        raise Skipped("; ".join(peer.absent.values()) or "the emulated device has no driver")
    theirs = peer.forms["eager"]
    check.row("lstm, device memory with libraries, bf16", taken / 2 ** 20, "MiB", peer=theirs["bytes"] / 2 ** 20, form="PyTorch eager",
              ratio=taken / theirs["bytes"])
    return "allocated: ours %.0f MiB, PyTorch's %.0f MiB" % (mine["device_bytes"] / 2 ** 20, theirs["allocated"] / 2 ** 20)


def gcn(check):
    for precision, tolerance in (("f32", 1e-3), ("bf16", 5e-2)):
        step_compare(check, "gcn", precision, check.settings(30, 2), tolerance,
                     {", any form of PyTorch's": "", "": "geometric"})


def fisher(check):
    check.ours("fisher", "fisher")
    sums = check.vector("fisher", "fisher_sums.f32")
    mine = check.ours("repeat", "fisher", "fisher=1", "steps=%d" % check.settings(10, 1), "repeats=%d" % check.settings(5, 1))
    peer = check.peers["fisher", "f32"]
    times = peer.times(1, check.settings(2, 1))
    if not times:
        raise Skipped("no form of PyTorch's could be timed: " + "; ".join(peer.absent.values()))
    best = min(times, key=times.get)
    error = difference(sums, numpy.fromfile(peer.forms[best]["gradient"], "f4"))
    check.row("exact Fisher, lstm, 128 samples, f32", statistics.median(mine["seconds_each"]) * 1e3, "ms", peer=times[best] * 1e3,
              form="PyTorch " + best, compared="squared gradients, relative L2 %.1e" % error)
    if not error <= 1e-3:
        raise Failed("squared gradients differ by %.1e (relative L2), more than 1e-3" % error)


def sweep(check):
    count = PARAMETERS[check.dry]
    mine = check.line([DEVICE_PROBE, "cuda", "parameters=%d" % count,
                       *check.settings([], ["copy_mb=1", "upload_mb=1", "repeats=1"])])
    if not mine["difference"] <= 1e-5:
        raise Failed("AdamW on the device differs from the CPU's by %.1e" % mine["difference"])
    times = check.peers["sweep", "f32"].times(2, check.settings(5, 1))
    best = min(times, key=times.get)
    for name, bytes_each, seconds, ceiling in (("AdamW", 28, mine["adamw_seconds"], "copy_bytes"),
                                               ("sum of squares", 4, mine["norm_seconds"], "read_bytes")):
        compared = {"peer": times[best] * 1e3, "form": "PyTorch AdamW " + best,
                    "compared": "with the CPU's, relative %.1e" % mine["difference"]} if name == "AdamW" else {}
        limit = bytes_each * count / max(check.rates[ceiling], mine["copy_bytes_per_second"])
        check.row("sweep of 500 million parameters, " + name, seconds * 1e3, "ms", **compared, ratio=limit / seconds, limit=limit * 1e3)


# ---- whole runs on a file of the reference data's shape ----

def staging(check):
    """How fast rows come from the page cache to the device, a model that does hardly anything being trained on them."""
    shape = whole_runs.shape_of(check.dry)
    report = whole_runs.run("run", whole_runs.file_path(check), whole_runs.layers_small(shape), 1, check.settings(128, 32))
    rate = report["samples_per_second"] * 4 * shape["length"] * shape["inputs"]
    check.row("staging, first epoch, uncompressed from the page cache", rate / 1e9, "GB/s", ratio=rate / check.rates["upload_bytes"])
    locked = whole_runs.locked_bytes(report) / 2 ** 20
    check.row("page-locked host memory, 12.5 GB staged", locked, "MiB", ratio=locked)


def busy(check):
    """Share of time with a kernel running while the dense model is trained."""
    whole_runs.dense_write("dense.h5", check.settings(60000, 256))
    watch = whole_runs.Utilisation()
    report = whole_runs.run("run", "dense.h5", whole_runs.layers_dense(check.settings(1024, 16)), check.settings(60, 2),
                            128, ("data.scale=0.00392",), watch, "softmax_cross_entropy", ("monitord",))
    check.row("dense run, epochs of 60,000 rows", report["samples_per_second"], "rows/s")
    share_row(check, "GPU utilisation, dense run", watch)
    monitord_rows(check, report)


def monitord_rows(check, report):
    """What monitord makes of the GPU, over the whole run, and of the plan's estimate for the driver's library."""
    peak, planned = (report["memory"][kind]["monitord"] for kind in ("peak", "plan"))
    check.row("monitord on a GPU, peak against plan", peak / 2 ** 20, "MiB", ratio=peak / planned)
    if report["gpu"] and report["gpu"]["utilisation"]["mean"] is not None:
        check.row("GPU utilisation as monitord tells it, dense run", 100 * report["gpu"]["utilisation"]["mean"], "%")


def share_row(check, name, watch):
    if watch.share() is not None:
        check.row(name, 100 * watch.share(), "%", ratio=watch.share())


def kernels(check):
    """What the GPU does in a step of each case."""
    if check.dry or not os.path.exists(kernel_times.LIBRARY):
        return "not looked at: the emulated device has no CUPTI" if check.dry else "not looked at: it was built without CUPTI"
    path, steps = os.path.join(check.own, "times"), 20
    for case, precision in (("dense", "f32"), ("dense", "bf16"), ("gcn", "f32"), ("gcn", "bf16"), ("lstm", "bf16")):
        check.ours("repeat", case, "steps=%d" % (steps + 5), "half=%d" % HALVES[precision], "repeats=1",
                   CUDA_INJECTION64_PATH=kernel_times.LIBRARY, KERNEL_TIMES=path)
        times = kernel_times.times_read(path)
        if not times:
            return "not looked at: CUPTI told nothing"
        check.step_times("%s, %s" % (case, precision), kernel_times.step_summary(times, steps))
    return ""


def mixed(check):
    """Three epochs of the LSTM regressor in bfloat16 and in float32: validation loss, and times, reading included."""
    path, shape, reports = whole_runs.file_path(check), whole_runs.shape_of(check.dry), {}
    watch = whole_runs.Utilisation()
    for kind, settings in (("bf16", ("training.use_amp=true", "training.amp_dtype=bfloat16")), ("f32", ())):
        reports[kind] = whole_runs.run(kind, path, whole_runs.layers_lstm(shape), 3, check.settings(128, 32),
                                       (*settings, "training.metric=loss"), watch if kind == "bf16" else None)
    half, whole = reports["bf16"], reports["f32"]
    check.rate("lstm_run_seconds", 3 * shape["rows"] / half["samples_per_second"])
    share_row(check, "GPU utilisation, LSTM run", watch)
    losses = [r["tasks"][0]["final"] for r in (half, whole)]
    check.row("LSTM run, mixed precision against float32: validation loss", losses[0], "", peer=losses[1], form="ours in float32",
              ratio=abs(losses[0] / losses[1] - 1))
    check.row("LSTM run, mixed precision against float32: samples/s", half["samples_per_second"], "rows/s",
              peer=whole["samples_per_second"], form="ours in float32", ratio=half["samples_per_second"] / whole["samples_per_second"])


def loading(check):
    """The three epochs in bfloat16 beside two PyTorch loops, both for three epochs."""
    for way, form in (("whole", "all rows on the GPU"), ("dataloader", "DataLoader over h5py, 4 workers; of some batches")):
        theirs = whole_runs.peer_loading(check, way)
        check.row("chunk loading, 3 epochs of the LSTM, against " + way, check.rates["lstm_run_seconds"], "s",
                  peer=theirs["seconds"], form="PyTorch, " + form)
