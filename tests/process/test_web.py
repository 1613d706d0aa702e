"""The web page: its server before runs that are made up, and beside a run that goes on."""
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import time
import urllib.parse

from harness import limit, skip
from runs import ROOT, STAGES, Run, small, undisturbed

WEB = os.path.join(ROOT, "build/release/bin/web")


class Web:
    """The program on a port of its own; leaves with the case."""

    def __init__(self, *arguments, **options):
        self.process = subprocess.Popen([WEB, "--port", "0", *arguments], text=True, stdout=subprocess.PIPE, **options)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"web: http://127\.0\.0\.1:(\d+)/#([0-9a-f]{32})\n", line)
        assert found, line
        self.port, self.token = int(found[1]), found[2]

    def ask(self, path, arguments=None, post=None, token=None, headers=None):
        """Status, headers and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        sent = {"Authorization": "Bearer " + (token or self.token), **(headers or {})}
        if arguments:
            path += "?" + urllib.parse.urlencode(arguments)
        connection.request("GET" if post is None else "POST", path, body=post, headers=sent)
        answer = connection.getresponse()
        body = answer.read().decode()
        connection.close()
        return answer.status, answer.headers, body

    def get(self, path, **arguments):
        status, _, body = self.ask(path, arguments)
        assert status == 200, (status, body)
        return body

    def run(self, name):
        return json.loads(self.get("/api/run", run=name))

    def act(self, **arguments):
        text = arguments.pop("text", "")
        return self.ask("/api/act", arguments, post=text)

    def until(self, name, condition, what, seconds=60):
        end = time.monotonic() + seconds
        while True:
            state = self.run(name)
            if condition(state):
                return state
            assert time.monotonic() < end, (what, state)
            time.sleep(0.05)

    def end(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0

    def resident_bytes(self):
        with open("/proc/%d/statm" % self.process.pid) as f:
            return int(f.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run_make(name, verdict=None):
    os.makedirs("runs/" + name)
    with open("runs/%s/pipeline.yaml" % name, "w") as f:
        f.write("nonsense: [\n")
    if verdict:
        with open("runs/%s/verdict" % name, "w") as f:
            f.write(verdict)


def test_the_page_is_for_all_and_runs_for_who_has_the_token():
    run_make("secret")
    web = Web("--runs", "runs")
    for path in ("/", "/web.js", "/web.css"):
        status, headers, body = web.ask(path, token="none")
        assert status == 200 and len(body) > 1000, (path, status)
        assert "default-src 'none'" in headers["Content-Security-Policy"], headers
        assert headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/api/runs", "/api/run?run=secret", "/api/log?run=secret&stage=trainerd", "/metrics", "/api/none"):
        status, _, body = web.ask(path, token="0" * 32)
        assert status == 403 and "token" in body and "secret" not in body, (path, status, body)
    assert web.ask("/api/act?run=secret&verb=end", post="", token="x")[0] == 403
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        for path in ("/", "/api/runs"):
            assert web.ask(path, headers=headers)[0] == 403, (path, headers)
    assert [r["name"] for r in json.loads(web.get("/api/runs"))["runs"]] == ["secret"]
    web.end()


def test_what_is_wrong_is_answered_with_a_sentence():
    run_make("one")
    web = Web("--runs", "runs")
    for path, post, status, words in (
            ("/none", None, 404, "no such page"), ("/api/run", None, 400, "?run=NAME"),
            ("/api/run?run=none", None, 404, "no such run"), ("/api/run?run=../runs/one", None, 404, "no such run"),
            ("/api/runs", "", 405, "by GET"), ("/", "", 405, "nothing that could be done"),
            ("/api/act?run=one&verb=end", None, 405, "by POST"), ("/api/act?run=one", "", 400, "&verb=VERB"),
            ("/api/act?run=one&verb=end", "", 409, "not live"), ("/api/file?run=one", None, 404, "no such file"),
            ("/api/file?run=one&name=pipeline.yaml", None, 404, "no such file"),
            ("/api/log?run=one&stage=init", None, 404, "no such thing"),
            ("/api/act?run=one&verb=mark", "x" * 1025, 413, "1,024 bytes")):
        answer = web.ask(path, post=post)
        assert answer[0] == status and words in answer[2], (path, answer)
    connection = http.client.HTTPConnection("127.0.0.1", web.port, timeout=20)
    connection.request("DELETE", "/api/runs", headers={"Authorization": "Bearer " + web.token})
    assert connection.getresponse().status == 405
    web.end()


def test_runs_are_shown_as_they_ended_even_unreadable_ones():
    run_make("broken", "100 trainerd: no such file\n")
    run_make("<img src=x>", "0 done\n")
    web = Web("--runs", "runs")
    runs = {r["name"]: r for r in json.loads(web.get("/api/runs"))["runs"]}
    assert runs["broken"]["code"] == 100 and runs["broken"]["sentence"] == "trainerd: no such file"
    state = web.run("<img src=x>")
    assert state["code"] == 0 and not state["live"] and "pipeline.yaml" in state["unread"], state
    assert [s["pid"] for s in state["stages"]] == [0] * 4
    assert sorted(re.findall("^finetuned_.*", web.get("/metrics"), flags=re.M)) == sorted(
        'finetuned_run_exit_code{run="%s"} %d' % (name, runs[name]["code"]) for name in runs)
    web.end()


def test_garbage_and_silence_leave_it_answering():
    run_make("one")
    web = Web("--runs", "runs")
    idle = [socket.create_connection(("127.0.0.1", web.port)) for _ in range(20)]
    for text in (b"\0" * 5000, b"GET / HTTP/9.9\r\n\r\n", b"GET /" + b"a" * 100000 + b" HTTP/1.1\r\n\r\n",
                 b"POST /api/act HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999999\r\n\r\n" + b"x" * 4000,
                 b"GET /api/run?" + b"&" * 20000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
                 b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n"):
        s = socket.create_connection(("127.0.0.1", web.port))
        try:
            s.sendall(text)
        except OSError:
            pass
        s.close()
        assert len(json.loads(web.get("/api/runs"))["runs"]) == 1, text[:40]
    for s in idle:
        s.close()
    web.run("one")
    before = web.resident_bytes()
    for _ in range(300):
        web.run("one")
    assert web.resident_bytes() < before + (1 << 20)
    web.end()


def test_other_users_are_not_heard():
    """Only root can try."""
    if os.geteuid() != 0:
        skip("only root can be somebody else")
    run_make("one")
    web = Web("--runs", "runs")
    script = "import sys, http.client\nc = http.client.HTTPConnection('127.0.0.1', int(sys.argv[1]), timeout=10)\n" \
             "c.request('GET', '/')\nprint(c.getresponse().status)"
    for user, heard in ((0, True), (12345, False)):
        out = subprocess.run(["/usr/bin/python3", "-c", script, str(web.port)], capture_output=True, text=True, timeout=20,
                             user=user, cwd="/")
        assert (out.stdout == "200\n") == heard, (user, out)
    web.end()


def test_a_large_table_can_be_had():
    run_make("one")
    os.makedirs("runs/one/logs")
    with open("runs/one/logs/metrics.csv", "w") as f:
        f.write("x" * (40 << 20))
    web = Web("--runs", "runs")
    before = web.resident_bytes()
    assert len(web.get("/api/file", run="one", name="logs/metrics.csv")) == 40 << 20
    assert web.resident_bytes() < before + (4 << 20)
    web.end()


def test_bad_options_are_refused_with_a_sentence():
    os.mkdir("runs")
    taken = socket.create_server(("127.0.0.1", 0))
    for arguments, words in (
            (("--port", "70000"), "0 to 65535"), (("--port", "x"), "0 to 65535"), (("--runs", "none"), "none"),
            (("--run", "runs"), "no run of yours"), (("--runs", "runs", "--run", "runs"), "exclude each other"),
            (("runs",), "not an option"), (("--nothing",), "not an option"), (("--port",), "lacks its value"),
            (("--runs", "runs", "--port", str(taken.getsockname()[1])), "--port")):
        out = subprocess.run([WEB, *arguments], capture_output=True, text=True, timeout=20)
        assert out.returncode == 100 and words in out.stderr and out.stderr.count("\n") == 1, (arguments, out)
    out = subprocess.run([WEB, "--help"], capture_output=True, text=True, timeout=20)
    assert out.returncode == 0 and "--runs" in out.stdout


def test_a_taken_port_leaves_the_other_ones_token():
    os.mkdir("runs")
    web = Web("--runs", "runs", "--token-file", "token")
    with open("token") as f:
        reading = f.read()
    assert os.stat("token").st_mode & 0o777 == 0o600 and reading.strip() != web.token
    assert web.ask("/metrics", token=reading.strip())[0] == 200
    assert web.ask("/api/act?run=x&verb=end", post="", token=reading.strip())[0] == 403
    out = subprocess.run([WEB, "--runs", "runs", "--token-file", "token", "--port", str(web.port)], capture_output=True,
                         text=True, timeout=20)
    assert out.returncode == 100, out
    with open("token") as f:
        assert f.read() == reading
    web.end()


def metrics_check(text):
    """Prometheus' text format; the figures are those of the reference page."""
    line = r'finetuned_(\w+)\{run="[^"]*"(,stage="[a-z]+")?\} (-?[0-9.e+-]+|[+-]Inf)'
    named = set()
    for row in text.splitlines():
        found = re.fullmatch(line, row)
        assert found or re.fullmatch(r"# (HELP|TYPE) finetuned_\w+ .+", row), row
        if found:
            named.add("finetuned_" + found[1])
    with open(os.path.join(ROOT, "docs/METRICS.md")) as f:
        known = set(re.findall("`(finetuned_[a-z_]+)`", f.read()))
    assert named <= known and set(re.findall("^# TYPE (\\w+)", text, flags=re.M)) == known
    return named


@limit(180)
def test_a_run_is_seen_and_steered_and_ends_as_if_nobody_had():
    """Below a path that is too long for a socket's name, by a server that began before it."""
    parent = os.path.abspath("a" * 60 + "/" + "b" * 60)
    os.makedirs(parent)
    web = Web("--runs", parent)
    assert json.loads(web.get("/api/runs"))["runs"] == []
    settings = small(60)
    run = Run(os.path.join(parent, "seen"), *settings)
    run.until(lambda: "seen" in web.get("/api/runs"), "not listed")
    state = web.until("seen", lambda s: s.get("step") and s["epochs"]
                      and all("rss_bytes" in stage for stage in s["stages"]), "no steps")
    assert [s["name"] for s in state["stages"]] == list(STAGES)
    for stage in state["stages"]:
        assert stage["pid"] == run.pid(stage["name"]) and stage["rss_bytes"] > 1 << 20 and stage["planned_bytes"], stage
    curves = [v for v in state["series"].values() if isinstance(v, list)]
    assert len({len(c) for c in curves}) == 1 and len(curves) == 12, state["series"].keys()
    assert {"finetuned_stage_resident_bytes", "finetuned_loss", "finetuned_system_used_bytes",
            "finetuned_validation_loss"} <= metrics_check(web.get("/metrics"))

    before = run.pid("loaderd")
    assert web.act(run="seen", verb="restart", stage="loaderd")[0] == 200
    run.until(lambda: run.pid("loaderd") not in (0, before), "loaderd was not restarted")
    assert web.act(run="seen", verb="stop", stage="trainerd")[0] == 200
    web.until("seen", lambda s: s["stages"][1]["pid"] == 0, "trainerd was not stopped")
    assert web.act(run="seen", verb="start", stage="trainerd")[0] == 200
    web.until("seen", lambda s: s["stages"][1]["pid"] > 0 and s["stages"][1]["restarts"] == 1, "not started again")
    assert web.act(run="seen", verb="mark", text="seen from outside")[0] == 200
    assert web.act(run="seen", verb="checkpoint")[0] == 200
    said = lambda s: [x["text"] for x in s["sentences"]]
    state = web.until("seen", lambda s: {"seen from outside", "monitord: mark, accepted", "trainerd: checkpoint, accepted"}
                      <= set(said(s)), "no answers")
    assert state["speaks"] and "finetuned_loss{" in web.get("/metrics")
    os.kill(run.pid("monitord"), signal.SIGSTOP)
    state = web.until("seen", lambda s: not s["speaks"], "its silence was not seen", 30)
    assert state["measured_s"] < state["now_s"] - 5
    assert not re.findall("^finetuned_(?:loss|stage_resident_bytes){", web.get("/metrics"), flags=re.M)
    os.kill(run.pid("monitord"), signal.SIGCONT)
    refused = web.act(run="seen", verb="mark", text="")
    assert refused[0] == 400 and refused[2].count("\n") == 1, refused
    assert "info" in web.get("/api/log", run="seen", stage="trainerd")

    report = run.finish()
    assert report["weights_sha256"] == undisturbed(*settings)["weights_sha256"] and report["reproducible"] is True
    assert [m["text"] for m in report["marks"]] == ["seen from outside"]
    state = web.until("seen", lambda s: not s["live"], "still live")
    assert state["code"] == 0 and state["sentence"] and len(state["epochs"]) == 62, state["epochs"]
    assert any(state["series"]["loss"]) and "report/report.md" in state["files"]
    assert web.get("/api/file", run="seen", name="report/report.md").startswith("# Run ")
    assert web.act(run="seen", verb="end")[0] == 409
    web.end()


@limit(120)
def test_a_run_that_is_stopped_from_the_page_goes_on_later():
    settings = small(20)
    os.mkdir("runs")
    run = Run("runs/stopped", *settings, "--detach")
    assert run.wait(60) == 0, run.output()
    web = Web("--run", "runs/stopped")
    web.until("stopped", lambda s: s["live"] and s["epochs"], "no epoch")
    assert web.act(run="stopped", verb="end")[0] == 200
    state = web.until("stopped", lambda s: not s["live"], "not stopped")
    assert state["code"] is None
    again = Run("runs/stopped", *settings)
    report = again.finish()
    assert report["weights_sha256"] == undisturbed(*settings)["weights_sha256"]
    web.until("stopped", lambda s: s["code"] == 0, "not seen to end")
    web.end()
