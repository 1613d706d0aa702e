"""The work of pipelines/fashion.yaml as a PyTorch user writes it: the peer of the benchmarks.

All data in RAM, DataLoader, AdamW, one-cycle rate, the exact Fisher information by a loop over single samples, the EWC penalty
by autograd. `python3 peer_fashion.py SOURCE_DIR THREADS [EPOCHS_A EPOCHS_B SAMPLES]` prints one JSON object:
accuracies, wall and CPU seconds of each part, peak resident memory.
"""
import gzip
import json
import os
import resource
import sys
import time

import numpy
import torch
from torch.utils.data import DataLoader, TensorDataset

LAMBDA, DAMPING, BATCH, RATE = 250.0, 0.015, 128, 2e-3  # as pipelines/fashion.yaml


def idx_read(path):
    opener = gzip.open if os.path.exists(path + ".gz") else open
    with opener(path + (".gz" if opener is gzip.open else ""), "rb") as f:
        data = f.read()
    rank = data[3]
    dims = [int.from_bytes(data[4 + 4 * i:8 + 4 * i], "big") for i in range(rank)]
    return torch.from_numpy(numpy.frombuffer(data, numpy.uint8, offset=4 + 4 * rank).reshape(dims).copy())


def load(source):
    parts = []
    for kind in ("train", "t10k"):
        images = idx_read(os.path.join(source, kind + "-images-idx3-ubyte"))
        labels = idx_read(os.path.join(source, kind + "-labels-idx1-ubyte"))
        parts.append((images.reshape(len(images), -1).float() / 255, labels.long()))
    return parts


def model_new():
    return torch.nn.Sequential(torch.nn.Linear(784, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256),
                               torch.nn.ReLU(), torch.nn.Linear(256, 10))


def accuracy(model, x, y):
    with torch.no_grad():
        return (model(x).argmax(1) == y).double().mean().item()


def train(model, x, y, validation, epochs, fisher=None, star=None):
    """Steps made, and the accuracy after the last epoch; each epoch ends with one, as in ours."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE)
    loader = DataLoader(TensorDataset(x, y), batch_size=BATCH, shuffle=True)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, epochs=epochs, steps_per_epoch=len(loader))
    steps = 0
    for _ in range(epochs):
        for xb, yb in loader:
            loss = torch.nn.functional.cross_entropy(model(xb), yb)
            if fisher is not None:
                loss = loss + LAMBDA / 2 * sum((f * (p - s) ** 2).sum()
                                               for f, p, s in zip(fisher, model.parameters(), star))
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            rates.step()
            steps += 1
        reached = accuracy(model, *validation)
    return steps, reached


def fisher_of(model, x, y, samples):
    sums = [torch.zeros_like(p) for p in model.parameters()]
    for i in range(samples):
        model.zero_grad()
        torch.nn.functional.cross_entropy(model(x[i:i + 1]), y[i:i + 1]).backward()
        for s, p in zip(sums, model.parameters()):
            s += p.grad ** 2
    floor = DAMPING * sum(s.sum() for s in sums) / sum(s.numel() for s in sums)
    return [(s + floor) / samples for s in sums]


class Clock:
    def __init__(self):
        self.parts = {}

    def run(self, name, call, *args):
        wall, cpu = time.perf_counter(), time.process_time()
        result = call(*args)
        self.parts[name] = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
        return result


def main():
    source, threads = sys.argv[1], int(sys.argv[2])
    epochs_a, epochs_b, samples = [int(v) for v in sys.argv[3:6]] or [3, 2, 4096]
    torch.set_num_threads(threads)
    torch.manual_seed(1)
    wall, cpu, clock = time.perf_counter(), time.process_time(), Clock()
    (x, y), (xv, yv) = load(source)
    permutation = torch.randperm(784, generator=torch.Generator().manual_seed(1))
    model = model_new()
    steps, reached = clock.run("train_a", train, model, x, y, (xv, yv), epochs_a)
    result = {"a_after_a": reached}
    star = [p.detach().clone() for p in model.parameters()]
    fisher = clock.run("fisher", fisher_of, model, x, y, samples)
    for key, protect in (("with", True), ("without", False)):
        with torch.no_grad():
            for p, s in zip(model.parameters(), star):
                p.copy_(s)
        more, result["b_" + key] = clock.run("train_b_" + key, train, model, x[:, permutation], y,
                                             (xv[:, permutation], yv), epochs_b,
                                             fisher if protect else None, star if protect else None)
        steps += more
        result["a_" + key] = accuracy(model, xv, yv)
    result.update(steps=steps, threads=threads, parts=clock.parts, wall_s=time.perf_counter() - wall,
                  cpu_s=time.process_time() - cpu,
                  peak_rss_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
