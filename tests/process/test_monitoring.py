"""What monitord makes of a run: users' marks and the table of samples, in whole runs."""
import csv
import json
import os
import signal
import subprocess

import msgpack
import zmq

from harness import limit, skip
from runs import ROOT, Run, small
from small_run import CLASSES, FEATURES, SmallRun, data_write, facts, report as small_report

try:
    import h5py
except ImportError:
    h5py = None

TAP = os.path.join(ROOT, "build/release/bin/tap")


@limit(120)
def test_mark_is_in_stream_profile_and_report():
    run = Run("marked", *small(8), "--profile-memory")
    run.await_path("sockets/monitor.pub")
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.connect("ipc://" + run.path("sockets/monitor.pub"))
    socket.subscribe(b"")
    socket.RCVTIMEO = 20000
    socket.recv_multipart()
    socket.subscribe(b"event.mark")
    socket.unsubscribe(b"")
    run.until(lambda: "epoch 1:" in run.output(), "no epoch")  # the foreground hears the stream
    subprocess.run([TAP, "--run", run.directory, "--ask", "trainerd", "mark", "größer: 2 %"], check=True, timeout=30)
    topic = b""
    while topic != b"event.mark":
        topic, payload = socket.recv_multipart()
    mark = msgpack.unpackb(payload)
    assert (mark["stage"], mark["text"]) == ("trainerd", "größer: 2 %"), mark
    report = run.finish()
    assert not os.path.exists(run.path("logs/metrics.csv"))  # only where it is asked for
    assert [(m["stage"], m["text"]) for m in report["marks"]] == [("trainerd", "größer: 2 %")], report["marks"]
    assert "mark (trainerd): größer: 2 %" in run.output()
    profiles = [f for f in os.listdir(run.path("logs/memory_profile")) if f.endswith(".json")]
    with open(run.path("logs/memory_profile", profiles[0])) as f:
        events = json.load(f)["events"]
    assert [(v["stage"], v["label"]) for v in events if v["what"] == "mark"] == [("trainerd", "größer: 2 %")], events


def table(path):
    with open(path, newline="") as f:
        return list(csv.reader(f))


@limit(120)
def test_metrics_are_one_table_over_a_restart():
    run = Run("tabled", *small(8), "--set", "monitor.csv=true", "--set", "monitor.sample_s=0.05")
    path = run.path("logs/metrics.csv")
    run.until(lambda: os.path.exists(path) and len(table(path)) > 5, "no rows")
    os.kill(run.pid("monitord"), signal.SIGKILL)
    report = run.finish()
    assert report["restarts"]["monitord"] == 1, report["restarts"]
    header, *rows = table(path)
    assert not os.path.exists(path + ".old")
    assert rows and all(len(row) == len(header) for row in rows), (header, rows)
    rows = [dict(zip(header, row)) for row in rows]
    times = [float(row["time_unix_s"]) for row in rows]
    assert times == sorted(times)
    trained = [row for row in rows if row["loss"]]
    assert trained and all(float(row["learning_rate"]) > 0 and int(row["step"]) > 0 for row in trained), rows[-3:]
    assert {row["task"] for row in trained} <= {"A", "B", "B-without-ewc"}
    peak = max(int(row["trainerd_rss_bytes"] or 0) for row in rows)
    assert 1 << 20 < peak <= 1.05 * report["memory"]["peak"]["trainerd"], (peak, report["memory"]["peak"])
    assert all(0 < int(row["system_used_bytes"]) <= int(row["system_total_bytes"]) for row in rows)


HEART = """name: heart
data: {file: x.h5, scale: 0.01}
model: {layers: [{type: linear, out: 64}, {type: relu}, {type: linear, out: %d}]}
training: {batch_size: 64, threads: 1, learning_rate: 0.01}
tasks: [{name: A, epochs: 12}]
""" % CLASSES


def unrelated_write(path):
    """Rows whose classes nothing tells: what is learned of them can only be learned by heart."""
    import numpy
    random = numpy.random.default_rng(3)
    with h5py.File(path, "w") as f:
        for split, rows in (("train", 640), ("validation", 320)):
            f[split + "/features"] = random.integers(0, 256, (rows, FEATURES)).astype(numpy.uint8)
            f[split + "/targets"] = random.integers(0, CLASSES, rows).astype(numpy.uint8)


class Foreground:
    """What a terminal would show of a run, from a moment on when it hears the stream."""

    def __init__(self, run):
        with open("shown", "w") as out:
            self.process = subprocess.Popen([TAP, "--run", run.directory, "--progress"], stdout=out)
        run.until(self.hears, "the foreground hears nothing")

    def hears(self):
        subprocess.run([TAP, "--run", "run", "--ask", "monitord", "mark", "heard"], check=True, stdout=subprocess.DEVNULL)
        return "mark (monitord): heard" in self.shown()

    def shown(self):
        with open("shown") as f:
            return f.read()

    def end(self):
        self.process.terminate()
        self.process.wait()
        return self.shown()


def test_advice_reaches_journal_stream_foreground_and_report():
    if h5py is None:
        skip("python3-h5py is not installed")
    unrelated_write("heart.h5")
    with SmallRun("run", "heart.h5", pipeline=HEART) as run:
        run.start("monitord", "loaderd")
        run.until(lambda: os.path.exists("run/sockets/monitor.pub"), "no stream")
        socket = zmq.Context.instance().socket(zmq.SUB)
        socket.connect("ipc://run/sockets/monitor.pub")
        socket.subscribe(b"memory.advice")
        socket.RCVTIMEO = 30000
        foreground = Foreground(run)
        run.start("trainerd")
        topic, payload = socket.recv_multipart()
        assert run.wait("trainerd") == 0, run.log("trainerd")
        run.processes["monitord"].terminate()
        run.wait("monitord")
        shown = foreground.end()
    advice = msgpack.unpackb(payload)
    assert (advice["what"], advice["task"], advice["option"]) == ("gap", "A", "training.early_stopping_patience"), advice
    assert "the validation loss of task A" in advice["sentence"]
    kept = facts(run, "monitord", "memory.advice")
    assert [dict(fact, time_s=advice["time_s"]) for fact in kept] == [advice], (kept, advice)
    assert "advice: " + advice["sentence"] in shown and advice["sentence"] in run.log("monitord"), shown
    told = small_report(run)["advice"]
    assert [(a["what"], a["sentence"]) for a in told] == [("gap", advice["sentence"])], told


LONG_EPOCHS = """name: leaking
data: {file: x.h5, scale: 0.01}
model: {layers: [{type: linear, out: 1024}, {type: relu}, {type: linear, out: %d}]}
training: {batch_size: 2, threads: 1, learning_rate: 1e-5}
tasks: [{name: A, epochs: 100}]
""" % CLASSES


def test_leak_is_told_of_its_stage():
    """trainerd loses 64 bytes a turn."""
    if h5py is None:
        skip("python3-h5py is not installed")
    data_write("long.h5", rows=40000, validation_rows=64)
    with SmallRun("run", "long.h5", pipeline=LONG_EPOCHS) as run:
        run.start("monitord", "loaderd")
        run.start("trainerd", environment={"FINETUNED_FAIL": "leak:64"})
        run.until(lambda: " what=leak " in run.log("monitord"), "no advice")
        for stage in ("trainerd", "loaderd", "monitord"):
            run.processes[stage].terminate()
            run.wait(stage)
    told, = facts(run, "monitord", "memory.advice")
    assert (told["what"], told["stage"], told["task"], told["option"]) == ("leak", "trainerd", "A", "monitor.profile"), told
    assert told["value"] > 0 and "trainerd leaks: its heap" in told["sentence"], told
    assert [(a["what"], a["sentence"]) for a in small_report(run)["advice"]] == [("leak", told["sentence"])]
