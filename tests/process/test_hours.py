"""training.max_hours, and the commands at a run's end."""
import os
import re

from harness import limit
from runs import Run, small, undisturbed

COMMANDS = ("--set", 'run.on_end=echo "$FINETUNED_CODE" >>ended; test -s "$FINETUNED_REPORT"',
            "--set", 'run.on_failure=echo "$FINETUNED_CODE $FINETUNED_SENTENCE" >>failed; pwd; false')


def text(run, name):
    with open(run.path(name)) as f:
        return f.read()


@limit(180)
def test_a_run_of_several_times_its_hours_ends_as_one_without():
    launches, code = 0, 75
    while code == 75:
        launches += 1
        assert launches < 30
        # grows, so that a slow machine ends too; what may change between launches
        run = Run("hours", *small(8), *COMMANDS, "--set", "training.max_hours=%g" % (0.0001 * 2 ** launches))
        code = run.wait(60)
    print("launches:", launches)
    assert code == 0, run.output()[-2000:]
    assert run.report()["weights_sha256"] == undisturbed(*small(8))["weights_sha256"]
    assert launches >= 2 and run.output().count("is over; the same command goes on") == launches - 1
    assert re.search(r"newest checkpoint: \S+finetune\.sh .*--run ", run.output()), run.output()
    failures = text(run, "failed").splitlines()
    assert len(failures) == launches - 1 and failures[0].startswith("75 training.max_hours (0.0002) is over"), failures
    assert text(run, "ended") == "0\n"


@limit(60)
def test_the_command_of_a_run_that_fails():
    run = Run("refused", *small(), *COMMANDS, "--set", "training.loss_max=1e-3")
    assert run.wait(60) == 100, run.output()
    failed = text(run, "failed")
    assert failed.startswith("100 trainerd: step 1 of task A") and not os.path.exists(run.path("ended")), failed
    log = text(run, "logs/command").splitlines()
    assert log == [run.directory, "the command ended with code 1"], log
