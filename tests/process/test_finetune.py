"""finetune.sh as a user meets it: a whole run, its figures, its memory, stopping, resuming, detaching."""
import os
import re
import signal
import subprocess
import time

import h5py
import numpy

from harness import limit, skip
from runs import FASHION, ROOT, STAGES, Run, plan_check, small, undisturbed


def pss_bytes(pids):
    total = 0
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid) as f:
                total += sum(int(line.split()[1]) for line in f if line.startswith("Pss:"))
        except OSError:
            pass  # it ended meanwhile
    return total * 1024


@limit(180)
def test_run_learns_and_remembers():
    run = Run("fashion")
    peak = 0
    while run.process.poll() is None:
        processes = run.processes()
        if set(processes.values()) == set(STAGES):
            peak = max(peak, pss_bytes(processes))
        time.sleep(0.25)
    report = run.finish()
    undisturbed(report=report)
    tasks = {t["name"]: t for t in report["tasks"]}
    print("PSS of all: %.1f MiB" % (peak / 2 ** 20), tasks)
    assert set(tasks) == {"A", "B"}
    a, b = tasks["A"], tasks["B"]
    assert a["metric"] == b["metric"] == "accuracy"
    assert a["after_own_training"] - a["final"] <= 0.05, a
    assert a["after_own_training"] - a["final_without_ewc"] >= 0.15, a
    assert b["final_without_ewc"] - b["final"] <= 0.025, b
    assert a["after_own_training"] > 0.84, a
    assert 0 < peak < 200 * 2 ** 20, peak
    assert report["name"] == "fashion" and report["device"] == "cpu" and report["seed"] == 1
    assert report["steps"] == 3 * 469 + 2 * 469 + 2 * 469
    assert report["samples_per_second"] > 1000 and report["wall_seconds"] > 0
    assert 0 <= report["data_wait_share"] < 0.5, report["data_wait_share"]
    assert set(report["restarts"]) == set(STAGES) and not any(report["restarts"].values())
    assert report["memory"]["arena_bytes"] > 0
    plan_check(report)
    for stage, planned in report["memory"]["plan"].items():
        rows = [row for row in report["memory"]["plan_rows"] if row["stage"] == stage]
        assert planned <= sum(row["bytes"] for row in rows) and all(row["what"] for row in rows), report["memory"]
    assert "A" in open(run.path("report/report.md")).read()
    assert "report" in run.output()
    check_weights(run, report)
    resumed = Run("fashion")
    assert resumed.finish(30)["weights_sha256"] == report["weights_sha256"]


def check_weights(run, report):
    """h5py reads the checkpoint; its tensors have the shapes and the digest that the report names."""
    with h5py.File(run.path("checkpoints/task-B.h5"), "r") as f:
        parameters = f["parameters"]
        assert sorted(parameters) == ["0.bias", "0.weight", "2.bias", "2.weight", "4.bias", "4.weight"]
        assert parameters["0.weight"].shape == (256, 784) and parameters["0.weight"].dtype == numpy.float32
        assert f["moments/m/0.weight"].shape == (256, 784)
        assert f.attrs["parameters_sha256"].decode() == report["weights_sha256"]


@limit(120)
def test_two_runs_are_equal_and_threads_do_not_matter():
    one = undisturbed(*small())
    two = Run("two", *small(), "--set", "training.threads=1", "--set", "loader.num_workers=2",
              "--set", "arena.slots=5").finish()
    other = Run("other", *small(), "--set", "seed=2").finish()
    assert one["weights_sha256"] == two["weights_sha256"] != other["weights_sha256"]


@limit(120)
def test_a_run_that_does_not_fit_takes_smaller_micro_batches():
    large = (*small(), "--set", "training.batch_size=8192", "--set", "loader.use_chunk_loader=false")
    whole = Run("whole", *large).finish()
    out = subprocess.run([os.path.join(ROOT, "pipelines/finetune.sh"), *FASHION, "--plan", "--run",
                          os.path.abspath("planned"), *large], capture_output=True, text=True, timeout=60)
    needs = int(re.search(r"^(\d+) of \d+ MiB", out.stdout, re.M).group(1))
    limited = Run("limited", *large, "--set", "memory.host_limit_mb=%d" % (needs - 14))
    report = limited.finish()
    assert report["weights_sha256"] == whole["weights_sha256"]
    plan_check(report)
    assert whole["memory"]["peak"]["trainerd"] - report["memory"]["peak"]["trainerd"] > 10 << 20, report["memory"]
    with open(limited.path("logs/trainerd/current")) as f:
        assert "micro-batches are smaller than asked for" in f.read()


@limit(120)
def test_interrupt_says_how_to_go_on_and_resumes():
    settings = small(2, 6)  # the first checkpoint is that of task A's end
    run = Run("stopped", *settings)
    run.until(lambda: os.path.isdir(run.path("checkpoints")) and os.listdir(run.path("checkpoints")),
              "no checkpoint")
    os.kill(run.process.pid, signal.SIGINT)
    code = run.wait(30)
    assert code == 130, code
    assert "to go on: " in run.output() and "--run " in run.output().split("to go on: ")[1], run.output()
    assert not run.processes(), run.processes()
    report = Run("stopped", *settings).finish()
    assert report["weights_sha256"] == undisturbed(*settings)["weights_sha256"]
    assert not any(report["restarts"].values()), report["restarts"]


@limit(120)
def test_closed_terminal_and_detach_leave_the_run_alive():
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup a shell could not hear it
    for name, arguments, sign in (("hup", (), signal.SIGHUP), ("detached", ("--detach",), None)):
        run = Run(name, *small(40), *arguments)  # goes on when the terminal is gone
        if sign:
            run.until(lambda: run.pid("trainerd"), "no trainerd")
            os.kill(run.process.pid, sign)
        run.process.wait(60)
        end = time.monotonic() + 10
        while not run.pid("trainerd") and time.monotonic() < end:  # --detach returns before they are up
            time.sleep(0.02)
        assert run.pid("trainerd"), "nothing runs after " + name
        attached = subprocess.run([os.path.join(ROOT, "pipelines/attach.sh"), "--run", run.directory],
                                  capture_output=True, text=True, timeout=60)
        assert attached.returncode == 0, attached.stdout + attached.stderr
        assert run.report()["weights_sha256"] in attached.stdout + open(run.path("report/report.md")).read()
        end = time.monotonic() + 10
        while run.processes() and time.monotonic() < end:
            time.sleep(0.05)
        assert not run.processes()


@limit(120)
def test_a_run_in_use_is_refused_by_name():
    run = Run("used", *small(1000), "--set", "training.threads=1")  # longer than the lock is waited for
    run.until(lambda: run.pid("trainerd"), "no trainerd")
    other = subprocess.run([os.path.join(ROOT, "pipelines/finetune.sh"), *FASHION, "--run", run.directory],
                           capture_output=True, text=True, timeout=30)
    assert other.returncode == 100, (other.returncode, other.stdout, other.stderr)
    assert str(run.process.pid) in other.stderr + other.stdout
    by_hand = subprocess.run([os.path.join(ROOT, "build/release/bin/loaderd"), "--run", run.directory],
                             capture_output=True, text=True, timeout=30)
    assert by_hand.returncode == 100 and str(run.pid("loaderd")) in by_hand.stderr, by_hand.stderr
    os.kill(run.process.pid, signal.SIGTERM)
    assert run.wait(30) == 143


@limit(120)
def test_tree_of_a_dead_finetune_is_stopped_before_resuming():
    run = Run("orphan", *small(8))
    run.until(lambda: run.pid("trainerd"), "no trainerd")
    run.process.kill()
    run.process.wait()
    assert run.processes()
    report = Run("orphan", *small(8)).finish()
    assert report["weights_sha256"] == undisturbed(*small(8))["weights_sha256"]


@limit(120)
def test_restart_sh_restarts_one_stage():
    run = Run("restarted", *small(8))
    run.until(lambda: run.pid("loaderd") and run.pid("trainerd"), "not started")
    before = {stage: run.pid(stage) for stage in ("loaderd", "trainerd")}
    out = subprocess.run([os.path.join(ROOT, "pipelines/restart.sh"), "loaderd", "--run", run.directory],
                         capture_output=True, text=True, timeout=30)
    assert out.returncode == 0, out.stderr
    assert run.pid("loaderd") not in (0, before["loaderd"])
    assert run.pid("trainerd") == before["trainerd"]
    assert run.finish()["restarts"]["loaderd"] == 1


@limit(120)
def test_a_detached_run_is_there_at_once():
    """However long its supervisors take to listen, one of them longer than the others."""
    os.mkdir("bin")
    with open("bin/s6-svscan", "w") as f:
        f.write("""#!/bin/sh
sleep 1
PATH=${PATH#*:}
for services; do :; done
mv "$services/monitord" "$services/.late"
(sleep 1; mv "$services/.late" "$services/monitord"; exec s6-svscanctl -a "$services") &
exec s6-svscan "$@"
""")
    os.chmod("bin/s6-svscan", 0o755)
    run = Run("early", *small(20), "--detach", environment={"PATH": os.path.abspath("bin") + ":" + os.environ["PATH"]})
    assert run.wait(60) == 0, run.output()
    for script, words in (("restart.sh", ("monitord",)), ("attach.sh", ())):
        out = subprocess.run([os.path.join(ROOT, "pipelines", script), *words, "--run", run.directory],
                             capture_output=True, text=True, timeout=60)
        assert out.returncode == 0, (script, out)
    assert run.report()["restarts"]["monitord"] == 1


@limit(120)
def test_a_signal_to_who_shows_ends_the_showing():
    """And not the run; nobody goes on printing."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    run = Run("shown", *small(40), "--detach")
    assert run.wait(60) == 0, run.output()
    for sign, code in ((signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        shown = subprocess.Popen([os.path.join(ROOT, "pipelines/attach.sh"), "--run", run.directory], text=True,
                                 stdout=subprocess.PIPE, start_new_session=True)
        line = shown.stdout.readline()
        while "epoch" not in line:
            line = shown.stdout.readline()
            assert line
        shown.send_signal(sign)
        out, _ = shown.communicate(timeout=20)  # ends when nobody has its output open any more
        assert shown.returncode == code and "goes on detached" in out, (shown.returncode, out)
    assert run.pid("trainerd")
    subprocess.run(["s6-svscanctl", "-t", run.path("services")], check=True)


@limit(120)
def test_memory_profile_is_written_and_drawn():
    run = Run("profiled", *small(4), "--profile-memory")
    run.finish()
    files = sorted(os.listdir(run.path("logs/memory_profile")))
    assert len(files) == 2 and files[0].endswith(".json") and files[1].endswith(".png"), files
    import json
    profile = json.load(open(run.path("logs/memory_profile", files[0])))
    assert profile
    with open(run.path("logs/memory_profile", files[1]), "rb") as f:
        data = f.read()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 5000


@limit(60)
def test_every_pipeline_file_can_be_read():
    directory = os.path.join(ROOT, "pipelines")
    for name in (name for name in os.listdir(directory) if name.endswith(".yaml")):
        out = subprocess.run([os.path.join(ROOT, "build/release/bin/prepare"), "files", "--config",
                              os.path.join(directory, name)], capture_output=True, text=True, timeout=60)
        assert out.returncode == 0 and out.stdout, (name, out)


@limit(60)
def test_scripts_work_through_links():
    directory = os.path.join(ROOT, "pipelines")
    names = [name for name in os.listdir(directory) if os.access(os.path.join(directory, name), os.X_OK) and
             name.endswith(".sh")]
    assert "finetune.sh" in names
    for name in names:
        os.symlink(os.path.join(directory, name), "link-" + name)
        out = subprocess.run(["./link-" + name, "--help"], capture_output=True, text=True, timeout=60)
        assert out.returncode == 0 and out.stdout and not out.stderr, (name, out)
    again = subprocess.run(["bash", "-c", '. "$here/launch.sh" && run=/r && command_remember && echo "$command_again"',
                            "./link-finetune.sh"], capture_output=True, text=True, check=True,
                           env={**os.environ, "here": directory, "config": ""})
    assert again.stdout == os.path.join(directory, "finetune.sh") + " --run /r\n", again


@limit(60)
def test_plan_runs_nothing():
    """Options that do nothing are told here as at a launch, each once."""
    out = subprocess.run([os.path.join(ROOT, "pipelines/finetune.sh"), *FASHION, "--plan", "--run",
                          os.path.abspath("planned"), "--set", "training.momentum=0.5"],
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    assert [line for line in out.stderr.splitlines() if line.startswith("warning: ")] == [
        "warning: training.momentum is set and does nothing: training.optimizer is adamw; it counts with sgd"], out.stderr
    for word in ("trainerd", "arena", "gradient", "moments", "loaderd", "fisherd"):
        assert word in out.stdout, (word, out.stdout)
    assert "\nresident samples: all 60000 rows, which come through " in out.stdout, out.stdout
    assert not os.path.exists("planned/checkpoints")


@limit(60)
def test_plan_of_a_preset():
    """The file's batch is not multiplied by what the preset adds to its own."""
    out = subprocess.run([os.path.join(ROOT, "pipelines/finetune.sh"), *FASHION, "--plan", "--run",
                          os.path.abspath("planned"), "--preset", "saving"], capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    assert "batch: 128 rows a micro-batch x 1 = 128 rows an optimizer step (given, and not the 32 x 8 of preset " \
           "saving)\n" in out.stdout, out.stdout
    assert "mega-batch: none: loader.use_chunk_loader is gpu" in out.stdout, out.stdout
    assert "\nresident samples: 5 slots of 1280 rows in the training arena; read ahead: " in out.stdout, out.stdout
    assert "mega-batch, training" not in out.stdout, out.stdout
    assert "slices:" not in out.stdout, out.stdout


@limit(60)
def test_plan_of_micro_batches_that_are_no_whole_slices():
    """That is another arithmetic, and is said; so is an average of too few epochs."""
    for rows in (48, 64):
        words = ("--set", "training.use_swa=%s" % ("true" if rows == 64 else "false"),
                 "--set", "training.batch_size=%d" % rows, "--set", "training.gradient_accumulation_steps=5")
        out = subprocess.run([os.path.join(ROOT, "pipelines/finetune.sh"), *FASHION, "--plan", "--run",
                              os.path.abspath("planned"), *words], capture_output=True, text=True, timeout=60)
        assert out.returncode == 0, out.stderr
        assert ("slices: micro-batches of 48 rows are not whole slices of 64 (training.slice_rows): another arithmetic "
                "than that of 240 rows in micro-batches that are\n" in out.stdout) == (rows == 48), out.stdout
        assert ("slices:" in out.stdout) == (rows == 48), out.stdout
        assert ("\naveraging: of the " in out.stdout) == (rows == 64), out.stdout


@limit(60)
def test_a_directory_that_is_no_run_is_left_alone():
    os.makedirs("mine/services")
    with open("mine/services/precious", "w") as f:
        f.write("mine")
    run = Run("mine")
    assert run.wait(60) == 100, run.output()
    assert "holds other files" in run.output(), run.output()
    assert os.listdir("mine") == ["services"] and os.listdir("mine/services") == ["precious"]


@limit(60)
def test_a_permanent_failure_is_said_once():
    run = Run("refused", "--device", "cuda")
    code = run.wait(60)
    if code == 0:
        skip("this machine computes on cuda")
    assert code == 100 and run.output().count("cannot compute on device cuda") == 1, run.output()
