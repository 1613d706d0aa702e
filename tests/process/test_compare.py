"""compare.sh: what differs between runs, what each reached, and the spread over seeds."""
import os
import signal
import statistics
import subprocess
import time

from harness import limit, skip
from runs import FASHION, small
from small_run import ROOT, SmallRun, trained

try:
    import h5py
except ImportError:
    h5py = None


def compare(*runs, code=0):
    done = subprocess.run([os.path.join(ROOT, "pipelines/compare.sh"), *runs], capture_output=True, text=True)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    if code:
        assert len(done.stderr.splitlines()) == 1, done.stderr
        return done.stderr
    return done.stdout


def tables(text):
    """First cells -> the other cells, of each table."""
    found = []
    for block in text.strip().split("\n\n"):
        rows = [[cell.strip() for cell in line.strip("|").replace("\\|", "/").split("|")]
                for line in block.splitlines() if line.startswith("|")]
        found.append({row[0]: row[1:] for row in rows if not row[0].startswith("---")})
        assert len({len(row) for row in rows}) <= 1, block
    return found


def accuracy(run):
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        return float(bytes(f["results"][:]).decode().split("\t")[3])


@limit(180)
def test_runs_side_by_side():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    runs = [trained("seed%d" % seed, settings=("seed=%d" % seed,))[0] for seed in (1, 2, 3)]
    trained("other", settings=("training.learning_rate=3e-3", "tasks.B.epochs=2"))
    options, results, figures = tables(compare("seed1", "other"))
    assert options == {"option": ["seed1", "other"], "training.learning_rate": ["0.001", "0.003"],
                       "tasks.B.epochs": ["1", "2"]}, options
    assert results["task"] == ["seed1", "other"] and "A: accuracy after own training" in results, results
    assert sum(cell.startswith("**") for cell in results["A: accuracy after own training"]) <= 1
    both = [results["%s: accuracy at the end" % task] for task in ("A", "B", "all tasks")]
    for a, b, mean in zip(*([float(cell.strip("*% ")) for cell in row] for row in both)):
        assert abs((a + b) / 2 - mean) < 0.011, both
    assert figures["steps"] == ["22", "33"] and figures["finished"] == ["yes", "yes"], figures
    assert float(figures["peaks of all stages, MiB"][0]) > 1 and figures["restarts"] == ["0", "0"]
    assert len(set(figures["weights"])) == 2
    # repeats over seeds
    options, results, _ = tables(compare("seed1", "seed2", "seed3"))
    assert options == {"option": ["seed1", "seed2", "seed3"], "seed": ["1", "2", "3"]}
    cells = results["A: accuracy after own training"]
    values = [accuracy(run) for run in runs]
    assert [c.strip("*") for c in cells[:3]] == ["%.2f %%" % (100 * v) for v in values], (cells, values)
    assert cells[3] == "%.2f %%, %.2f %%" % (100 * statistics.mean(values), 100 * statistics.stdev(values)), cells
    best = max(values)
    assert [c.startswith("**") for c in cells[:3]] == [v == best for v in values], cells
    # the same run twice, and one that has not begun
    assert "are the same" in compare("seed1", "seed1")
    SmallRun("fresh", "data.h5")
    _, results, figures = tables(compare("seed1", "fresh"))
    assert figures["finished"] == ["yes", "no"] and results["A: accuracy after own training"][1] == "-", results


@limit(60)
def test_tasks_of_other_names_are_one_sentence():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    trained("one")
    with open("one.yaml") as f:
        text = f.read()
    for name, b, order in (("two", "other", 1), ("turned", "B", -1)):
        head, tasks = text.split("tasks:\n")
        tasks = tasks.replace("name: B", "name: " + b).replace("from: A, ewc: [A]", "from: start").splitlines(keepends=True)
        SmallRun(name, "data.h5", pipeline=head + "tasks:\n" + "".join(tasks[::order]))
    out = compare("one", "two")
    sentence, rest = out.split("\n\n", 1)
    assert sentence == "Not all runs have the same tasks: B (one), other (two); the options of these are not compared."
    options, results, _ = tables(rest)
    assert options == {"option": ["one", "two"], "tasks": ["A, B", "A, other"]}, options
    assert results["A: accuracy at the end"][1] == "-" and "B: accuracy at the end" in results, results
    SmallRun("three", "data.h5", settings=("tasks.B.epochs=2",))
    assert compare("one", "three", "two").startswith("Not all runs have the same tasks: B (one, three), other (two); ")
    options, _, _ = tables(compare("three", "turned"))
    assert options == {"option": ["three", "turned"], "tasks.B.epochs": ["2", "1"], "tasks.B.from": ["A", "start"],
                       "tasks.B.ewc": ["A", "(none)"], "tasks": ["A, B", "B, A"]}, options


@limit(60)
def test_each_script_has_a_page_of_its_own():
    for script, word in (("compare.sh", "deviation"), ("predict.sh", "--data-as"), ("weights.sh", "export")):
        done = subprocess.run([os.path.join(ROOT, "pipelines", script), "--help"], capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("usage: " + script) and word in done.stdout, done
        assert "example: pipelines/" + script in done.stdout and max(map(len, done.stdout.splitlines())) <= 110


@limit(60)
def test_what_is_no_run_is_one_sentence():
    os.mkdir("empty")
    assert "1 runs are named" in compare("empty", code=100)
    assert "cannot find the run directory nowhere" in compare("empty", "nowhere", code=100)
    assert "is no run directory" in compare("empty", "empty", code=100)
    assert "accepted are 2 to 16" in compare(*["empty"] * 17, code=100)


def repeat(*arguments):
    """A start of repeat.sh with runs of a second or two."""
    return subprocess.Popen([os.path.join(ROOT, "pipelines/repeat.sh"), "--runs", "runs", *FASHION, *small(8),
                             *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            start_new_session=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


@limit(180)
def test_repeats_over_seeds_go_on_where_they_were_stopped():
    first = repeat("--seeds", "2,7")
    end = time.monotonic() + 60
    while not os.path.exists("runs/fashion-seed-2/sockets/trainer.ctl"):
        assert first.poll() is None and time.monotonic() < end, first.communicate()
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)  # to it alone; at a terminal its run hears it as well, and ignores it
    out = first.communicate(timeout=60)[0]
    assert first.returncode == 130 and "seed 7" not in out and "run: stopped" in out, out
    again = repeat("--seeds", "2,7")
    out = again.communicate(timeout=120)[0]
    assert again.returncode == 0 and "seed 7, run 2 of 2" in out, out
    with open("runs/fashion-seeds.md") as f:
        options, results, figures = tables(f.read())
    assert options["option"] == ["fashion-seed-2", "fashion-seed-7"] and options["seed"] == ["2", "7"], options
    assert figures["finished"] == ["yes", "yes"] and results["task"][-1] == "mean, deviation", results
    assert len(set(figures["weights"])) == 2
    third = repeat("--seeds", "7", "--set", "nonsense=1")
    out = third.communicate(timeout=60)[0]
    assert third.returncode == 100 and "seed-7" not in out.splitlines()[-1], out


@limit(60)
def test_repeats_refuse_what_is_of_one_run():
    for arguments, words in ((("--seeds", "17"), "1 to 16"), (("--seeds", "1,1"), "different seeds"), (("--seeds", "x"), "'x'"),
                             (("--seeds", "4294967296,1"), "4294967295"), (("--plan",), "finetune.sh takes it"),
                             (("--run", "x"), "finetune.sh takes it"), (("--set", "seed=3"), "--seeds"),
                             (("--set", "finetuning.seed=3"), "--seeds")):
        done = repeat(*arguments)
        out = done.communicate(timeout=60)[0]
        assert done.returncode == 100 and words in out and out.count("\n") == 1, (arguments, out)
