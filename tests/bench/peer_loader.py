"""h5py's side of the loader benchmark: the same file, read as a Python user would.

peer_loader.py dataloader FILE WORKERS BATCHES   PyTorch's DataLoader over h5py, shuffle=True, batches of 128
peer_loader.py chunks FILE EPOCHS                whole chunks in random order, rows shuffled within four chunks
peer_loader.py whole FILE EPOCHS PLACE CACHE     H5Dread of everything into one array that is there already and begins at
                                                 byte PLACE of a page; CACHE bytes for chunks (libhdf5's own: 1048576)
peer_loader.py digest FILE                       the order-independent digest of train/features

Prints {"rows", "seconds", "cpu_seconds"} of the reading alone (start-up not counted), or {"digest"}.
"""
import json
import resource
import sys
import time

import h5py
import numpy

BATCH, WORD, PAGE = 128, (1 << 64) - 1, 4096


def cpu_s():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF,
                                                                         resource.RUSAGE_CHILDREN)))


def mix(z):
    z = numpy.asarray(z, numpy.uint64)
    z = (z ^ (z >> numpy.uint64(30))) * numpy.uint64(0xbf58476d1ce4e5b9)
    z = (z ^ (z >> numpy.uint64(27))) * numpy.uint64(0x94d049bb133111eb)
    return z ^ (z >> numpy.uint64(31))


def key(a, b):
    """proto/order.h's order_key."""
    return mix(b + mix(numpy.asarray(a, numpy.uint64) + numpy.uint64(0x9e3779b97f4a7c15)))


def field_hash(h, rows, keys):
    data = numpy.ascontiguousarray(rows).view(numpy.uint8).reshape(len(rows), -1)
    data = numpy.pad(data, ((0, 0), (0, -data.shape[1] % 8))).view(numpy.uint64)
    for at in range(0, data.shape[1], 512):
        w = data[:, at:at + 512]
        t = w ^ keys[:w.shape[1]]
        product = (t & numpy.uint64(0xffffffff)) * (t >> numpy.uint64(32))
        h = key(h, (w + product).sum(axis=1, dtype=numpy.uint64))
    return h


def digest(*fields):
    """proto/rowhash.h's digest of rows that are made of these fields."""
    with numpy.errstate(over="ignore"):
        keys = key(numpy.uint64(0x726f7768617368), numpy.arange(512, dtype=numpy.uint64))
        h = numpy.zeros(len(fields[0]), numpy.uint64)
        for rows in fields:
            h = field_hash(h, rows, keys)
        return int(h.sum(dtype=numpy.uint64))


def dataloader(path, workers, batches):
    import torch

    class Rows(torch.utils.data.Dataset):
        def __init__(self):
            self.file = None
            with h5py.File(path) as f:
                self.rows = len(f["train/features"])

        def __len__(self):
            return self.rows

        def __getitem__(self, i):
            if self.file is None:  # each worker opens its own
                self.file = h5py.File(path)
            return torch.from_numpy(self.file["train/features"][i])

    loader = iter(torch.utils.data.DataLoader(Rows(), batch_size=BATCH, shuffle=True, num_workers=workers))
    next(loader)
    begin, rows = time.perf_counter(), 0
    for _ in range(batches):
        rows += len(next(loader))
    seconds = time.perf_counter() - begin
    del loader
    return {"rows": rows, "seconds": seconds}


def chunks(path, epochs):
    with h5py.File(path) as f:
        data = f["train/features"]
        n = data.chunks[0]
        places, random = (len(data) + n - 1) // n, numpy.random.default_rng(1)
        window = numpy.empty((4 * n, data.shape[1]), data.dtype)
        batch = numpy.empty_like(window)
        cpu, begin, rows = cpu_s(), time.perf_counter(), 0
        for _ in range(epochs):
            order = random.permutation(places).tolist()
            for at in range(0, places, 4):
                used = 0
                for c in order[at:at + 4]:
                    count = min(n, len(data) - c * n)
                    data.read_direct(window, numpy.s_[c * n:c * n + count], numpy.s_[used:used + count])
                    used += count
                numpy.take(window, random.permutation(used), axis=0, out=batch[:used])
                rows += used
        return {"rows": rows, "seconds": time.perf_counter() - begin, "cpu_seconds": cpu_s() - cpu}


def whole(path, epochs, place, cache):
    with h5py.File(path, rdcc_nbytes=cache) as f:
        data = f["train/features"]
        room = numpy.zeros(data.nbytes + 2 * PAGE, numpy.uint8)
        begin = -room.ctypes.data % PAGE + place
        out = room[begin:begin + data.nbytes].view(data.dtype).reshape(data.shape)
        data.read_direct(out)  # warms the pages
        cpu, begin = cpu_s(), time.perf_counter()
        for _ in range(epochs):
            data.read_direct(out)
        return {"rows": epochs * len(out), "seconds": time.perf_counter() - begin, "cpu_seconds": cpu_s() - cpu}


if __name__ == "__main__":
    what, file, numbers = sys.argv[1], sys.argv[2], [int(x) for x in sys.argv[3:]]
    if what == "digest":
        with h5py.File(file) as opened:
            print(json.dumps({"digest": "%016x" % digest(opened["train/features"][:])}))
    else:
        print(json.dumps({"dataloader": dataloader, "chunks": chunks, "whole": whole}[what](file, *numbers)))
