"""PyTorch's side of the engine's benchmarks: the same raw files as tests/reference/engine_probe.c.

peer_engine.py train|fisher DIR THREADS STEPS [LAMBDA]: reads weights.f32, features (u8), targets.u8 (and, with LAMBDA,
fisher.f32, star.f32), does the work as a PyTorch user would with everything in RAM as float32, writes peer.f32 and
prints {"seconds", "cpu_seconds"} of the work alone.
"""
import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = sys.argv[3]  # torch.set_num_threads does not reach it
import numpy  # noqa: E402
import torch  # noqa: E402

SIZES, BATCH, RATE = (784, 256, 256, 10), 128, 1e-3


def read(directory, name, kind):
    return torch.from_numpy(numpy.fromfile(os.path.join(directory, name), kind))


def model_read(directory, name):
    flat, at, layers = read(directory, name, numpy.float32), 0, []
    for a, b in zip(SIZES, SIZES[1:]):
        layer = torch.nn.Linear(a, b)
        with torch.no_grad():
            layer.weight.copy_(flat[at:at + a * b].reshape(b, a))
            layer.bias.copy_(flat[at + a * b:at + a * b + b])
        at += a * b + b
        layers += [layer, torch.nn.ReLU()]
    return torch.nn.Sequential(*layers[:-1])


def train(model, x, y, steps, directory, strength):
    parameters = list(model.parameters())
    terms = []
    if strength:
        fisher, star = (list(model_read(directory, n).parameters()) for n in ("fisher.f32", "star.f32"))
        terms = [(f.detach(), s.detach(), p) for f, s, p in zip(fisher, star, parameters)]
    optimizer = torch.optim.AdamW(parameters, lr=RATE)
    batches = len(x) // BATCH

    def run():
        for k in range(steps):
            rows = slice(k % batches * BATCH, (k % batches + 1) * BATCH)
            loss = torch.nn.functional.cross_entropy(model(x[rows]), y[rows])
            for f, s, p in terms:
                loss = loss + strength / 2 * (f * (p - s) ** 2).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    return run, lambda: parameters


def fisher(model, x, y):
    sums = [torch.zeros_like(p) for p in model.parameters()]

    def run():
        for i in range(len(x)):
            model.zero_grad(set_to_none=True)
            torch.nn.functional.cross_entropy(model(x[i:i + 1]), y[i:i + 1]).backward()
            for s, p in zip(sums, model.parameters()):
                s.addcmul_(p.grad, p.grad)
    return run, lambda: sums


def main():
    mode, directory, threads, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    strength = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
    torch.set_num_threads(threads)
    model = model_read(directory, "weights.f32")
    x = read(directory, "features", numpy.uint8).reshape(-1, SIZES[0]).float() / 255
    y = read(directory, "targets.u8", numpy.uint8).long()
    run, result = train(model, x, y, steps, directory, strength) if mode == "train" else fisher(model, x, y)
    wall, cpu = time.perf_counter(), time.process_time()
    run()
    print(json.dumps({"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}))
    flat = torch.cat([t.detach().reshape(-1) for t in result()])
    flat.numpy().tofile(os.path.join(directory, "peer.f32"))


if __name__ == "__main__":
    main()
