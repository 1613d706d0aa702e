"""PyTorch's side of the LSTM benchmark: peer_lstm.py DIR THREADS STEPS reads weights.f32, features (float32) and
targets.f32, takes the steps as a PyTorch user would, writes peer.f32 and prints seconds, CPU seconds and memory."""
import json
import os
import sys
import time

os.environ["OPENBLAS_NUM_THREADS"] = sys.argv[2]  # torch.set_num_threads does not reach it
import numpy  # noqa: E402
import torch  # noqa: E402

LENGTH, INPUTS, HIDDEN, LAYERS, BATCH = 64, 32, 128, 2, 64


class Regressor(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = torch.nn.LSTM(INPUTS, HIDDEN, LAYERS, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, 1)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def main():
    directory, threads, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)

    def read(name):
        return torch.from_numpy(numpy.fromfile(os.path.join(directory, name), numpy.float32))
    model, flat, at = Regressor(), read("weights.f32"), 0
    for p in model.parameters():
        p.data.copy_(flat[at:at + p.numel()].reshape(p.shape))
        at += p.numel()
    x, y = read("features").reshape(-1, LENGTH, INPUTS), read("targets.f32").reshape(-1, 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    wall, cpu = time.perf_counter(), time.process_time()
    for k in range(steps):
        rows = slice(k * BATCH % len(x), k * BATCH % len(x) + BATCH)
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.mse_loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    with open("/proc/self/status") as f:  # rusage would tell that of the process that started this one, if larger
        peak, = (int(line.split()[1]) for line in f if line.startswith("VmHWM:"))
    print(json.dumps({"seconds": wall, "cpu_seconds": cpu, "peak_rss_bytes": peak * 1024}))
    torch.cat([p.detach().reshape(-1) for p in model.parameters()]).numpy().tofile(os.path.join(directory, "peer.f32"))


if __name__ == "__main__":
    main()
