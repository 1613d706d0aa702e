"""A stranger's client: pyzmq and msgpack, the README, and nothing of ours."""
import os
import subprocess

import msgpack
import zmq

from harness import limit
from runs import ROOT, Run, small

FIELDS = {"incarnation", "seq", "time_s", "task", "epoch", "epochs", "step", "steps", "loss", "penalty",
          "learning_rate", "gradient_norm", "loss_scale", "skipped_steps", "steps_per_s", "samples_per_s", "wait_share", "eta_s",
          "rss_bytes", "device_bytes", "device_peak_bytes", "device_free_bytes"}


@limit(120)
def test_python_client_receives_trainer_step():
    run = Run("tapped", *small(8))
    run.await_path("sockets/monitor.pub")
    socket = zmq.Context.instance().socket(zmq.SUB)
    socket.connect("ipc://" + run.path("sockets/monitor.pub"))
    socket.subscribe(b"trainer.step")
    socket.RCVTIMEO = 20000
    steps = []
    for _ in range(3):
        topic, payload = socket.recv_multipart()
        assert topic == b"trainer.step"
        message = msgpack.unpackb(payload)
        assert set(message) == FIELDS, set(message) ^ FIELDS
        assert message["task"] in ("A", "B", "B-without-ewc") and message["loss"] > 0
        assert message["rss_bytes"] > 1 << 20 and 0 <= message["wait_share"] <= 1
        steps.append((message["step"], message["seq"]))
    assert steps == sorted(steps) and len(set(steps)) == 3, steps
    run.finish()


@limit(120)
def test_slow_and_hostile_subscribers_change_nothing():
    run = Run("hostile", *small(8))
    run.await_path("sockets/monitor.pub")
    slow = zmq.Context.instance().socket(zmq.SUB)
    slow.RCVHWM = 1
    slow.connect("ipc://" + run.path("sockets/monitor.pub"))
    slow.subscribe(b"")  # and never read
    rude = zmq.Context.instance().socket(zmq.DEALER)
    rude.connect("ipc://" + run.path("sockets/trainer.ctl"))
    for garbage in ([b"status", b"\xc1"], [b"x" * 300], [b"", b"", b""], [b"estimate", b"\xdd\xff\xff\xff\xff"],
                    [b"stop", b"\x80", b"more"]):
        rude.send_multipart(garbage)
    report = run.finish()
    assert all(n == 0 for n in report["restarts"].values()), report["restarts"]


@limit(120)
def test_tap_prints_json_lines_and_asks():
    import json
    run = Run("taps", *small(8))
    run.await_path("sockets/monitor.pub")
    tap = os.path.join(ROOT, "build/release/bin/tap")
    out = subprocess.run([tap, "--run", run.directory, "--topic", "memory.", "--count", "5"],
                         capture_output=True, text=True, timeout=30)
    assert out.returncode == 0, out.stderr
    lines = [json.loads(line) for line in out.stdout.splitlines()]
    assert len(lines) == 5 and all(line["topic"] == "memory.sample" for line in lines)
    for stage in ("loaderd", "trainerd", "fisherd", "monitord"):
        out = subprocess.run([tap, "--run", run.directory, "--ask", stage, "status"], capture_output=True,
                             text=True, timeout=30)
        assert out.returncode == 0, (stage, out.stderr)
        assert json.loads(out.stdout)["stage"] == stage
        assert json.loads(out.stdout)["pid"] == run.pid(stage)
    run.finish()
