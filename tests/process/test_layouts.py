"""Timeframes, graphs and tokens, written with h5py: through loaderd to a consumer, and what trainerd says of them."""
import json
import os
import re
import subprocess
import sys

import h5py
import numpy

from harness import limit
from runs import ROOT
from small_run import BINARIES, ROWS, SmallRun

sys.path.append(os.path.join(ROOT, "tests/bench"))
from peer_loader import field_hash, key  # noqa: E402

KEYS = numpy.arange(512, dtype=numpy.uint64)


def digest(rows):
    """proto/rowhash.h's digest; rows: a list of rows, each a list of fields: an array, or of a ragged field
    (array,)."""
    with numpy.errstate(over="ignore"):
        keys = key(numpy.uint64(0x726f7768617368), KEYS)
        total = numpy.zeros(1, numpy.uint64)
        for row in rows:
            h = numpy.zeros(1, numpy.uint64)
            for field in row:
                if isinstance(field, tuple):
                    field = field[0]
                    h = key(h, numpy.full(1, len(field), numpy.uint64))
                if field.nbytes:
                    h = field_hash(h, field.reshape(1, -1), keys)
            total += h
        return "%016x" % int(total[0])


def probe(path, *arguments):
    """What tests/bench/loader_probe.c, a consumer, gets of the split train: it fails if a batch has more items than
    the loader said."""
    run = "run-%d" % len(os.listdir("."))
    with SmallRun(run, path) as small:
        small.start("loaderd")
        small.until(lambda: os.path.exists(small.path("sockets/loader.door")), "no loaderd")
        out = subprocess.run([os.path.join(BINARIES, "loader_probe"), small.directory, os.path.abspath(path), "train",
                              *arguments], capture_output=True, text=True, timeout=60)
        assert out.returncode == 0, out.stderr + small.log("loaderd")
        return json.loads(out.stdout)


def graphs_write(path, graphs=900, seed=5, nodes_min=0):
    """Random graphs in both splits, as prepare would store them; returns the rows of `train` for digest()."""
    random = numpy.random.default_rng(seed)
    nodes, edges = random.integers(nodes_min, 30, graphs), random.integers(0, 60, graphs)
    edges[nodes == 0] = 0
    node_ptr, edge_ptr = (numpy.concatenate([[0], numpy.cumsum(n)]) for n in (nodes, edges))
    x = random.normal(size=(node_ptr[-1], 7)).astype("f4")
    ends = numpy.stack([numpy.concatenate([random.integers(0, max(n, 1), e) for n, e in zip(nodes, edges)])
                        for _ in range(2)]).astype("i2")
    bonds = random.integers(0, 4, (edge_ptr[-1], 3)).astype("u1")
    targets = random.normal(size=(graphs, 11)).astype("f2")
    with h5py.File(path, "w") as f:
        for split in ("train", "validation"):
            g = f.create_group(split)
            g.create_dataset("node_features", data=x, chunks=(256, 7), compression=4, shuffle=True)
            g.create_dataset("edge_index", data=ends, chunks=(2, 333), compression=4)
            g.create_dataset("edge_features", data=bonds, chunks=(500, 3))
            g["node_ptr"], g["edge_ptr"], g["targets"] = node_ptr, edge_ptr.astype("u4"), targets
    at = [slice(a, b) for a, b in zip(edge_ptr, edge_ptr[1:])]
    return node_ptr, [[(x[a:b],), (ends[0, e],), (ends[1, e],), (bonds[e],), targets[i]]
                      for i, (a, b, e) in enumerate(zip(node_ptr, node_ptr[1:], at))]


def tokens_write(path, tokens=50000, seed=6):
    random = numpy.random.default_rng(seed)
    text = random.integers(0, 256, tokens).astype("u1")
    documents = numpy.unique(numpy.concatenate([[0, tokens], random.integers(0, tokens, 300)]))
    with h5py.File(path, "w") as f:
        for split in ("train", "validation"):
            f.create_dataset(split + "/tokens", data=text, chunks=(4096,), compression=4)
            f[split + "/doc_ptr"] = documents
    return text, documents


@limit(60)
def test_graphs_arrive_whole():
    _, rows = graphs_write("graphs.h5")
    expected = digest(rows)
    for arguments in ((), ("shuffle=0",), ("span_rows=50", "limit_mb=1")):
        got = probe("graphs.h5", *arguments)
        assert got["digest"] == expected and got["rows"] == len(rows), (arguments, got, expected)


@limit(60)
def test_tokens_arrive_as_windows():
    text, documents = tokens_write("tokens.h5")
    begins = numpy.zeros(len(text) + 1, bool)
    begins[documents] = True
    for window in (100, 1024):
        at = range(0, (len(text) - 1) // window * window, window)
        rows = [[text[i:i + window + 1], numpy.packbits(begins[i:i + window + 1], bitorder="little")] for i in at]
        got = probe("tokens.h5", "window=%d" % window)
        assert got["digest"] == digest(rows) and got["rows"] == len(rows), (window, got)


def described(config, *settings):
    words = [w for s in settings for w in ("--set", s)]
    out = subprocess.run([os.path.join(BINARIES, "loaderd"), "--describe", "--config", config, *words],
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 0, out.stderr
    return dict(line.split("=", 1) for line in out.stdout.splitlines()), out.stdout


@limit(60)
def test_the_arena_has_no_part_in_the_order():
    """Whatever its limit is, spans are those of any other, or refused by a sentence whose figures would do."""
    with h5py.File("arena.h5", "w") as f:
        for split in ("train", "validation"):
            f[split + "/features"] = numpy.zeros((20000, 60), "f4")
            f[split + "/targets"] = numpy.zeros(20000, "u1")
    config = SmallRun("arena", "arena.h5").directory + ".yaml"
    spans = described(config)[0]["train.span_rows"]

    def spans_or_reason(*settings):
        words = [w for s in settings for w in ("--set", s)]
        out = subprocess.run([os.path.join(BINARIES, "loaderd"), "--describe", "--config", config, *words],
                             capture_output=True, text=True, timeout=60)
        return dict(line.split("=", 1) for line in out.stdout.splitlines()).get("train.span_rows", out.stderr)
    assert spans_or_reason("arena.limit_mb=4096") == spans
    reason = spans_or_reason("arena.limit_mb=16")
    needed, rows = re.search("set it to ([0-9]+) or more, or lower order.window_spans or order.span_rows "
                             r"\(e.g. to ([0-9]+)\)", reason).groups()
    assert spans_or_reason("arena.limit_mb=" + needed) == spans
    assert spans_or_reason("arena.limit_mb=%d" % (int(needed) - 1)) not in (spans, "")
    assert spans_or_reason("arena.limit_mb=16", "order.span_rows=" + rows) == rows
    assert spans_or_reason("arena.limit_mb=%d" % ((int(needed) + 1) // 2), "order.window_spans=1") == spans


def refused(words, name, path, *settings):
    """trainerd ends with 100 and all the words, and so does its --plan."""
    with SmallRun(name, path, settings=settings) as run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100, run.log("trainerd")
        assert all(w in run.log("trainerd") for w in words), run.log("trainerd")
    return name + ".yaml"


@limit(60)
def test_graphs_and_tokens_are_described():
    node_ptr, rows = graphs_write("graphs.h5")
    tokens_write("tokens.h5")
    words = ["layer 2 (linear) leaves a vector for each node", "a pool layer makes it"]
    config = refused(words, "graph", "graphs.h5")
    found, text = described(config, "data.shuffle=false")
    sizes = numpy.diff(node_ptr)
    batches = [sizes[i:i + 64].sum() for i in range(0, len(sizes), 64)]
    assert found["train.layout"] == "graph" and found["train.rows"] == str(len(rows)), found
    assert found["train.node_features.batch_items_max"] == str(max(batches)), found
    assert found["train.edge_source.pointer"] == "edge_ptr" and found["train.targets.type"] == "f16", found
    streams, _ = described(config, "data.shuffle=false", "data.stateful=true")
    beside = sizes[:int(streams["train.rows"])].reshape(64, -1)
    assert streams["train.node_features.batch_items_max"] == str(beside.sum(0).max()), streams
    code, text_checked = checked(config)
    empty = "train/node_ptr: graph %d has no nodes" % numpy.flatnonzero(sizes == 0)[0]
    assert code == 100 and empty in text_checked, text_checked
    assert "train/node_ptr: i64 [901], graphs of 0 to 29 nodes, %d without any" % (sizes == 0).sum() in text_checked
    assert "train/edge_index: i16 [2, " in text_checked and "validation/targets: f32 [900, 11], values" in text_checked
    shuffled = int(described(config)[0]["train.node_features.batch_items_max"])
    assert max(batches) != shuffled and sizes.mean() * 64 < shuffled < numpy.sort(sizes)[-64:].sum()
    bases = subprocess.run([os.path.join(BINARIES, "prepare"), "bases"], capture_output=True, text=True, timeout=60).stdout
    out = subprocess.run([os.path.join(BINARIES, "trainerd"), "--plan", "--config", config], input=text + bases,
                         capture_output=True, text=True, timeout=60)
    assert out.returncode == 100 and all(w in out.stderr for w in words), out.stderr

    config = refused(["holds tokens, and the model's first layer takes numbers"], "tokens", "tokens.h5", "data.window=99",
                     "data.scale=1")
    found, _ = described(config, "data.window=99")
    assert found["train.rows"] == str(49999 // 99) and found["train.tokens.values"] == "100", found
    assert found["train.document_starts.values"] == "13" and "train.begins.type" not in found, found
    found, _ = described(config, "data.window=99", "data.shuffle=false", "data.stateful=true")
    assert found["train.begins.type"] == "u8" and found["train.begins.values"] == "1", found


OF_GRAPHS = """name: small
data: {file: %s}
model:
  loss: %s
  layers: [{type: gcn, out: 8}, {type: pool, kind: mean}, {type: linear, out: %d}]
tasks: [{name: A, epochs: 1}]
"""


@limit(60)
def test_check_data_looks_at_graphs():
    def pipeline(loss, outputs):
        with open("small.yaml", "w") as f:
            f.write(OF_GRAPHS % (os.path.abspath("graphs.h5"), loss, outputs))
    pipeline("mean_squared_error", 11)
    graphs_write("graphs.h5", nodes_min=1)
    code, text = checked("small.yaml")
    assert code == 0 and "graphs of 1 to 29 nodes" in text, text

    def found(change, *words):
        graphs_write("graphs.h5", nodes_min=1)
        with h5py.File("graphs.h5", "a") as f:
            change(f["train"], f["train/node_ptr"][:], f["train/edge_ptr"][:])
        code, text = checked("small.yaml")
        assert code == 100 and all(w in text for w in words), (words, text)

    def put(name, at, value):
        return lambda g, nodes, edges: g[name].__setitem__(at, value)

    def edge_astray(g, nodes, edges):
        graph = int(numpy.flatnonzero(numpy.diff(edges.astype(int)))[-1])
        g["edge_index"][1, int(edges[graph + 1]) - 1] = nodes[graph + 1] - nodes[graph]

    def shorter(name, rows):
        def change(g, nodes, edges):
            values = g[name][:rows]
            del g[name]
            g[name] = values
        return change
    found(put("node_features", (77, 3), numpy.nan), "NaN 1, infinite 0", "train/node_features has values", "row 77",
          "validation/targets")
    found(put("targets", (5, 2), numpy.inf), "train/targets has values", "row 5")
    found(edge_astray, "train/edge_index: the target of edge ", "counted from 0 in each graph")
    found(put("edge_index", (0, 0), -1), "train/edge_index: the source of edge 0 is node 65535")
    found(put("node_ptr", 0, 1), "train/node_ptr is 1 in row 0")
    found(put("edge_ptr", 900, 1), "train/edge_ptr is 1 in row 900")
    found(shorter("targets", 899), "train/targets has 899 rows; expected 900, one for each of the graphs")
    found(shorter("edge_features", 9), "train/edge_features has 9 rows", "one for each of the edges")
    found(shorter("node_features", 9), "train/node_ptr ends with", "train/node_features has 9 items")
    found(shorter("node_ptr", 900), "train/node_ptr ends with")
    found(shorter("edge_index", 1), "expected whole numbers [2, edges]")
    found(lambda g, nodes, edges: g.__delitem__("targets"), "no data set train/targets")
    pipeline("mean_squared_error", 4)
    found(lambda g, nodes, edges: None, "train/targets has 11 values a row and the model 4 outputs")
    pipeline("softmax_cross_entropy", 11)
    found(lambda g, nodes, edges: None, "train/targets has float values, and the loss of model.loss, softmax_cross")

    def classes(f):
        for split in ("train", "validation"):
            del f[split]["targets"]
            f[split]["targets"] = numpy.arange(900, dtype="i2") % 9
    graphs_write("graphs.h5", nodes_min=1)
    with h5py.File("graphs.h5", "a") as f:
        classes(f)
    for outputs, words in ((9, "rows a class: 0: 100, 1: 100"), (4, "train/targets has classes up to 8 and the model 4")):
        pipeline("softmax_cross_entropy", outputs)
        code, text = checked("small.yaml")
        assert code == (100 if outputs == 4 else 0) and words in text, text
    found(lambda g, nodes, edges: classes(g.file) or g["targets"].__setitem__(5, -1), "has class -1 in row 5")


def frames_write(path, whole):
    """The same features as timeframes under other names, and joined."""
    random = numpy.random.default_rng(7)
    frames = {"M5": random.integers(0, 200, (ROWS, 4, 5)), "M1": random.integers(0, 200, (ROWS, 2, 5))}
    targets = random.integers(0, 5, ROWS).astype("u1")
    with h5py.File(path, "w") as f, h5py.File(whole, "w") as w:
        for split in ("train", "validation"):
            for name, values in frames.items():
                f.create_dataset("%s/bars/%s" % (split, name), data=values.astype("u1"), chunks=(64, *values.shape[1:]),
                                 compression=4)
            f[split + "/bars"].attrs["timeframes"] = ["M1", "M5"]
            f.create_dataset(split + "/kind", data=targets, chunks=(64,))
            w.create_dataset(split + "/features", data=numpy.concatenate([frames["M1"], frames["M5"]], 1).astype("u1"),
                             chunks=(64, 6, 5), compression=4)
            w.create_dataset(split + "/targets", data=targets, chunks=(64,))


NAMES = ("data.features=bars", "data.targets=kind")


def weights(name, path, *settings):
    with SmallRun(name, path, settings=settings) as run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd") + run.log("fisherd")
        subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True,
                       stdout=subprocess.DEVNULL)
        with open(run.path("report/report.json")) as f:
            return json.load(f)["weights_sha256"]


def checked(config, *settings):
    words = [w for s in settings for w in ("--set", s)]
    out = subprocess.run([os.path.join(BINARIES, "prepare"), "check", "--config", config, *words],
                         capture_output=True, text=True, timeout=60)
    return out.returncode, out.stdout + out.stderr


@limit(60)
def test_check_data_looks_at_timeframes():
    frames_write("frames.h5", "whole.h5")
    SmallRun("frames", "frames.h5", settings=NAMES)
    code, text = checked("frames.yaml", *NAMES)
    assert code == 0 and "train/bars/M1: u8 [700, 2, 5], values" in text, text
    assert "validation/bars/M5: u8 [700, 4, 5], values" in text and "equal rows: 700 of 700" in text, text
    with h5py.File("frames.h5", "a") as f:
        bad = f["train/bars/M5"][:].astype("f4")
        bad[600, 3, 4] = numpy.nan
        del f["train/bars/M5"]
        f["train/bars/M5"] = bad
    code, text = checked("frames.yaml", *NAMES)
    assert code == 100 and "train/bars/M5 has values that are no finite" in text and "row 600" in text, text
    code, text = checked("frames.yaml")
    assert code == 100 and "no data set train/features" in text, text


@limit(60)
def test_timeframes_train_as_their_concatenation():
    frames_write("frames.h5", "whole.h5")
    assert weights("frames", "frames.h5", *NAMES) == weights("whole", "whole.h5")
    found, _ = described("frames.yaml", *NAMES)
    assert found["train.values"] == "30" and found["train.features/M1.values"] == "10", found
    with open("frames.yaml") as f:
        permuted = f.read().replace("{name: A, epochs: 1}", "{name: A, epochs: 1, permute_features: 3}")
    assert "permute_features" in permuted
    with open("permuted.yaml", "w") as f:
        f.write(permuted)
    words = [w for s in NAMES for w in ("--set", s)]
    subprocess.run([os.path.join(BINARIES, "prepare"), "run", "--config", "permuted.yaml", "--run", "permuted", *words],
                   check=True)
    run = SmallRun.__new__(SmallRun)
    run.directory, run.processes = os.path.abspath("permuted"), {}
    with run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
        assert "task A permutes the features" in run.log("trainerd") and "2 timeframes" in run.log("trainerd")


@limit(60)
def test_rows_do_not_depend_on_how_they_are_stored():
    """Chunks that threads read as they are, of which the last is in part, behind a user block or not; contiguous; gzip."""
    random = numpy.random.default_rng(8)
    features, targets = random.standard_normal((500, 300, 20)).astype("f4"), random.integers(0, 5, 500).astype("u1")
    ways = {"chunks": {"chunks": (16, 300, 20)}, "odd": {"chunks": (48, 300, 20)}, "plain": {},
            "gzip": {"chunks": (16, 300, 20), "compression": 1}}
    found = {}
    for way, stored in ways.items():
        for user_block in (0, 512):
            path = "%s-%d.h5" % (way, user_block)
            with h5py.File(path, "w", userblock_size=user_block) as f:
                f.create_dataset("train/features", data=features, **stored)
                f.create_dataset("train/targets", data=targets)
            found[path] = probe(path, "epochs=1")["digest"]
    assert len(set(found.values())) == 1, found
