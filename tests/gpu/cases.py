"""The work that `make gpu-check` times: models and made-up data, as engine_probe reads them and peer.py, too.

case_write(name, directory, dry) writes into case_path(directory, name): model.txt, weights.f32, the data, and case.json,
which tells the sizes. With dry they are so small that the emulated device takes seconds."""
import json
import os
import subprocess

import numpy

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BINARIES = os.path.join(ROOT, "build", os.environ.get("VARIANT", "release"), "bin")
PROBE = os.path.join(BINARIES, "engine_probe")


def dense(random, dry):
    sizes = [24, 32, 32, 10] if dry else [784, 1024, 1024, 10]
    batch = 8 if dry else 128
    rows = 4 * batch
    text = "inputs=%d loss=softmax_cross_entropy\n" % sizes[0] + "relu\n".join("linear out=%d\n" % n for n in sizes[1:])
    macs = sum(a * b for a, b in zip(sizes, sizes[1:]))
    targets = random.integers(0, sizes[-1], rows)
    patterns = random.normal(size=(sizes[-1], sizes[0]))  # something to learn
    seen = numpy.where(random.random(rows) < 0.25, random.integers(0, sizes[-1], rows), targets)  # and what keeps the loss up
    return ({"sizes": sizes, "batch": batch, "rows": rows, "flops": batch * (6 * macs - 2 * sizes[0] * sizes[1])},
            text, {"features": (patterns[seen] + random.normal(size=(rows, sizes[0]))).astype("f4"),
                   "targets.u8": targets.astype("u1")})


def lstm(random, dry, batches=4):
    length, inputs, hidden, layers, outputs, batch = (5, 6, 8, 2, 3, 4) if dry else (360, 167, 128, 2, 36, 128)
    rows = batches * batch
    text = "inputs=%d loss=mean_squared_error\nsequence steps=%d\nlstm out=%d layers=%d\npool kind=last\nlinear out=%d\n" % (
        length * inputs, length, hidden, layers, outputs)
    macs = sum(4 * hidden * (wide + hidden) for wide in [inputs] + [hidden] * (layers - 1))
    x = random.normal(size=(rows, length * inputs)).astype("f4")
    mix = random.normal(size=(inputs, outputs)) / inputs ** 0.5
    y = numpy.tanh(x.reshape(rows, length, inputs)[:, -3:].mean(1) @ mix)
    return ({"length": length, "inputs": inputs, "hidden": hidden, "layers": layers, "outputs": outputs, "batch": batch,
             "rows": rows, "flops": batch * length * (6 * macs - 2 * 4 * hidden * inputs)},
            text, {"features": x, "targets.f32": y.astype("f4")})


def gcn(random, dry):
    """Molecules of 12 to 36 atoms: a chain with two rings closed, each bond two edges; sparse positive spectra."""
    inputs, hidden, layers, outputs, batch = (6, 8, 2, 5, 4) if dry else (32, 256, 5, 1000, 256)
    rows = 2 * batch
    text = "graphs inputs=%d edge_inputs=0 loss=cosine\n" % inputs + ("gcn out=%d\nrelu\n" % hidden) * layers + \
        "pool kind=mean\nlinear out=%d\n" % outputs
    counts = random.integers(12, 37, rows)
    ends = []
    for n in counts:
        bonds = numpy.array([(i, i + 1) for i in range(n - 1)] + [(0, 5), (n - 6, n - 1)])
        ends.append(numpy.concatenate([bonds, bonds[:, ::-1]]).T)
    nodes, edges = ([0, *numpy.cumsum(n)] for n in (counts, [e.shape[1] for e in ends]))
    ends = numpy.concatenate(ends, 1)
    macs = int(nodes[batch]) * (inputs * hidden + (layers - 1) * hidden * hidden) + batch * hidden * outputs
    return ({"inputs": inputs, "hidden": hidden, "layers": layers, "outputs": outputs, "batch": batch, "rows": rows,
             "flops": 6 * macs},
            text, {"features": random.normal(size=(nodes[-1], inputs)).astype("f4"),
                   "targets.f32": (random.random((rows, outputs)) * (random.random((rows, outputs)) < 0.2)).astype("f4"),
                   "node_ptr.u64": numpy.array(nodes, "u8"), "edge_ptr.u64": numpy.array(edges, "u8"),
                   "sources.u32": ends[0].astype("u4"), "ends.u32": ends[1].astype("u4"), "edges.f32": numpy.zeros(0, "f4")})


def fisher(random, dry):
    return lstm(random, dry, 1)


CASES = {"dense": dense, "lstm": lstm, "gcn": gcn, "fisher": fisher}


def case_path(directory, name):
    return os.path.join(directory, "cases", name)


def case_write(name, directory, dry):
    """case.json has the sizes, the number of parameters among them."""
    directory = case_path(directory, name)
    os.makedirs(directory)
    facts, text, files = CASES[name](numpy.random.default_rng(1), dry)
    for file, values in files.items():
        values.tofile(os.path.join(directory, file))
    with open(os.path.join(directory, "model.txt"), "w") as f:
        f.write(text)
    subprocess.run([PROBE, "init", directory, "seed=1"], check=True)
    facts["parameters"] = os.path.getsize(os.path.join(directory, "weights.f32")) // 4
    with open(os.path.join(directory, "case.json"), "w") as f:
        json.dump(facts, f)
