"""How a PyTorch user trains the LSTM regressor from a file: peer_loading.py dataloader|whole FILE DEVICE EPOCHS BATCH HIDDEN FIRST TIMED.

dataloader: a DataLoader over h5py with 4 workers, shuffled, page-locked batches. whole: all rows are read by h5py and copied
to the device, where batches are picked by a random permutation. Both in bfloat16 by autocast with fused AdamW and
clipping. Prints the seconds of reading and training, start-up not counted: of whole as they were; of dataloader, which
is the same from batch to batch, those of TIMED batches behind FIRST, when its workers are at work, times those of all epochs."""
import json
import os
import sys
import time

import h5py
import torch


class Rows(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path, self.file = path, None
        with h5py.File(path) as f:
            self.rows, self.shape = len(f["train/features"]), f["train/features"].shape
            self.outputs = f["train/targets"].shape[1]

    def __len__(self):
        return self.rows

    def __getitem__(self, i):
        if self.file is None:  # each worker opens its own
            self.file = h5py.File(self.path)
        return torch.from_numpy(self.file["train/features"][i]), torch.from_numpy(self.file["train/targets"][i])


class Regressor(torch.nn.Module):
    def __init__(self, inputs, hidden, outputs):
        super().__init__()
        self.lstm = torch.nn.LSTM(inputs, hidden, 2, batch_first=True)
        self.head = torch.nn.Linear(hidden, outputs)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])


def step_make(device, rows, hidden):
    net = Regressor(rows.shape[2], hidden, rows.outputs).to(device)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, **({"fused": True} if device == "cuda" else {}))

    def step(x, y):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = torch.nn.functional.mse_loss(net(x).float(), y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        return loss.detach()
    return step


def dataloader(rows, batch, device):
    loader = torch.utils.data.DataLoader(rows, batch, shuffle=True, num_workers=4, pin_memory=device == "cuda",
                                         persistent_workers=True)
    while True:
        for x, y in loader:
            yield x.to(device, non_blocking=True), y.to(device, non_blocking=True)


def whole(rows, batch, device):
    with h5py.File(rows.path) as f:
        x, y = (torch.from_numpy(f["train/" + name][:]).to(device) for name in ("features", "targets"))
    while True:
        order = torch.randperm(len(x), device=device)
        for first in range(0, len(x), batch):
            picked = order[first:first + batch]
            yield x[picked], y[picked]


def batches_seconds(batches, step, wait, count):
    wait()
    began = time.perf_counter()
    for _ in range(count):
        loss = step(*next(batches))
    wait()
    return time.perf_counter() - began, float(loss)


def main():
    way, path, device = sys.argv[1:4]
    epochs, batch, hidden, first, timed = (int(a) for a in sys.argv[4:9])
    rows = Rows(path)
    step = step_make(device, rows, hidden)
    step(torch.zeros(batch, *rows.shape[1:], device=device), torch.zeros(batch, rows.outputs, device=device))

    def wait():
        if device == "cuda":
            torch.cuda.synchronize()
    each = -(-len(rows) // batch)
    batches = {"dataloader": dataloader, "whole": whole}[way](rows, batch, device)
    if way == "dataloader":
        batches_seconds(batches, step, wait, first)
        seconds, loss = batches_seconds(batches, step, wait, timed)
        seconds *= epochs * each / timed
    else:
        seconds, loss = batches_seconds(batches, step, wait, epochs * each)
    print(json.dumps({"seconds": seconds, "loss": loss}), flush=True)
    os._exit(0)  # without waiting for the workers


if __name__ == "__main__":
    main()
