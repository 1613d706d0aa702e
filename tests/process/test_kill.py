"""kill -9 of any stage at any moment: the run ends by itself with the weights of an undisturbed one."""
import os
import random
import signal
import time

from harness import limit
from runs import Run, STAGES, small, undisturbed

OFTEN = ("--set", "training.checkpoint_every_s=0.3")


def disturbed(name, seed, kills):
    """Kill each stage up to `kills` times at seeded moments, each time waiting until it is back. A kill counts when
    the stage came back: the last one may hit a run that has just ended."""
    rng = random.Random(seed)
    run = Run(name, *OFTEN)
    plan = [stage for stage in STAGES for _ in range(kills)]
    rng.shuffle(plan)
    done = {stage: 0 for stage in STAGES}
    run.until(lambda: all(run.pid(s) for s in STAGES), "not all stages started")
    for stage in plan:
        time.sleep(rng.uniform(0.02, 0.3))
        pid = run.pid(stage)
        if not pid or os.path.exists(run.path("verdict")):
            break
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            break
        run.until(lambda: run.pid(stage) not in (0, pid) or os.path.exists(run.path("verdict")) or
                  run.process.poll() is not None, stage + " did not come back")
        done[stage] += run.pid(stage) not in (0, pid)
    report = run.finish()
    killed = [death["stage"] for death in report["deaths"] if "signal 9" in death["sentence"]]
    assert all(killed.count(stage) >= done[stage] for stage in STAGES), (done, report["deaths"])
    assert not killed or "was ended by signal 9" in run.output() and "restarted (process" in run.output(), run.output()
    return report, done


@limit(300)
def test_killed_runs_end_with_the_same_weights():
    """Seeded runs of pipelines/fashion.yaml until each stage was killed at least three times in all; every one must end
    with the weights of an undisturbed one, which writes fewer checkpoints."""
    seed, total = int(os.environ.get("TEST_SEED", "1")), {stage: 0 for stage in STAGES}
    for attempt in range(12):
        report, done = disturbed("killed-%d" % attempt, seed + attempt, 3)
        print("seed", seed + attempt, "kills", done, "restarts", report["restarts"])
        whole = undisturbed()  # by now test_run_learns_and_remembers has one
        assert report["weights_sha256"] == whole["weights_sha256"]
        assert report["reproducible"] is True
        assert report["tasks"] == whole["tasks"] and report["epochs"] == whole["epochs"]
        for stage in STAGES:
            assert report["restarts"][stage] >= done[stage], (stage, done, report["restarts"])
            total[stage] += done[stage]
        if min(total.values()) >= 3:
            return
    raise AssertionError("too few kills hit a live stage: %s" % total)


@limit(120)
def test_reader_killed():
    """The helper that touches the file dies alone: loaderd makes a new one, the run does not notice."""
    run = Run("reader", *small(8))
    run.await_path("journals/trainerd")
    killed = 0
    for _ in range(40):
        if killed == 4 or run.process.poll() is not None:
            break
        time.sleep(0.05)
        main = run.pid("loaderd")
        for pid, stage in run.processes().items():
            if stage == "loaderd" and main and pid != main:
                try:
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
    report = run.finish()
    assert killed >= 1, "no reader was found to kill"
    assert undisturbed(*small(8))["weights_sha256"] == report["weights_sha256"]
