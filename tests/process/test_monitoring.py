"""What monitord makes of a run: users' marks and the table of samples, in whole runs."""
import csv
import json
import os
import signal
import subprocess

import msgpack
import zmq

from harness import limit
from runs import ROOT, Run, small

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
