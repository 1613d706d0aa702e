"""`make gpu-check` without a GPU: the emulated device, PyTorch on the CPU, tiny sizes, so that it works when a GPU is there. And
what must not happen: that something which hangs takes the time of the rest, and that what was not checked passes."""
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time

from harness import limit, skip
from small_run import BINARIES, ROOT

sys.path.insert(0, os.path.join(ROOT, "tests/gpu"))
try:
    import h5py  # noqa: F401
    import check
    import checks
    import gpu_check
    import kernel_times
    import peers
    import results
except ImportError:
    check = None

PEER = """import sys, time
print('{"form": "quick"}', flush=True)
%s
for line in sys.stdin:
    %s
"""


def module_needs():
    if check is None:
        skip("python3-numpy or python3-h5py is not installed")


def environment_take():
    module_needs()
    os.environ["FINETUNED_CUDA_LIBRARY"] = os.path.join(os.path.dirname(BINARIES), "lib", "libengine-cuda-emulated.so")
    return check.Check(True, os.getcwd())


def run_of(shared, *names):
    return gpu_check.Run(shared, results.Results("emulated", "commit"), names, [os.getcwd()], 0)


def sleeping():
    """Is what a step of this case has started still there?"""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/cmdline" % pid) as command, open("/proc/%s/environ" % pid) as environment:
                if "sleep\0001000" in command.read() and os.getcwd() in environment.read():
                    return True
        except OSError:
            continue
    return False


def torch_needs():
    module_needs()
    if importlib.util.find_spec("torch") is None:
        skip("PyTorch is not installed")


@limit(120)
def test_a_dry_run_checks_and_writes():
    torch_needs()
    done = subprocess.run([sys.executable, os.path.join(ROOT, "tests/gpu/gpu_check.py"), "--dry", "--out", "."], timeout=110,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0 and "0 checks failed: none" in done.stdout, done.stdout
    with open("RESULTS-emulated.json") as f:
        found = json.load(f)
    states = {name: entry["state"] for name, entry in found["checks"].items()}
    assert states.keys() == gpu_check.STEPS.keys()
    absent = {"fisher", "memory", "exhausted", *(step.name for step in gpu_check.LAST)}  # torch.func, a driver, another process
    assert all(state == "passed" for name, state in states.items() if name not in absent), states
    for name in ("dense step, f32", "lstm step, bf16", "gcn step, f32, any form of PyTorch's"):
        row = found["rows"][name]
        assert row["form"].startswith("PyTorch ") and row["peer"] > 0 and row["limit"] > 0 and row["compared"], row
        assert row["commit"] and row["date"], row
    bars = {bar for step in gpu_check.ALONE for bar in step.bars}
    told = next(line for line in done.stdout.splitlines() if "bars without a figure" in line)
    assert all((bar in found["rows"]) != (bar in told) for bar in bars), told
    with open("RESULTS-emulated.md") as f:
        assert "| dense step, bf16 |" in f.read()


@limit(30)
def test_a_step_that_hangs_takes_nothing_from_the_others():
    shared = environment_take()

    def hang(own):
        own.row("before", 1, "s")
        peers.Peer(os.path.join(own.own, "peer"), "peer", ["sleep", "1000"])
        own.output(["sh", "-c", "setsid sleep 1000 & echo said; sleep 1000"])

    def pass_by(own):
        own.rate("rate", 3)
        return "done"
    steps = [check.Step("hangs", hang, 1), check.Step("passes", pass_by, 9), check.Step("lacks", pass_by, 9, ("hangs",))]
    run = run_of(shared, *(step.name for step in steps))
    began = time.monotonic()
    run.together(steps[:2], began + 20)
    run.together(steps[2:], began + 20)
    assert time.monotonic() - began < 10
    said = {name: (entry["state"], entry["words"]) for name, entry in run.results.checks.items()}
    assert said == {"hangs": ("failed", "took over 1 s"), "passes": ("passed", "done"), "lacks": ("skipped", "it needs hangs")}, said
    with open("RESULTS-emulated.json") as f:
        assert json.load(f)["checks"].keys() == said.keys()
    assert run.results.rows["before"]["ours"] == 1 and shared.rates == {"rate": 3}
    assert not sleeping()


def peer_with(name, before, answer):
    return peers.Peer(os.path.abspath(name), name, [sys.executable, "-c", PEER % (before, answer)])


@limit(30)
def test_a_peer_that_hangs_or_ends_is_told():
    module_needs()
    peers.FORM_S = 0.5
    ready = "print('{\"torch\": \"0\"}', flush=True)"
    late = peer_with("late", "time.sleep(1000)", "pass")
    mute = peer_with("mute", ready, "time.sleep(1000)")
    dead = peer_with("dead", ready, "sys.exit('no more')")
    wrong = peer_with("wrong", ready, "print('{\"why\": \"it cannot\"}', flush=True)")
    for peer in (mute, dead, wrong):
        peer.ready_await(time.monotonic() + 20)
    try:
        late.ready_await(time.monotonic() + 0.5)
        raise AssertionError("it was ready")
    except check.Failed as e:
        assert str(e).startswith("late hung"), e
    assert all(peer.forms.keys() == {"quick"} and peer.times(1, 1) == {} for peer in (late, mute, dead, wrong))
    why = [peer.absent["quick"] for peer in (late, mute, dead, wrong)]
    assert why == ["late has ended", "mute hung: ", "dead ended: no more", "it cannot"], why
    wrong.close()
    assert all(peer.process.returncode is not None for peer in (late, mute, dead, wrong))


LATE = """import sys, time
sys.path.insert(0, %r)
import peer

def slow():
    while True:
        time.sleep(0.1)
peer.sweep_forms = lambda work: iter([("quick", lambda: (int, None, {})), ("slow", slow), ("behind", slow)])
peer.main()
"""


@limit(30)
def test_a_form_that_takes_too_long_leaves_the_others():
    torch_needs()
    late = peers.Peer(os.path.abspath("late"), "late", [sys.executable, "-c", LATE % os.path.dirname(peers.__file__), "sweep", ".", "cpu",
                                                        "f32", "1", "3"])
    late.ready_await(time.monotonic() + 20)
    assert late.times(2, 2).keys() == {"quick"} and late.absent.keys() == {"slow", "behind"}, late.absent
    assert all("no time left" in why for why in late.absent.values())
    late.close()


def test_a_steps_kernels_are_told():
    """Of 30 made-up steps, written in another order than they began: launches that follow each other, or overlap."""
    module_needs()
    at, lines = 0, []
    for _ in range(30):
        for name, takes, behind in (("_Z7forwardi", 3000, 500), ("copy", 1000, 0), ("_Z7forwardi", 2000, -1500), ("_Z6updatev", 4000, 2000)):
            at += behind
            lines.append("%d %d %s" % (at, at + takes, name))
            at += takes
    with open("times", "w") as f:
        f.write("\n".join(reversed(lines)) + "\n")
    summary = kernel_times.step_summary(kernel_times.times_read("times"), 20)
    names = kernel_times.names_plain(["_Z7forwardi", "_Z6updatev"])  # as far as there is a c++filt
    assert summary == {"step": 11, "idle": 2.5, "kernels": {names["_Z7forwardi"]: [2, 2.5], "copy": [1, 1], names["_Z6updatev"]: [1, 4]}}
    line = results.step_line("made up", summary)
    assert line.startswith("- made up: 11.0 us, of which nothing runs in 2.5; 2 x 2.5 `%s`, 1 x 4.0 `" % names["_Z7forwardi"]), line


def test_limits_leave_each_step_its_time():
    module_needs()
    alone = sum(step.limit_s for step in gpu_check.FIRST + gpu_check.ALONE)
    assert alone + gpu_check.BESIDE_S <= gpu_check.TOTAL_S, alone
    assert all(step.limit_s <= gpu_check.BESIDE_S for step in gpu_check.BESIDE)


def test_what_was_not_checked_does_not_pass():
    shared = environment_take()
    shared.own = os.getcwd()
    for words in ("0 passed, 0 failed, 10 skipped", "9 passed, 1 failed, 0 skipped", "1 passed, 0 failed, 1 skipped"):
        assert_fails(words, lambda: check.counts_read("SKIP a\n" + words, 2))
    assert check.counts_read("SKIP a_case\n2 passed, 0 failed, 1 skipped\n", 2) == "2 passed, 0 failed, 1 skipped, a_case"
    os.environ["PATH"] = os.getcwd() + ":" + os.environ["PATH"]
    for summary, wanted in (("", "it has looked at no process"), ("ERROR SUMMARY: 3 errors", "3 errors")):
        sanitizer_write(summary)
        assert_fails(wanted, lambda: checks.sanitizer(shared, "memcheck", "test_cuda_core"))
    sanitizer_write("RACECHECK SUMMARY: 0 hazards displayed")
    assert "1 processes: 0 hazards" in checks.sanitizer(shared, "racecheck", "test_cuda_core")
    run = run_of(shared, "busy", "exhausted")
    assert run.not_measured() == ["GPU utilisation, dense run"]


def assert_fails(words, do):
    try:
        do()
    except check.Failed as e:
        assert words in str(e), e
    else:
        raise AssertionError("passed: " + words)


def sanitizer_write(summary):
    """A compute-sanitizer that looks at nothing: it runs what stands behind its six words."""
    with open("compute-sanitizer", "w") as f:
        f.write("#!/bin/sh\nshift 6\necho '%s'\nexec \"$@\"\n" % summary)
    os.chmod("compute-sanitizer", 0o755)


def test_layers_that_are_not_trained_are_seen():
    """On the device, of which the CPU's run beside it knows nothing."""
    shared = environment_take()
    shared.own = os.getcwd()
    checks.cases(shared)
    checks.training(shared)

    class Frozen(check.Check):
        def ours(self, mode, case, *settings, device="cuda"):
            more = ("freeze=1", "backbone=2") if device == "cuda" and case == self.broken else ()
            return super().ours(mode, case, *settings, *more, device=device)
    for case in ("dense", "lstm", "gcn"):
        frozen = Frozen(True, os.getcwd())
        frozen.own, frozen.broken = os.path.abspath("frozen-" + case), case
        os.mkdir(frozen.own)
        assert_fails("the losses differ by more than 1e-04", lambda: checks.training(frozen))


@limit(30)
def test_a_python_without_numpy_is_one_sentence():
    with open("python", "w") as f:
        f.write("#!/bin/sh\nexit 1\n")
    os.chmod("python", 0o755)
    done = subprocess.run([os.path.join(ROOT, "tests/gpu/run_on_device.sh")], env={**os.environ, "PYTHON": os.path.abspath("python")},
                          capture_output=True, text=True)
    assert done.returncode == 100 and len(done.stderr.splitlines()) == 1 and "no numpy" in done.stderr, done


@limit(30)
def test_what_runs_ends_with_the_program():
    shared = environment_take()
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        step = check.Step("hangs", lambda own: own.output(["sleep", "1000"]), 1000)
        try:
            run_of(shared, "hangs").together([step], time.monotonic() + 1000)
        finally:
            os._exit(0)
    until = time.monotonic() + 20
    while not sleeping():
        assert time.monotonic() < until
        time.sleep(0.01)
    os.kill(pid, signal.SIGTERM)
    os.waitpid(pid, 0)
    assert not sleeping()
