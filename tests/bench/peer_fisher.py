"""PyTorch's side of the Fisher information's benchmark: peer_fisher.py DIR THREADS mlp|lstm|gcn reads weights.f32,
features (float32) and the targets, squares the gradient of one sample after the other as a PyTorch user would, writes
the sums to peer.f32 and prints seconds and CPU seconds."""
import json
import os
import sys
import time

import peer_gcn  # reads the number of threads from the same place
import peer_lstm
import numpy
import torch


def mlp(directory):
    def read(name, kind):
        return torch.from_numpy(numpy.fromfile(os.path.join(directory, name), kind))
    sizes = (256, 512, 512, 10)
    layers = [part for a, b in zip(sizes, sizes[1:]) for part in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    x, y = read("features", numpy.float32).reshape(-1, 256), read("targets.u8", numpy.uint8).long()
    return torch.nn.Sequential(*layers[:-1]), [((x[i:i + 1],), y[i:i + 1]) for i in range(len(x))], torch.nn.functional.cross_entropy


def lstm(directory):
    def read(name):
        return torch.from_numpy(numpy.fromfile(os.path.join(directory, name), numpy.float32))
    x, y = read("features").reshape(-1, peer_lstm.LENGTH, peer_lstm.INPUTS), read("targets.f32").reshape(-1, 1)
    return peer_lstm.Regressor(), [((x[i:i + 1],), y[i:i + 1]) for i in range(len(x))], torch.nn.functional.mse_loss


def gcn(directory):
    peer_gcn.BATCH = 1
    samples = [((x, edges, batch), y) for x, edges, batch, y in peer_gcn.batches_read(directory, "index_add")]
    return peer_gcn.Network(), samples, lambda z, y: (1 - torch.nn.functional.cosine_similarity(z, y)).mean()


def main():
    directory, threads, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(threads)
    model, samples, loss = {"mlp": mlp, "lstm": lstm, "gcn": gcn}[kind](directory)
    flat, at = torch.from_numpy(numpy.fromfile(os.path.join(directory, "weights.f32"), numpy.float32)), 0
    for p in model.parameters():
        p.data.copy_(flat[at:at + p.numel()].reshape(p.shape))
        at += p.numel()
    sums = [torch.zeros_like(p) for p in model.parameters()]
    wall, cpu = time.perf_counter(), time.process_time()
    for x, y in samples:
        model.zero_grad(set_to_none=True)
        loss(model(*x), y).backward()
        for s, p in zip(sums, model.parameters()):
            s.addcmul_(p.grad, p.grad)
    print(json.dumps({"seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}))
    torch.cat([s.reshape(-1) for s in sums]).numpy().tofile(os.path.join(directory, "peer.f32"))


if __name__ == "__main__":
    main()
