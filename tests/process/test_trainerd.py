"""trainerd at the places where a death, a failing disk or somebody's hand could lose a run: a small one is brought back
to such a place, goes on, and must end as the undisturbed one did."""
import os
import shutil

from harness import limit, skip
from small_run import ROWS, SmallRun, trained

try:
    import h5py
except ImportError:
    h5py = None


def ends(run):
    """What a run leaves: digests of the weights by file name, and the results."""
    found = {}
    for name in sorted(os.listdir(run.path("checkpoints"))):
        with h5py.File(run.path("checkpoints", name)) as f:
            found[name] = (f.attrs["parameters_sha256"], bytes(f["results"][:]))
    return found


def finished(directory="run", **arguments):
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    run, _, _ = trained(directory, **arguments)
    return run, ends(run)


def step_back(run):
    """As after a kill before task B's end: its last checkpoint and the names of that are gone."""
    for name in os.listdir(run.path("checkpoints")):
        if name.endswith("-02.h5") or name in ("task-B.h5", "best-B.h5"):
            os.remove(run.path("checkpoints", name))


def go_on(run, code=0):
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == code, run.log("trainerd")[-2000:]
    return run.log("trainerd")


def test_names_lost_between_commit_and_link_come_back():
    run, whole = finished()
    for names in (("task-B.h5",), ("best-B.h5",), ("task-B.h5", "best-B.h5")):
        for name in names:
            os.remove(run.path("checkpoints", name))
        with run:
            run.start("trainerd")  # all is done: it needs nobody else
            assert run.wait("trainerd") == 0, run.log("trainerd")
        assert ends(run) == whole


def damage(run, *names):
    for name in names:
        os.truncate(run.path("checkpoints", name), 1000)


def test_a_run_whose_step_files_are_damaged_goes_on_from_another_name():
    """Of task B all is damaged: the end of task A is where it goes on, and ends the same."""
    run, whole = finished(settings=("tasks.A.epochs=2", "tasks.B.epochs=4"))
    for name in os.listdir(run.path("checkpoints")):
        if name.startswith("step-"):  # another file than that of task-A.h5
            with open(run.path("checkpoints", name), "rb") as f:
                content = f.read()
            os.remove(run.path("checkpoints", name))
            with open(run.path("checkpoints", name), "wb") as f:
                f.write(content[:1000])
    damage(run, "task-B.h5", "best-B.h5")
    log = go_on(run)
    assert "path=checkpoints/task-A.h5 step=22 no later checkpoint can be read" in log, log
    assert "path=checkpoints/step-0000000022-01.h5 step=22 going on" in log, log
    assert ends(run) == whole


def test_a_run_without_a_good_checkpoint_does_not_begin_again():
    run, _ = finished(settings=("tasks.A.epochs=3",))
    names = os.listdir(run.path("checkpoints"))
    damage(run, *names)
    log = go_on(run, 100)
    assert "checkpoints in checkpoints can be read (" in log and "begin anew in another --run" in log, log[-2000:]
    for name in names:
        os.remove(run.path("checkpoints", name))
    log = go_on(run, 100)
    assert "the run made 44 steps (lineage), but of its checkpoints none is left" in log, log[-2000:]


def test_a_damaged_fisher_file_is_made_again():
    run, whole = finished()
    with open(run.path("fisher/A.h5"), "rb") as f:
        fisher = f.read()
    with h5py.File(run.path("fisher/A.h5")) as f:
        offset = f["blocks/00001/codes"].id.get_chunk_info(0).byte_offset
    step_back(run)
    with open(run.path("fisher/A.h5"), "r+b") as f:
        f.seek(offset + 10)
        f.write(bytes([fisher[offset + 10] ^ 255]))
    log = go_on(run)
    assert "asked for it again" in log, log
    with open(run.path("fisher/A.h5"), "rb") as f:
        assert f.read() == fisher
    assert ends(run)["task-B.h5"] == whole["task-B.h5"]


def test_a_theta_star_that_is_missing_another_or_damaged_is_refused():
    # two epochs: so that there is a checkpoint inside task B
    settings = ("tasks.B.epochs=2", "tasks.A.permute_features=1", "tasks.B.permute_features=2")
    run, whole = finished(settings=settings)
    other, _ = finished("other", settings=(*settings, "seed=2"))
    step_back(run)
    theta_star = run.path("checkpoints/task-A.h5")
    os.rename(theta_star, "kept.h5")
    log = go_on(run, 100)
    assert "the weights at the end of task A" in log and "No such file" in log, log
    shutil.copy(other.path("checkpoints/task-A.h5"), theta_star)
    log = go_on(run, 100)
    assert "checkpoints/task-A.h5 holds the weights" in log and "another --run" in log, log
    shutil.copy("kept.h5", theta_star)
    with h5py.File(theta_star) as f:
        offset = f["parameters/2.bias"].id.get_offset()
    with open(theta_star, "r+b") as f:
        f.seek(offset)
        f.write(b"\x01")
    log = go_on(run, 100)
    assert "checkpoints/task-A.h5 is damaged: its parameters have digest" in log, log
    os.rename("kept.h5", theta_star)
    go_on(run)
    assert ends(run)["task-B.h5"] == whole["task-B.h5"]


def test_a_whole_penalty_of_half_the_strength_is_the_same():
    ewc = "continual_learning.ewc_config."
    _, whole = finished(settings=(ewc + "lambda=2000",))
    _, other = finished("other", settings=(ewc + "lambda=1000", ewc + "half=false"))
    assert other == whole
    exact, found = finished("exact", settings=(ewc + "lambda=2000", ewc + "fisher_computation.use_compression=false"))
    assert "error=0.0000 its Fisher" in exact.log("trainerd"), exact.log("trainerd")
    assert found["task-A.h5"] == whole["task-A.h5"] and found["task-B.h5"] != whole["task-B.h5"]


@limit(180)
def test_one_fact_that_cannot_be_written_costs_no_more_than_a_restart():
    _, whole = finished()
    facts, number = 0, 3
    run = SmallRun("failing", "data.h5", ROWS)
    shutil.copytree(run.directory, "begun")  # preparing a run takes longer than this one does until it fails
    while facts < 5:
        number += 1
        with run:
            run.start("loaderd", "fisherd")
            run.start("trainerd", environment={"FINETUNED_FAIL": "write:%d:ENOSPC:once" % number})
            if run.wait("trainerd") == 0:
                break
            assert run.processes["trainerd"].returncode == 111, run.log("trainerd")
            if "to journals/trainerd" in run.log("trainerd"):
                facts += 1
                run.start("trainerd")
                assert run.wait("trainerd") == 0, (number, run.log("trainerd"))
                assert ends(run)["task-B.h5"] == whole["task-B.h5"]
        shutil.rmtree(run.directory)
        shutil.copytree("begun", run.directory)
    print("facts:", facts, "writes:", number)
    assert facts == 5
