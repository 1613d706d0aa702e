"""Rows that go on from batch to batch (data.stateful) under an LSTM: evaluation and predict.sh say what NumPy says of
streams whose state goes on, but for rows that begin, and runs that were killed, or cut into other micro-batches, end with the same weights."""
import re

from harness import limit, skip
from small_run import CLASSES, ROWS, SmallRun, data_read, data_write
from test_layouts import checked
from test_loop import end, lineage, run_interrupted, run_whole
from test_predict import predict, results

try:
    import h5py
    import numpy as np
except ImportError:
    h5py = None

STEPS, HIDDEN, BATCH, ROUNDS = 6, 64, 32, 2
LAYERS = ("sequence, steps: %d" % STEPS, "lstm, out: %d, layers: 2" % HIDDEN, "pool, kind: last", "linear, out: %d" % CLASSES)
SETTINGS = ("data.shuffle=false", "data.stateful=true", "training.slice_rows=16", "training.learning_rate=0.01",
            "tasks.A.epochs=2", "tasks.B.epochs=1")


def micro(rows):
    return "training.batch_size=%d" % rows, "training.gradient_accumulation_steps=%d" % (BATCH * ROUNDS // rows)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm(weights, x, state):
    """Outputs for x [rows, steps, values] and the state behind them, all in float64; state: of each layer h and c."""
    after = []
    for layer, (h, c) in enumerate(state):
        w_ih, w_hh, b_ih, b_hh = (weights["1.%s_l%d" % (name, layer)] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        outputs = []
        for t in range(x.shape[1]):
            i, f, g, o = np.split(x[:, t] @ w_ih.T + b_ih + h @ w_hh.T + b_hh, 4, axis=1)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            h = sigmoid(o) * np.tanh(c)
            outputs.append(h)
        x = np.stack(outputs, 1)
        after.append((h, c))
    return x, after


def of_features(weights, rows, state):
    x, after = lstm(weights, rows.reshape(len(rows), STEPS, -1) * 0.01, state)
    return x[:, -1] @ weights["3.weight"].T + weights["3.bias"], after


def of_tokens(weights, rows, state):
    x, after = lstm(weights, weights["0.weight"][rows], state)
    return x @ weights["2.weight"].T + weights["2.bias"], after


def begins_write(path):
    """One row of 20 begins: an array beside the rows of both splits."""
    begins = (np.random.default_rng(6).integers(0, 20, ROWS) == 0).astype(np.uint8)
    with h5py.File(path, "a") as f:
        for split in ("train", "validation"):
            f.create_dataset(split + "/begins", data=begins, chunks=(100,), compression=4)
        f.attrs["fingerprint"] = "12ab"  # as prepare writes one: what runs and fisherd see is of begins too
    return begins


def streams_run(run, features, targets, begins, count, network=of_features):
    """Outputs of all rows in `count` streams, of which the first have a row more where they must, and their mean loss."""
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        assert "carried" not in f  # the next epoch begins at 0
        weights = {n: d[:].astype(np.float64) for n, d in f["parameters"].items()}
    long, longer = divmod(len(features), count)
    first = np.arange(count) * long + np.minimum(np.arange(count), longer)
    state = [(np.zeros((count, HIDDEN)), np.zeros((count, HIDDEN)))] * 2
    z = np.zeros((*targets.shape, CLASSES))
    for t in range(long + (longer > 0)):
        rows = (first if t < long else first[:longer]) + t
        goes_on = 1 - begins[rows][:, None]
        state = [(h[:len(rows)] * goes_on, c[:len(rows)] * goes_on) for h, c in state]
        z[rows], state = network(weights, features[rows], state)
    likely = z - np.log(np.exp(z).sum(-1, keepdims=True))
    return z, -np.take_along_axis(likely, targets[..., None].astype(int), -1).mean()


@limit(120)
def test_states_go_on():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    data_write("data.h5")
    begins = begins_write("data.h5")
    whole = run_whole("whole", *SETTINGS, *micro(BATCH), layers=LAYERS)
    features, targets = data_read("data.h5")
    said = results(whole, "task-A.h5")["A", "A"]  # the validation rows are the training rows
    _, loss = streams_run(whole, features, targets, begins, BATCH)
    assert abs(said[1] - loss) < 1e-5, (said, loss)
    one, loss = streams_run(whole, features, targets, begins, 1)
    for words in ((), ("--set", "order.span_rows=64", "--set", "training.batch_size=3")):  # sequences go over blocks
        predict(whole, "--task", "A", *words)
        with h5py.File("out.h5") as f:
            assert f["outputs"].shape == (ROWS, CLASSES)
            assert np.abs(f["outputs"][:] - one).max() < 1e-5 and abs(f.attrs["loss"] - loss) < 1e-5
    predict(whole, "--task", "A", "--int8")
    with h5py.File("out.h5") as f:
        assert 1e-5 < np.abs(f["outputs"][:] - one).max() < 0.05 * np.abs(one).max()

    for commit in (5, 3, 2):  # the fewer commits until a death, the more resumes; some must be inside an epoch
        run, starts = run_interrupted("interrupted-%d" % commit, *SETTINGS, *micro(BATCH), "training.checkpoint_every_s=0.01",
                                      commit=commit, layers=LAYERS)
        assert (end(run, "A"), end(run, "B"), lineage(run)) == (end(whole, "A"), end(whole, "B"), lineage(whole))
        resumed = {int(n) for n in re.findall(r"step=(\d+) .*going on from this checkpoint", run.log("trainerd"))}
        if any(n % (ROWS // (BATCH * ROUNDS)) for n in resumed):
            break
    else:
        raise AssertionError((starts, resumed))

    run = SmallRun("short", "data.h5", ROWS, (*SETTINGS, *micro(64), "training.threads=1"), LAYERS)
    with run:
        run.start("loaderd", "fisherd")
        run.start("trainerd", environment={"FINETUNED_FAIL": "memory:5:ENOMEM:once"})
        assert run.wait("trainerd") == 0, run.log("trainerd")[-2000:]
    assert "micro-batches of 32 rows instead of 64: memory is short" in run.log("trainerd")
    assert [end(run, t)[0] for t in "AB"] == [end(whole, t)[0] for t in "AB"]  # evaluated in other streams


def text_write(path, window, tokens=4003):
    """Both splits are one text of documents, of which about half begin with a row. The rows, and which begin."""
    random = np.random.default_rng(8)
    text = (np.cumsum(random.choice([1, 2], tokens, p=[0.9, 0.1])) % CLASSES).astype(np.uint8)
    cuts = np.concatenate([random.integers(1, tokens // window, 30) * window, random.integers(1, tokens, 30)])
    documents = np.unique(np.concatenate([[0, tokens], cuts]))
    with h5py.File(path, "w") as f:
        for split in ("train", "validation"):
            f.create_dataset(split + "/tokens", data=text, chunks=(512,), compression=4)
            f[split + "/doc_ptr"] = np.repeat(documents, 2)[1:-1]  # every other one is empty
    first = np.arange((tokens - 1) // window) * window
    return text[first[:, None] + np.arange(window + 1)], np.isin(first, documents).astype(int)


@limit(60)
def test_states_of_tokens_go_on():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    rows, begins = text_write("data.h5", 16)
    assert 20 < begins.sum() < 32
    layers = "embedding, count: %d, out: 6" % CLASSES, LAYERS[1], LAYERS[3]
    settings = (*SETTINGS, "data.window=16", "data.scale=1", *micro(BATCH), "training.metric=loss")
    whole, _ = run_interrupted("whole", *settings, commit=1000, layers=layers)  # it has fewer
    said = results(whole, "task-A.h5")["A", "A"][1]
    _, loss = streams_run(whole, rows[:, :-1], rows[:, 1:], begins, BATCH, of_tokens)
    _, other = streams_run(whole, rows[:, :-1], rows[:, 1:], 0 * begins, BATCH, of_tokens)
    assert abs(said - loss) < 1e-5 < abs(other - loss), (said, loss, other)
    run, starts = run_interrupted("interrupted", *settings, "training.checkpoint_every_s=0.01", commit=5, layers=layers)
    assert starts > 1 and (end(run, "A"), end(run, "B"), lineage(run)) == (end(whole, "A"), end(whole, "B"), lineage(whole))
    code, text = checked("whole.yaml", *settings, "data.file=data.h5")
    assert code == 0 and text.count("%d of %d rows begin" % (begins.sum(), len(rows))) == 2, text


@limit(60)
def test_what_cannot_go_on():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    both = LAYERS[0], "lstm, out: 7, bidirectional: true", *LAYERS[2:]
    data_write("data.h5", validation_rows=100)
    for number, (layers, batch, words) in enumerate((
            (both, 32, "layer 1 (lstm) has bidirectional=true and cannot carry its state"),
            (LAYERS, 1024, "the %d rows of train do not fill 1024 streams; lower training.batch_size" % ROWS))):
        run = SmallRun("refused-%d" % number, "data.h5", ROWS, (*SETTINGS, "training.batch_size=%d" % batch), layers)
        with run:
            run.start("loaderd", "trainerd")
            assert run.wait("trainerd") == 100 and words in run.log("trainerd"), run.log("trainerd")[-1000:]
