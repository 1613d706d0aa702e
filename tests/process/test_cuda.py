"""Runs on a device, which is the emulated one wherever these tests run: the kernels of the CUDA backend, executed by the
CPU, with a memory of its own. The weights are the CPU's but for rounding, and bit for bit the same however rows come to
the device and whatever dies on the way. FINETUNED_CUDA_LIBRARY names another library: a GPU's, where there is one."""
import csv
import json
import os
import shutil
import signal
import subprocess

from harness import limit, skip
from runs import ROOT
from small_run import BINARIES, FEATURES, SmallRun, data_write, facts, trained

try:
    import h5py
    import numpy
except ImportError:
    h5py = None

EMULATED = os.path.join(os.path.dirname(BINARIES), "lib", "libengine-cuda-emulated.so")
ROWS, BATCH, EPOCHS = 320, 32, 3
SETTINGS = ("training.batch_size=%d" % BATCH, "tasks.A.epochs=%d" % EPOCHS, "order.span_rows=64",
            "order.window_spans=2", "training.learning_rate=0.01",
            "continual_learning.ewc_config.fisher_samples=%d" % ROWS)


FULL = {"FINETUNED_EMULATED": "allocation=1"}  # nothing finds room on the device


def device_take():
    """The device of the tests for all stages that this case starts."""
    if h5py is None:
        skip("python3-h5py is not installed")
    os.environ.setdefault("FINETUNED_CUDA_LIBRARY", EMULATED)
    data_write("data.h5", rows=ROWS)


def emulated_take():
    """The same for cases that make it fail, or another one."""
    device_take()
    if os.environ["FINETUNED_CUDA_LIBRARY"] != EMULATED:
        skip("FINETUNED_EMULATED tells the emulated device alone what to do")


def run_on(name, device="cuda", settings=()):
    return trained(name, settings=(*SETTINGS, "device=" + device, *settings))[0]


def state(run, task="B"):
    """Parameters, module buffers and moments at a task's end, and the digest of the parameters."""
    arrays = {}
    with h5py.File(run.path("checkpoints/task-%s.h5" % task)) as f:
        f.visititems(lambda name, item: arrays.update({name: item[:]} if hasattr(item, "dtype") and
                                                      item.dtype == "f4" else {}))
        return arrays, f.attrs["parameters_sha256"]


def report(run):
    subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True,
                   stdout=subprocess.DEVNULL)
    with open(run.path("report/report.json")) as f:
        return json.load(f)


@limit(60)
def test_a_run_is_the_cpus_but_for_rounding():
    device_take()
    cpu, cuda = run_on("cpu", "cpu"), run_on("cuda")
    (expected, expected_digest), (found, digest) = state(cpu), state(cuda)
    assert digest != expected_digest, "it did not compute on the device"
    assert found.keys() == expected.keys() and len(found) == 12
    for name, array in expected.items():
        error = numpy.abs(found[name] - array).max()
        assert error <= 2e-5 * numpy.abs(array).max() + 1e-7, (name, error)
    on_cpu, on_cuda = report(cpu), report(cuda)
    losses = [[e["loss"] for e in r["epochs"]] for r in (on_cpu, on_cuda)]
    assert len(losses[0]) == EPOCHS + 1 and numpy.allclose(*losses, rtol=0, atol=1e-4), losses
    assert on_cpu["device"] == "cpu" and on_cuda["device"] == "cuda"
    assert on_cuda["device_name"] and on_cuda["device_name"] != on_cpu["device_name"]
    used = on_cuda["memory"]["device"]
    together = used["trainerd"] + used["fisherd"]
    assert used["total"] > together, used
    # What a driver's context takes is seen from the free memory, of which other cases' processes take some, too.
    assert together < 1.01 * used["plan"], used
    if on_cuda["device_name"] == "emulated":  # whose contexts are fixed, and would hide the rest
        rest = used["plan"] - 2 * facts(cuda, "trainerd", "event.device")[0]["context_bytes"]
        # The plan is that of an estimate: trainerd's peak has its mega-batches, which it gives back before one.
        assert 0 < together - used["plan"] < 0.1 * rest, (used, rest)
    held = sum(row["bytes"] for row in on_cuda["memory"]["plan_rows"] if row["stage"] == "trainerd"
               and row["what"].startswith(("arena", "copies of the device", "batch on its way")))
    locked = on_cuda["memory"]["page_locked"]
    assert held > 80000 and held < locked["trainerd"] < held + 4096, (held, locked)  # the rest: results of steps
    assert not on_cpu["memory"]["page_locked"]
    assert on_cuda["threads"] == 1 and on_cuda["reproducible"] is True
    with h5py.File(cuda.path("checkpoints/task-B.h5")) as f:
        assert f.attrs["cpu"].decode().rstrip("\0") == "cuda: " + on_cuda["device_name"]


@limit(60)
def test_fisherd_takes_no_more_than_the_limit():
    """Here one that trainerd would not have begun with."""
    import test_fisherd
    test_fisherd.client_needs()
    device_take()
    of = run_on("of")
    with SmallRun("limited", "data.h5", settings=(*SETTINGS, "device=cuda", "memory.device_limit_mb=1")) as run:
        os.makedirs(run.path("checkpoints"), exist_ok=True)
        shutil.copy(of.path("checkpoints/task-A.h5"), run.path("checkpoints/task-A.h5"))
        run.start("loaderd", "fisherd")
        client = test_fisherd.Client(run)
        client.send(test_fisherd.request_for(run))
        assert run.wait("fisherd") == 111
        assert "no device memory for " in run.log("fisherd") and "that the limit leaves" in run.log("fisherd")


@limit(60)
def test_the_way_of_the_rows_changes_no_bit():
    """All rows on the device, a few windows at a time, locked or not, or gathered on the host."""
    device_take()
    window_gb = 2 * (64 * FEATURES + 64 + 64) / 2 ** 30
    ways = {"whole": (), "unlocked": ("loader.pin_memory=false",),
            "windows": ("loader.chunk_size_gb=%.9f" % (2.5 * window_gb),),
            "one-window": ("loader.chunk_size_gb=%.9f" % (1.2 * window_gb), "loader.persistent_workers=false"),
            "host": ("loader.use_chunk_loader=false",), "emptied": ("memory.empty_cache_every_n_epochs=1",)}
    runs = {way: run_on(way, settings=settings) for way, settings in ways.items()}
    digests = {way: state(run)[1] for way, run in runs.items()}
    assert len(set(digests.values())) == 1, digests
    begun = {way: run.log("trainerd").count(" feed=trainer.train ") for way, run in runs.items()}
    assert begun["emptied"] > begun["whole"] == 2, begun


@limit(60)
def test_refused_steps_are_the_same_ahead_or_waited_for():
    """Rows on the device: the next step is asked for before it is known that one is refused; gathered on the host: not."""
    device_take()
    settings = ("training.on_nan=skip", "training.loss_max=60", "training.learning_rate=2")
    ahead, waited = run_on("ahead", settings=settings), run_on("waited", settings=(*settings, "loader.use_chunk_loader=false"))
    told = [[f["sentence"] for f in facts(run, "trainerd", "event.training")] for run in (ahead, waited)]
    assert told[0] == told[1] and len(told[0]) > 10 and "step 2 of task A, rows 32 to 63 of epoch 1" in told[0][0], told
    assert state(ahead)[1] == state(waited)[1]
    lineage = [open(run.path("lineage"), "rb").read() for run in (ahead, waited)]
    assert lineage[0] == lineage[1]


@limit(60)
def test_graphs_are_put_together_while_the_step_before_is_computed():
    """Of all rows in a mega-batch, where some steps are refused; out of the arena each step is waited for."""
    import test_graphs
    device_take()
    settings = ("device=cuda", "tasks.B.epochs=1", "training.on_nan=skip", "training.loss_max=14.5")
    ahead, waited = (test_graphs.trained(name, (*settings, *more))[0]
                     for name, more in (("ahead", ()), ("waited", ("loader.use_chunk_loader=false",))))
    told = [[f["sentence"] for f in facts(run, "trainerd", "event.training")] for run in (ahead, waited)]
    assert told[0] == told[1] and 1 < len(told[0]) < 25, told
    assert state(ahead)[1] == state(waited)[1]
    lineage = [open(run.path("lineage"), "rb").read() for run in (ahead, waited)]
    assert lineage[0] == lineage[1]


@limit(60)
def test_timeframes_train_as_their_concatenation():
    """Each is gathered by itself, on the device, into its columns of the input."""
    device_take()
    from test_layouts import NAMES, frames_write, weights
    frames_write("frames.h5", "whole.h5")
    assert weights("frames", "frames.h5", *NAMES, "device=cuda") == weights("whole", "whole.h5", "device=cuda")


@limit(60)
def test_killed_runs_end_with_the_same_weights():
    device_take()
    expected = state(run_on("undisturbed"))[1]
    settings = (*SETTINGS, "device=cuda", "training.checkpoint_every_s=0.01")
    with SmallRun("killed", "data.h5", settings=settings) as run:
        run.start("loaderd", "fisherd", "trainerd")
        for checkpoint in ("step-0000000007-0.h5", "step-0000000023-0.h5", "task-A.h5"):
            run.until(lambda: any(n >= checkpoint for n in os.listdir(run.path("checkpoints"))), checkpoint)
            run.kill("trainerd")
            run.start("trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
    assert state(run)[1] == expected
    assert report(run)["reproducible"] is True


@limit(60)
def test_a_run_that_began_on_a_gpu_does_not_slip_to_the_cpu():
    """Which `device: auto` takes where there is no GPU: not while there is one that cannot be had now, and not in the
    middle of a run."""
    emulated_take()
    expected = state(run_on("undisturbed"))[1]
    away = "cannot go on with what was computed on cuda: emulated: with device auto only a GPU goes on"
    with SmallRun("run", "data.h5", settings=(*SETTINGS, "device=auto", "training.checkpoint_every_s=0.01")) as run:
        run.start("loaderd")
        run.start("fisherd", environment=FULL)
        run.start("trainerd", environment=FULL)
        assert run.wait("trainerd") == 111 and "no device memory for " in run.log("trainerd"), run.log("trainerd")
        run.start("trainerd")
        run.until(lambda: "task-A.h5" in os.listdir(run.path("checkpoints")), "the end of a task")
        run.kill("trainerd")
        run.start("trainerd", environment=FULL)
        assert run.wait("trainerd") == 111
        run.start("trainerd", environment={"FINETUNED_CUDA_LIBRARY": "none.so"})
        assert run.wait("trainerd") == 100
        assert run.log("trainerd").count(away) == 1 and "this build has no CUDA backend" in run.log("trainerd")
        run.start("trainerd")
        assert run.wait("fisherd") == 111 and "no device memory for " in run.log("fisherd"), run.log("fisherd")
        run.start("fisherd", environment={"FINETUNED_CUDA_LIBRARY": "none.so"})
        assert run.wait("trainerd") == 100
        assert "fisherd refuses the Fisher information " in run.log("trainerd"), run.log("trainerd")
        assert run.log("trainerd").count(away) == 2, run.log("trainerd")
        run.kill("fisherd")
        run.start("fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
    assert state(run)[1] == expected


@limit(60)
def test_a_gpu_that_fails_ends_a_stage_which_is_started_again():
    """Whatever it was at, with nothing of what is on the device from there on: one sentence, and no checkpoint but of
    whole steps."""
    emulated_take()
    expected = state(run_on("undisturbed"))[1]
    with SmallRun("run", "data.h5", settings=(*SETTINGS, "device=cuda", "training.checkpoint_every_s=0.01")) as run:
        run.start("loaderd")
        for number, work in enumerate((1, 5, 60, 250, 700), 1):
            run.start("trainerd", environment={"FINETUNED_EMULATED": "work=%d" % work})
            if work == 700:  # in the second task, which waits for the first one's Fisher information
                run.start("fisherd", environment={"FINETUNED_EMULATED": "work=20"})
                assert run.wait("fisherd") == 111, run.log("fisherd")
                run.start("fisherd")
            assert run.wait("trainerd") == 111, run.log("trainerd")
            errors = [line for line in run.log("trainerd").splitlines() if " error " in line]
            assert len(errors) == number, run.log("trainerd")
            assert "the GPU failed in its work number %d (emulated)" % work in errors[-1], errors
        assert run.log("fisherd").count(" error ") == 1 and "work number 20 (emulated)" in run.log("fisherd")
        run.start("trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
    assert state(run)[1] == expected
    assert report(run)["reproducible"] is True


@limit(60)
def test_a_run_that_began_on_a_gpu_goes_on_without_it_where_that_is_asked_for():
    device_take()
    settings = (*SETTINGS, "training.checkpoint_every_s=0.01")
    with SmallRun("run", "data.h5", settings=(*settings, "device=auto")) as run:
        run.start("loaderd", "fisherd", "trainerd")
        run.until(lambda: "task-A.h5" in os.listdir(run.path("checkpoints")), "the end of a task")
    os.environ["FINETUNED_CUDA_LIBRARY"] = "none.so"
    with SmallRun("run", "data.h5", settings=(*settings, "device=cpu")) as run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
    made = report(run)
    assert made["device"] == "cpu" and made["reproducible"] is False, made
    assert any("device" in f["sentence"] for f in facts(run, "trainerd", "event.training")), run.log("trainerd")


def end_loss(run):
    with h5py.File(run.path("checkpoints/task-B.h5")) as f:
        return [float(line.split("\t")[4]) for line in bytes(f["results"][:]).decode().splitlines()]


def predicted(run, *words):
    out = run.directory + ".predicted.h5"
    subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), "--run", run.directory, "--task", "B", "--out", out,
                    *words], check=True, timeout=50)
    with h5py.File(out) as f:
        return f["outputs"][:]


def graphs_on(device):
    import test_graphs
    return test_graphs.trained("graphs-" + device, ("device=" + device, "tasks.B.epochs=1"))[0]


def tokens_on(device):
    import test_tokens
    test_tokens.tokens_write()
    return test_tokens.trained("tokens-" + device, ("device=" + device, "tasks.A.epochs=1"))[0]


@limit(120)
def test_tokens_and_graphs_are_the_cpus_but_for_rounding():
    """An embedding, an LSTM and targets at every step; convolutions over graphs with dropout."""
    device_take()
    for make in (tokens_on, graphs_on):
        cpu, cuda = make("cpu"), make("cuda")
        expected, found = end_loss(cpu), end_loss(cuda)
        assert len(found) == 3 and numpy.allclose(found, expected, rtol=1e-5, atol=0), (make, found, expected)
        assert state(cpu)[1] != state(cuda)[1], make


@limit(120)
def test_predictions_are_the_cpus_but_for_rounding():
    device_take()
    if os.environ["FINETUNED_CUDA_LIBRARY"] != EMULATED:
        skip("a machine that is lent for its GPU lacks what predict.sh needs")
    cpu, cuda = graphs_on("cpu"), graphs_on("cuda")
    of_cpu, of_cuda, in_8_bits = predicted(cpu), predicted(cuda), predicted(cuda, "--int8")
    scale = numpy.abs(of_cpu).max()
    assert numpy.abs(of_cuda - of_cpu).max() < 1e-5 * scale
    assert 0 < numpy.abs(in_8_bits - of_cuda).max() < 0.1 * scale


@limit(60)
def test_a_bad_row_is_named():
    """On the device it is found when the step is done, and brought back to be looked at."""
    device_take()
    random = numpy.random.default_rng(2)
    features = random.standard_normal((ROWS, FEATURES)).astype("f4")
    features[77, 5] = numpy.nan
    data_write("bad.h5", features)
    for device in ("cpu", "cuda"):
        with SmallRun("bad-" + device, "bad.h5", settings=(*SETTINGS, "device=" + device)) as run:
            run.start("loaderd", "fisherd", "trainerd")
            assert run.wait("trainerd") == 100, run.log("trainerd")
            line, = [line for line in run.log("trainerd").splitlines() if " error " in line]
            assert "row 77 of train in" in line and "its feature 5 times the scale 0.01 is nan; accepted" in line, line


def readers_of(loader):
    """loaderd's processes, and the bytes that each has read."""
    found = {}
    with open("/proc/%d/task/%d/children" % (loader, loader)) as f:
        for pid in map(int, f.read().split()):
            with open("/proc/%d/io" % pid) as of:
                found[pid] = int(of.readline().split()[1])
    return found


@limit(60)
def test_rows_that_are_given_back_are_told_of_as_they_were():
    """Those of a batch that waits for others are not given back: a bad one among them is looked at again. loaderd stands
    still when it has read a third of the batch's ten spans, and goes on when the rows have been asked back."""
    device_take()
    features = numpy.random.default_rng(1).standard_normal((640, 6000)).astype("f4")  # a span takes a while
    features[5, 5] = numpy.nan
    data_write("wide.h5", features, validation_rows=64)
    settings = ("device=cuda", "data.shuffle=false", "training.batch_size=640", "order.span_rows=64",
                "order.window_spans=1")
    with SmallRun("run", "wide.h5", settings=settings, layers=("linear, out: 5",)) as run:
        run.start("loaderd", "fisherd", "trainerd")
        loader = run.processes["loaderd"].pid
        third = os.path.getsize("wide.h5") // 3
        run.until(lambda: any(read > third for read in readers_of(loader).values()), "a third of the rows")
        stopped = [loader, *readers_of(loader)]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        for _ in range(2): # the second answer comes when the first one's turn is over
            subprocess.run([os.path.join(BINARIES, "tap"), "--run", run.directory, "--ask", "trainerd", "release"],
                           check=True, timeout=20, stdout=subprocess.DEVNULL)
        for pid in reversed(stopped):
            os.kill(pid, signal.SIGCONT)
        assert run.wait("trainerd") == 100, run.log("trainerd")
        line, = [line for line in run.log("trainerd").splitlines() if " error " in line]
        assert "row 5 of train in" in line and "its feature 5 times the scale 0.01 is nan; accepted" in line, line


@limit(60)
def test_a_device_that_cannot_be_had_is_said():
    device_take()
    library = os.environ["FINETUNED_CUDA_LIBRARY"]
    sentences = {("none.so", "cuda"): "this build has no CUDA backend",
                 (library, "cuda:77"): "cannot compute on device cuda:77: there is no such GPU; there are 0 (",
                 (library, "cuda:Voodoo"): "cannot compute on device cuda:Voodoo: there is no such GPU; there are 0 ("}
    for (library, device), sentence in sentences.items():
        name = device.replace(":", "-")
        os.environ["FINETUNED_CUDA_LIBRARY"] = library
        with SmallRun(name, "data.h5", settings=("device=" + device,)) as run:
            run.start("trainerd")
            assert run.wait("trainerd") == 100 and run.log("trainerd").count(sentence) == 1, run.log("trainerd")
    os.environ["FINETUNED_CUDA_LIBRARY"] = "none.so"
    assert report(run_on("auto", "auto"))["device"] == "cpu"


FAKE_NVML = {"FINETUNED_NVML_LIBRARY": os.path.join(os.path.dirname(BINARIES), "lib", "libnvidia-ml-fake.so")}


class Samples:
    """What monitord publishes of the GPU."""

    def __init__(self, run):
        import zmq
        run.until(lambda: os.path.exists(run.path("sockets/monitor.pub")), "no stream")
        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.RCVTIMEO = 20000
        self.socket.connect("ipc://" + run.path("sockets/monitor.pub"))
        self.socket.subscribe(b"gpu.sample")

    def next(self):
        import msgpack
        return msgpack.unpackb(self.socket.recv_multipart()[1])


def stopped(run, *stages):
    for stage in stages:
        run.processes[stage].terminate()
        run.wait(stage)


@limit(60)
def test_how_the_gpu_does_is_in_stream_table_profile_report_and_log():
    """By a management library that the tests make, over a death of monitord, which then finds in trainerd's journal what
    it computes on."""
    emulated_take()
    settings = (*SETTINGS, "device=cuda", "tasks.A.epochs=10000", "monitor.csv=true", "monitor.profile=true",
                "monitor.log_gpu_stats_every_n_batches=5")
    with SmallRun("run", "data.h5", settings=settings) as run:
        run.start("loaderd", "fisherd")
        run.start("monitord", environment=FAKE_NVML)
        samples = Samples(run)
        run.start("trainerd")
        first = samples.next()
        assert first["bus"] == facts(run, "trainerd", "event.device")[0]["bus"] == "ffff:00:00.0", first
        assert (first["used_bytes"], first["temperature_c"]) == (324 << 20, 61) and first["utilisation"] in (0.5, 0.9), first
        assert abs(first["power_w"] - 345.6) < 1e-9 and first["clock_mhz"] == 1980, first
        run.until(lambda: " utilisation=0." in run.log("monitord"), "no line in the log")
        run.kill("monitord")
        run.start("monitord", environment=FAKE_NVML)
        samples = Samples(run)
        again = samples.next()
        lines = run.log("monitord").count(" utilisation=0.")
        run.until(lambda: run.log("monitord").count(" utilisation=0.") > lines, "no line after the death")
        assert again["incarnation"] > first["incarnation"] and again["utilisation"] in (0.5, 0.9), again
        stopped(run, "trainerd", "monitord", "loaderd", "fisherd")
    lines = [line for line in run.log("monitord").splitlines() if " utilisation=" in line]
    words = " device_mib=", " device_peak_mib=", " device_free_mib=", " used_mib=324.0 ", " temperature_c=61 ", " power_w=346 "
    assert all(word in line for word in words for line in lines), lines
    made = report(run)
    gpu = made["gpu"]
    assert gpu["used_bytes"] == {"mean": 324 << 20, "most": 324 << 20} and gpu["power_w"]["most"] > 345, gpu
    assert 0.5 <= gpu["utilisation"]["mean"] <= gpu["utilisation"]["most"] <= 0.9, gpu
    rows = [(row["stage"], row["what"]) for row in made["memory"]["plan_rows"]]
    assert ("monitord", "the driver's management library, an estimate") in rows, rows
    with open(run.path("logs/metrics.csv"), newline="") as f:
        told = [row for row in csv.DictReader(f) if row["gpu_utilisation"]]
    assert {float(row["gpu_utilisation"]) for row in told} <= {0.5, 0.9} and told, told
    assert {row["gpu_used_bytes"] for row in told} == {str(324 << 20)} and {row["gpu_clock_mhz"] for row in told} == {"1980"}
    directory = run.path("logs/memory_profile")
    newest = max(name for name in os.listdir(directory) if name.endswith(".json"))
    with open(os.path.join(directory, newest)) as f:
        shares = {row["gpu_utilisation"] for row in json.load(f)["samples"]}
    assert shares - {None} and shares <= {None, 0.5, 0.9}, shares


@limit(60)
def test_a_gpu_that_does_not_tell_how_it_does_is_told_of_once():
    emulated_take()
    settings = (*SETTINGS, "device=cuda", "tasks.A.epochs=10000", "monitor.csv=true", "monitor.log_gpu_stats_every_n_batches=5")
    with SmallRun("run", "data.h5", settings=settings) as run:
        run.start("loaderd", "fisherd")
        run.start("monitord", environment={"FINETUNED_NVML_LIBRARY": "./none.so"})
        run.start("trainerd")
        run.until(lambda: " device_mib=" in run.log("monitord"), "no line in the log")
        run.kill("trainerd")
        run.start("trainerd")
        starts = len(facts(run, "trainerd", "event.device"))
        run.until(lambda: len(facts(run, "trainerd", "event.device")) > starts, "trainerd is not started again")
        lines = run.log("monitord").count(" device_mib=")
        run.until(lambda: run.log("monitord").count(" device_mib=") > lines, "no line behind that")
        stopped(run, "trainerd", "monitord", "loaderd", "fisherd")
    log = run.log("monitord")
    assert log.count("info bus=ffff:00:00.0 How the GPU does is not known: there is no management library") == 1, log
    assert " utilisation=" not in log and report(run)["gpu"] is None


@limit(60)
def test_nothing_is_asked_of_a_gpu_while_the_cpu_computes():
    emulated_take()
    with SmallRun("run", "data.h5", settings=(*SETTINGS, "device=cpu", "monitor.log_gpu_stats_every_n_batches=1")) as run:
        run.start("loaderd", "fisherd")
        run.start("monitord", environment=FAKE_NVML)
        run.start("trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")
        with open("/proc/%d/maps" % run.processes["monitord"].pid) as f:
            assert "nvml" not in f.read() and "nvidia" not in f.read()
        stopped(run, "monitord")
    assert "GPU" not in run.log("monitord") and report(run)["gpu"] is None
