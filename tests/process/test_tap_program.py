"""tap as a program: a made-up run directory, sockets bound here, options, exit codes and what is printed."""
import json
import os
import pty
import signal
import subprocess
import time

import msgpack
import zmq

from harness import limit
from runs import ROOT

TAP = os.path.join(ROOT, "build/release/bin/tap")
STEP = dict(incarnation=1, task="A", epoch=1, epochs=3, steps=50, loss=0.5, penalty=0.0, learning_rate=1e-3,
            gradient_norm=1.0, loss_scale=0.0, skipped_steps=0, steps_per_s=10.0, samples_per_s=1280,
            wait_share=0.0, eta_s=12.0, rss_bytes=1 << 20, device_bytes=0, device_peak_bytes=0, device_free_bytes=0)


class FakeRun:
    """A run directory with monitord's stream and trainerd's control socket."""

    def __init__(self):
        self.directory = os.path.abspath("run")
        os.makedirs("run/sockets")
        context = zmq.Context.instance()
        self.stream = context.socket(zmq.PUB)
        self.stream.bind("ipc://run/sockets/monitor.pub")
        self.control = context.socket(zmq.ROUTER)
        self.control.RCVTIMEO = 10000
        self.control.bind("ipc://run/sockets/trainer.ctl")
        self.steps = 0

    def publish(self):
        self.steps += 1
        message = dict(STEP, seq=self.steps, step=self.steps, time_s=time.time())
        self.stream.send_multipart([b"trainer.step", msgpack.packb(message)])

    def publish_until(self, condition, seconds=20):
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, "nothing heard"
            self.publish()
            time.sleep(0.02)

    def answer(self, name, **fields):
        peer, verb, _ = self.control.recv_multipart()
        message = dict(fields, incarnation=1, seq=1, time_s=1.0)
        self.control.send_multipart([peer, name, msgpack.packb(message)])
        return verb

    def verdict(self, text):
        with open("run/verdict", "w") as f:
            f.write(text)

    def tap(self, *arguments, **options):
        return subprocess.Popen([TAP, "--run", self.directory, *arguments], text=True, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, **options)


def tap_call(*arguments):
    return subprocess.run([TAP, *arguments], capture_output=True, text=True, timeout=20)


def test_stream_is_json_lines():
    run = FakeRun()
    tap = run.tap("--topic", "memory.", "--topic", "trainer.", "--count", "3")
    run.publish_until(lambda: tap.poll() is not None)
    out, errors = tap.communicate()
    lines = [json.loads(line) for line in out.splitlines()]
    assert tap.returncode == 0 and errors == "", errors
    assert [line["topic"] for line in lines] == ["trainer.step"] * 3
    assert set(lines[0]) == set(STEP) | {"topic", "seq", "step", "time_s"}


def test_malformed_messages_are_named_and_passed_over():
    run = FakeRun()
    tap = run.tap("--count", "1")
    end = time.monotonic() + 20
    while tap.poll() is None:
        assert time.monotonic() < end
        run.stream.send_multipart([b"trainer.step", b"\xdd\xff\xff\xff\xff"])
        time.sleep(0.02)
        run.publish()
    out, errors = tap.communicate()
    assert tap.returncode == 0 and len(out.splitlines()) == 1
    assert all(line.startswith("tap: message trainer.step refused") for line in errors.splitlines()), errors


def test_answers_and_their_exit_codes():
    run = FakeRun()
    for stage in ("trainer", "trainerd"):
        tap = run.tap("--ask", stage, "checkpoint")
        assert run.answer(b"done", verb="checkpoint") == b"checkpoint"
        out, _ = tap.communicate(timeout=10)
        assert tap.returncode == 0 and json.loads(out)["verb"] == "checkpoint"
    tap = run.tap("--ask", "trainerd", "mark", "größer")
    peer, verb, map_ = run.control.recv_multipart()
    assert verb == b"mark" and msgpack.unpackb(map_)["text"] == "größer"
    run.control.send_multipart([peer, b"done", msgpack.packb(dict(verb="mark", incarnation=1, seq=2, time_s=1.0))])
    assert tap.wait(10) == 0
    tap = run.tap("--ask", "trainerd", "status")
    run.answer(b"unknown", reason="not today")
    out, _ = tap.communicate(timeout=10)
    assert tap.returncode == 100 and json.loads(out)["reason"] == "not today"
    out = tap_call("--run", run.directory, "--ask", "loaderd", "status")  # nobody is there
    assert out.returncode == 111 and "did not answer status within 5 s" in out.stderr and out.stdout == ""


def test_wrong_calls_get_a_sentence_and_100():
    run = FakeRun().directory
    for arguments, part in ((("--run", "nowhere"), "cannot enter run directory nowhere"),
                            (("--run", "/"), "is not a run's directory"),
                            ((), "--run DIR is missing"),
                            (("--run",), "--run lacks its value"),
                            (("--bogus",), "--bogus is not an option"),
                            (("stray",), '"stray" is not an option'),
                            (("--run", run, "--count", "0"), "from 1 to 1000000000 is accepted"),
                            (("--run", run, "--count", "3x"), "from 1 to 1000000000 is accepted"),
                            (("--run", run, "--ask", "cook", "status"), '"cook" is not a stage'),
                            (("--run", run, "--ask", "loaderd", "dance"), '"dance" is not a verb'),
                            (("--run", run, "--ask", "loaderd"), "lacks its verb"),
                            (("--run", run, "--ask", "loaderd", "mark"), "mark lacks its text"),
                            (("--run", run, "--ask", "loaderd", "mark", ""), "has 0 bytes; 1 to 80 are accepted"),
                            (("--run", run, "--ask", "loaderd", "mark", "x" * 81), "has 81 bytes; 1 to 80 are accepted"),
                            (("--run", run, "--ask", "loaderd", "mark", "a\nb"), "has a control character at byte 1;"),
                            (("--run", run, "--ask", "loaderd", "mark", b"ab\xff"), "is no UTF-8 from byte 2 on;"),
                            (("--run", run, "--ask", "loaderd", "mark", "a", "b"), '"b" is not an option'),
                            (("--run", run, "--progress", "--count", "3"), "do not go with"),
                            (("--run", run, "--until-pid", "1"), "goes with --progress only")):
        out = tap_call(*arguments)
        assert out.returncode == 100 and part in out.stderr and len(out.stderr.splitlines()) == 1, (arguments, out)


def test_help_names_every_option():
    out = tap_call("--help")
    assert out.returncode == 0
    for option in ("run", "topic", "count", "progress", "until-pid", "ask", "messages-reference", "help"):
        assert "  --%s" % option in out.stdout, option
    assert "Example: tap " in out.stdout


def progress_end(run, end, *arguments):
    """Run `tap --progress` until its first line, then let `end(tap)` end it: exit code, errors."""
    tap = run.tap("--progress", *arguments)
    os.set_blocking(tap.stdout.fileno(), False)
    run.publish_until(lambda: tap.stdout.readline())
    end(tap)
    _, errors = tap.communicate(timeout=10)
    return tap.returncode, errors


@limit(60)
def test_progress_ends_for_every_reason():
    run = FakeRun()
    assert progress_end(run, lambda tap: tap.send_signal(signal.SIGTERM)) == (0, "")
    assert progress_end(run, lambda tap: tap.send_signal(signal.SIGINT)) == (130, "")
    sleeper = subprocess.Popen(["sleep", "60"])
    code, errors = progress_end(run, lambda tap: sleeper.kill(), "--until-pid", str(sleeper.pid))
    assert code == 111 and "is gone and left no verdict" in errors
    assert progress_end(run, lambda tap: run.verdict("70 ten deaths of loaderd\n")) == (70, "")
    assert tap_call("--run", run.directory, "--progress").returncode == 70  # it was there before


def test_progress_tells_deaths_that_come():
    run = FakeRun()
    os.makedirs("run/logs")

    def died(what, end="\n"):
        with open("run/logs/deaths", "a") as f:
            f.write("2026-01-02T03:04:05Z fisherd 256 %s%s" % (what, end))

    died("long ago")
    tap = run.tap("--progress")
    os.set_blocking(tap.stdout.fileno(), False)
    run.publish_until(lambda: tap.stdout.readline())
    died("was killed")
    died("is being wr", "")
    told = []
    run.publish_until(lambda: told.append(tap.stdout.readline()) or "was killed\n" in told)
    tap.terminate()
    out, _ = tap.communicate(timeout=10)
    assert "long ago" not in out + "".join(told) and "being wr" not in out, (told, out)


def test_progress_on_a_terminal_stays_on_its_line():
    run = FakeRun()
    ours, theirs = pty.openpty()
    tap = subprocess.Popen([TAP, "--run", run.directory, "--progress"], stdout=theirs)
    os.set_blocking(ours, False)
    seen = b""

    def drawn_twice():
        nonlocal seen
        try:
            seen += os.read(ours, 4096)
        except BlockingIOError:
            pass
        return seen.count(b"\r") >= 2

    run.publish_until(drawn_twice)
    assert b"\n" not in seen and b"A 1/3 " in seen and b"\x1b[K" in seen, seen
    tap.terminate()
    assert tap.wait(10) == 0


def test_deep_run_directories_are_no_obstacle():
    deep = os.path.join("d" * 100, "e" * 100)
    os.makedirs(deep)
    os.chdir(deep)
    run = FakeRun()
    tap = run.tap("--count", "1")
    run.publish_until(lambda: tap.poll() is not None)
    assert tap.wait() == 0
