"""predict.sh: what it says of the rows is what the run's own evaluation said, to the last bit, in the order of the file;
of rows without targets, of other groups and names, of permuted tasks; and bad files end as one sentence."""
import csv
import os
import signal
import subprocess
import time

from harness import limit, skip
from predict_run import command, f1_macro, network, predict, refused, results, small
from small_run import CLASSES, FEATURES, ROOT, ROWS, trained

try:
    import h5py
    import numpy as np
    import safetensors_file
except ImportError:
    h5py = None

PERMUTED = "tasks.B.permute_features=7"


@limit(180)
def test_it_says_what_the_evaluation_said_in_the_order_of_the_file():
    run, features, targets = small(settings=(PERMUTED, "tasks.A.epochs=3"))
    by_f1, _, _ = small(directory="by_f1", settings=("tasks.A.epochs=3", "training.metric=f1_macro"))
    said = results(run, "task-B.h5")
    predict(run, "--task", "A")
    with h5py.File("out.h5") as f:
        outputs, probabilities, classes = f["outputs"][:], f["probabilities"][:], f["classes"][:]
        assert (f.attrs["accuracy"], f.attrs["loss"]) == said["A", "A"]
        score = f.attrs["f1_macro"]
    expected = network(run, "task-A.h5", features * 0.01)
    assert outputs.shape == (ROWS, CLASSES) and np.abs(outputs - expected).max() < 1e-5
    assert np.array_equal(classes, outputs.argmax(1)) and classes.dtype == np.uint32
    exponentials = np.exp(outputs.astype(np.float64))
    assert np.abs(probabilities - exponentials / exponentials.sum(1, keepdims=True)).max() < 1e-6
    assert abs(score - f1_macro(targets, classes)) < 1e-12
    assert results(by_f1, "task-A.h5")["A", "A"][0] == score  # the same weights, judged by it
    # other threads and slots, and CSV: the same numbers
    predict(run, "--task", "A", "--set", "training.threads=1", "--set", "loader.num_workers=0", out="out.csv")
    with open("out.csv") as f:
        lines = list(csv.reader(f))
    assert lines[0] == ["row", "class", "p_0", "p_1", "p_2", "p_3", "p_4"] and len(lines) == ROWS + 1
    assert [int(l[0]) for l in lines[1:]] == list(range(ROWS))
    assert np.array_equal(np.array([l[1] for l in lines[1:]], np.uint32), classes)
    assert np.array_equal(np.array([l[2:] for l in lines[1:]], np.float32), probabilities)
    # the weights after B on B's rows, permuted, and on A's
    for words, key in ((("--task", "B"), ("B", "B")), (("--task", "B", "--data-as", "A"), ("A", "B")),
                       (("--last", "--data-as", "A"), ("A", "B"))):
        predict(run, *words)
        with h5py.File("out.h5") as f:
            assert (f.attrs["accuracy"], f.attrs["loss"]) == said[key], key
    os.remove("out.h5")
    assert "--data-as TASK says" in refused(run, "--last")


@limit(180)
def test_rows_without_targets_other_groups_and_names():
    run, features, _ = small()
    predict(run, "--task", "A")
    with h5py.File("out.h5") as f:
        outputs = f["outputs"][:]
    with h5py.File("bare.h5", "w") as f:
        f["inputs"] = features[100:133].astype(np.float64)
    out = predict(run, "--task", "A", "--split", "", "--set", "data.features=inputs", data="bare.h5", out="bare_out.h5")
    assert "no targets" in out, out
    with h5py.File("bare_out.h5") as f:
        assert np.abs(f["outputs"][:] - outputs[100:133]).max() < 1e-6  # slices of other rows: other last bits
        assert "loss" not in f.attrs and f.attrs["model"].startswith(b"inputs=60")
    with h5py.File("bare.h5", "a") as f:
        f["wrong"] = np.zeros((33, 2), np.float32)
    said = refused(run, "--task", "A", "--split", "", "--set", "data.features=inputs", "--set", "data.targets=wrong",
                   data="bare.h5", out="never.h5")
    assert "data.targets=none leaves them out" in said, said
    predict(run, "--task", "A", "--split", "", "--set", "data.features=inputs", "--set", "data.targets=none",
            data="bare.h5", out="bare_out.h5")


@limit(180)
def test_regressions_tell_all_metrics_of_their_loss():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    random = np.random.default_rng(2)
    targets = random.standard_normal((300, CLASSES)).astype(np.float32)
    run, features, _ = trained(features=random.integers(0, 256, (300, FEATURES)).astype(np.uint8), targets=targets,
                               settings=("model.loss=mean_squared_error", "training.metric=mae"))
    out = predict(run, "--task", "A")
    with h5py.File("out.h5") as f:
        outputs, told = f["outputs"][:].astype(np.float64), dict(f.attrs)
        assert set(f) == {"outputs"}
    assert (told["mae"], told["loss"]) == results(run, "task-A.h5")["A", "A"]
    error = outputs - targets
    assert abs(told["loss"] - (error ** 2).mean()) < 1e-9
    assert abs(told["r2"] - (1 - (error ** 2).mean() / targets.astype(np.float64).var(0).mean())) < 1e-6
    for word in ("loss", "r2", "mae", "cosine"):
        assert word in told and word in out, (told, out)
    predict(run, "--task", "A", out="out.csv")
    with open("out.csv") as f:
        assert f.readline() == "row,y_0,y_1,y_2,y_3,y_4\n"


@limit(180)
def test_weights_of_a_file_are_as_good_as_the_runs():
    run, _, _ = small()
    weights = [os.path.join(ROOT, "pipelines/weights.sh"), "export", "--run", run.directory, "--task", "A", "--out"]
    assert subprocess.run([*weights, "w.safetensors"], capture_output=True).returncode == 0
    predict(run, "--task", "A", out="a.h5")
    predict(run, "--checkpoint", "w.safetensors", out="b.h5")
    arrays, _ = safetensors_file.read("w.safetensors")
    safetensors_file.write("bare.safetensors", arrays)  # says of no model: the run's options do
    predict(run, "--checkpoint", "bare.safetensors", out="c.h5")
    with h5py.File("a.h5") as a, h5py.File("b.h5") as b, h5py.File("c.h5") as c:
        assert np.array_equal(a["outputs"][:], b["outputs"][:]) and np.array_equal(a["outputs"][:], c["outputs"][:])
    arrays["2.bias"] = np.zeros(7, np.float32)
    safetensors_file.write("bare.safetensors", arrays)
    assert "no tensor 2.bias" in refused(run, "--checkpoint", "bare.safetensors")


@limit(180)
def test_what_cannot_be_predicted_is_one_sentence():
    run, features, _ = small()
    with h5py.File("narrow.h5", "w") as f:
        f["validation/features"] = features[:, :10]
    assert "have 10 values a row, the model of" in refused(run, "--task", "A", data="narrow.h5")
    broken = features.astype(np.float32)
    broken[321, 5] = np.nan
    with h5py.File("broken.h5", "w") as f:
        f["validation/features"] = broken
    assert "row 321 of validation" in (said := refused(run, "--task", "A", data="broken.h5")) and "feature 5" in said
    with h5py.File("empty.h5", "w") as f:
        f["validation/features"] = features[:0]
    refused(run, "--task", "A", data="empty.h5")
    with open("data.h5", "rb") as f, open("cut.h5", "wb") as g:
        g.write(f.read(20000))
    refused(run, "--task", "A", data="cut.h5")
    with open("noise.h5", "wb") as f:
        f.write(b"\x89HDF\r\n\x1a\n" + os.urandom(5000))
    refused(run, "--task", "A", data="noise.h5")
    refused(run, "--task", "A", "--split", "test")
    assert "has several tasks (A, B)" in refused(run)
    assert "has no task C; it has A, B" in refused(run, "--task", "C")
    assert "no task C" in refused(run, "--task", "A", "--data-as", "C")
    assert "accepted are names that end in" in refused(run, "--task", "A", out="out.txt")
    end = run.path("checkpoints/task-A.h5")
    os.rename(end, "end.h5")
    assert "has no end yet" in refused(run, "--task", "A")
    os.symlink(end, end)  # which cannot be read for another reason than that it is not there
    assert "cannot read" in (said := refused(run, "--task", "A")) and "symbolic links" in said, said
    os.remove(end)
    os.rename("end.h5", end)
    assert "no/such" in refused(run, "--task", "A", out="no/such/out.csv")
    assert "cannot read the data file" in refused(run, "--task", "A", data="missing.h5")
    assert "is unknown" in refused(run, "--task", "A", "--int9")
    for words, what in ((("--rnu", "run", "--out", "x.h5"), '"--rnu" is unknown'), (("--run", "run"), "--out FILE is m"),
                        (("--out", "x.h5"), "--run DIR is missing")):
        done = subprocess.run([os.path.join(ROOT, "pipelines/predict.sh"), *words], capture_output=True, text=True)
        assert done.returncode == 100 and what in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
    assert "needs a value" in refused(run, "--task", "A", "--split")
    assert "unknown" in refused(run, "--task", "A", "--set", "data.featurez=x")


def children(pid):
    found = {}
    for name in os.listdir("/proc"):
        try:
            with open("/proc/%s/stat" % name) as f:
                stat = f.read()
        except OSError:
            continue
        if name.isdigit() and int(stat.rsplit(")", 1)[1].split()[1]) == pid:
            found[stat.split("(", 1)[1].rsplit(")", 1)[0]] = int(name)
    return found


@limit(180)
def test_a_loader_that_dies_and_a_script_that_is_stopped():
    run, features, _ = small()
    many = np.tile(features, (400, 1))  # 280,000 rows
    with h5py.File("many.h5", "w") as f:
        f.create_dataset("validation/features", data=many, chunks=(4096, FEATURES), compression=1)

    def started(*words):
        process = subprocess.Popen(command(run, "--task", "A", *words, data="many.h5"), stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, text=True)
        end = time.monotonic() + 30
        while not {"loaderd", "trainerd"} <= set(children(process.pid)) or not any(".tmp" in n for n in os.listdir(".")):
            assert time.monotonic() < end and process.poll() is None, process.communicate()
            time.sleep(0.005)
        return process, children(process.pid)
    process, stages = started()
    os.kill(stages["loaderd"], signal.SIGKILL)
    with open("/proc/%d/status" % stages["trainerd"]) as f:
        begun = int(f.read().split("VmHWM:")[1].split()[0])
    peak = begun
    while process.poll() is None:
        try:
            with open("/proc/%d/status" % stages["trainerd"]) as f:
                peak = max(peak, int(f.read().split("VmHWM:")[1].split()[0]))
        except (OSError, IndexError):
            pass
        time.sleep(0.01)
    assert process.returncode == 0, process.communicate()
    print("peak: %d KiB" % peak)
    assert peak < 40 << 10, peak  # KiB; rows as float32 are 67 MB
    predict(run, "--task", "A", out="one.h5")
    with h5py.File("out.h5") as f, h5py.File("one.h5") as one:
        assert np.allclose(f["outputs"][:].reshape(400, ROWS, CLASSES)[[0, 177, 399]],
                           np.broadcast_to(one["outputs"][:], (3, ROWS, CLASSES)), atol=1e-6)
    os.remove("out.h5")
    for sign, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        process, stages = started()
        process.send_signal(sign)
        assert process.wait(20) == code
        end = time.monotonic() + 10
        while any(os.path.exists("/proc/%d/cwd" % pid) for pid in stages.values()):
            assert time.monotonic() < end, stages
            time.sleep(0.01)
        assert not os.path.exists("out.h5")
        if sign != signal.SIGKILL:
            assert not [n for n in os.listdir(".") if ".tmp" in n]
        for name in [n for n in os.listdir(".") if ".tmp" in n]:
            os.remove(name)


@limit(180)
def test_graphs_with_and_without_targets():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    from test_graphs import trained as graphs_trained
    run, _ = graphs_trained("run")
    said = results(run, "task-B.h5")
    for words, key in ((("--task", "A"), ("A", "A")), (("--task", "B"), ("B", "B")),
                       (("--task", "B", "--data-as", "A"), ("A", "B"))):
        predict(run, *words, data="graphs.h5")
        with h5py.File("out.h5") as f:
            assert (f.attrs["loss"],) == said[key][1:], key
    predict(run, "--task", "A", data="graphs.h5", out="a.h5")
    with h5py.File("graphs.h5") as f, h5py.File("bare.h5", "w") as g:
        f.copy("validation", g)
        del g["validation/targets"]
    predict(run, "--task", "A", data="bare.h5", out="b.h5")
    out = predict(run, "--task", "A", "--int8", data="graphs.h5", out="c.h5")
    assert "in 8 bits" in out, out
    with h5py.File("a.h5") as a, h5py.File("b.h5") as b, h5py.File("c.h5") as c:
        assert np.array_equal(a["outputs"][:], b["outputs"][:])
        apart = np.abs(a["outputs"][:] - c["outputs"][:])
        assert 0 < apart.max() < 0.05 * np.abs(a["outputs"][:]).max(), apart.max()
        assert abs(c.attrs["loss"] / c.attrs["float32_loss"] - 1) < 0.02, dict(c.attrs)
    dense, _, _ = trained("dense")
    assert "the model of" in refused(dense, "--task", "A", data="graphs.h5", out="x.h5")


@limit(180)
def test_tokens_have_a_class_for_each_step():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    from test_tokens import TOKENS, WINDOW, tokens_write, trained as tokens_trained
    text = tokens_write()
    run, _ = tokens_trained("run")
    predict(run, "--task", "A", data="tokens.h5")
    predict(run, "--task", "A", "--int8", data="tokens.h5", out="out.csv")
    with h5py.File("out.h5") as f, h5py.File(run.path("checkpoints/task-A.h5")) as c:
        outputs, probabilities, classes = f["outputs"][:], f["probabilities"][:], f["classes"][:]
        told, said = dict(f.attrs), float(bytes(c["results"][:]).decode().split("\t")[4])
    assert told["loss"] == said
    assert outputs.shape[1:] == probabilities.shape[1:] == (WINDOW, TOKENS)
    assert np.array_equal(classes, outputs.argmax(2))
    exponentials = np.exp(outputs.astype(np.float64))
    probabilities = exponentials / exponentials.sum(2, keepdims=True)
    # windows of all tokens, one after the other; the targets are the tokens one further
    starts = range(0, len(text) - WINDOW, WINDOW)
    assert len(starts) == len(outputs)
    targets = np.array([text[at + 1:at + 1 + WINDOW] for at in starts]).astype(np.int64)
    loss = -np.log(np.take_along_axis(probabilities, targets[:, :, None], 2)).mean()
    assert abs(loss - told["loss"]) < 1e-5 * loss
    assert (classes == targets).mean() == told["accuracy"] > 0.8, told
    assert abs(told["f1_macro"] - f1_macro(targets.ravel(), classes.ravel())) < 1e-12
    with open("out.csv") as f:
        lines = list(csv.reader(f))
    assert lines[0][:4] == ["row", "step", "class", "p_0"] and len(lines) == 1 + targets.size
    assert [l[:2] for l in lines[WINDOW:WINDOW + 2]] == [["0", str(WINDOW - 1)], ["1", "0"]]
    assert np.mean([int(l[2]) == k for l, k in zip(lines[1:], classes.ravel())]) > 0.98
