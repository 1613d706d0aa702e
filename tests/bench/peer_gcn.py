"""PyTorch's side of the benchmark of graphs: peer_gcn.py DIR THREADS STEPS FORM reads weights.f32, features (float32),
node_ptr.u64, edge_ptr.u64, sources.u32, ends.u32 and targets.f32, takes the steps as a PyTorch user would, writes
the last one's gradient to peer.f32 and prints seconds, CPU seconds and memory. FORM is how messages are added up: index_add (as PyTorch
Geometric), or csr, a product with torch.sparse_csr. The normalised edges of each batch are made before the clock
starts, ours inside it."""
import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = sys.argv[2]  # torch.set_num_threads does not reach it
import numpy  # noqa: E402
import torch  # noqa: E402

INPUTS, HIDDEN, LAYERS, OUTPUTS, BATCH = 32, 256, 4, 1000, 64


class Convolution(torch.nn.Module):
    def __init__(self, inputs, out):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(out, inputs))
        self.bias = torch.nn.Parameter(torch.zeros(out))

    def forward(self, x, edges):
        h = x @ self.weight.T
        if isinstance(edges, tuple):
            source, target, norm = edges
            return torch.zeros_like(h).index_add(0, target, norm * h[source]) + self.bias
        return Product.apply(h, *edges.parts) + self.bias


class Product(torch.autograd.Function):
    """A h and back A^T dy: the gradient of a product of torch.sparse_csr is not there for A without gradient in 1.13."""

    @staticmethod
    def forward(ctx, h, a, transposed):
        ctx.transposed = transposed
        return a @ h

    @staticmethod
    def backward(ctx, dy):
        return ctx.transposed @ dy, None, None


class Csr:
    def __init__(self, source, target, norm, nodes):
        a = torch.sparse_coo_tensor(torch.stack([target, source]), norm[:, 0], (nodes, nodes))
        self.parts = a.coalesce().to_sparse_csr(), a.t().coalesce().to_sparse_csr()


class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        widths = [INPUTS] + [HIDDEN] * LAYERS
        self.layers = torch.nn.ModuleList(Convolution(a, b) for a, b in zip(widths, widths[1:]))
        self.head = torch.nn.Linear(HIDDEN, OUTPUTS)

    def forward(self, x, edges, batch):
        for layer in self.layers:
            x = torch.relu(layer(x, edges))
        mean = torch.zeros(BATCH, HIDDEN).index_add(0, batch, x) / torch.bincount(batch, minlength=BATCH)[:, None]
        return self.head(mean)


def batches_read(directory, form):
    def read(name, kind):
        return numpy.fromfile(os.path.join(directory, name), kind)
    x, y = read("features", "f4").reshape(-1, INPUTS), read("targets.f32", "f4").reshape(-1, OUTPUTS)
    nodes, edges = (read(n, "u8").astype(int) for n in ("node_ptr.u64", "edge_ptr.u64"))
    ends = [read(n, "u4").astype(int) for n in ("sources.u32", "ends.u32")]
    found = []
    for first in range(0, len(y), BATCH):
        n, e = nodes[first:first + BATCH + 1], edges[first:first + BATCH + 1]
        count, shift = n[-1] - n[0], numpy.repeat(n[:-1] - n[0], numpy.diff(e))
        source, target = (torch.tensor(numpy.concatenate([k[e[0]:e[-1]] + shift, numpy.arange(count)])) for k in ends)
        root = torch.bincount(target, minlength=count).float() ** -0.5
        edge = (source, target, (root[source] * root[target])[:, None])
        batch = torch.tensor(numpy.repeat(numpy.arange(BATCH), numpy.diff(n)))
        found.append((torch.tensor(x[n[0]:n[-1]]), edge if form == "index_add" else Csr(*edge, count), batch,
                      torch.tensor(y[first:first + BATCH])))
    return found


def main():
    directory, threads, steps, form = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    torch.set_num_threads(threads)
    model, at = Network(), 0
    flat = torch.from_numpy(numpy.fromfile(os.path.join(directory, "weights.f32"), numpy.float32))
    for p in model.parameters():
        p.data.copy_(flat[at:at + p.numel()].reshape(p.shape))
        at += p.numel()
    batches = batches_read(directory, form)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wall, cpu = time.perf_counter(), time.process_time()
    for k in range(steps):
        x, edges, batch, y = batches[k % len(batches)]
        optimizer.zero_grad(set_to_none=True)
        loss = (1 - torch.nn.functional.cosine_similarity(model(x, edges, batch), y)).mean()
        loss.backward()
        optimizer.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with open("/proc/self/status") as f:  # rusage would tell that of the process that started this one, if larger
        peak, = (int(line.split()[1]) for line in f if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "peak_rss_bytes": peak * 1024}))
    torch.cat([p.grad.reshape(-1) for p in model.parameters()]).numpy().tofile(os.path.join(directory, "peer.f32"))


if __name__ == "__main__":
    main()
