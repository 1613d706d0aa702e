"""loaderd beside h5py and PyTorch's DataLoader: the same rows of the same files."""
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy

from bench_base import HERE, PROBE, PYTHON, output_of, record

LOADER_ROWS, LOADER_VALUES, LOADER_CHUNK = 20000, 512, 256
LOADER_FILES = {  # name: how train/features is stored
    "gzip-shuffle": {"chunks": (LOADER_CHUNK, LOADER_VALUES), "compression": 4, "shuffle": True},
    "gzip": {"chunks": (LOADER_CHUNK, LOADER_VALUES), "compression": 4},
    "chunked": {"chunks": (LOADER_CHUNK, LOADER_VALUES)},
    "contiguous": {},
}
LOADER_REPEATS = 3  # sides take turns so often in a run: what else the machine does shows in one reading
USUAL, ON_A_PAGE = (16, 1 << 20), (0, 1 << 20)  # byte of a page where the array begins, bytes of the chunk cache
PEER_SETTINGS = {"gzip-shuffle": [USUAL], "gzip": [USUAL], "contiguous": [USUAL, ON_A_PAGE],
                 "chunked": [USUAL, ON_A_PAGE, (16, 0), (0, 0)]}
LOADER_SEQUENTIAL = {"gzip-shuffle": (20, 2.5), "gzip": (10, 1.6), "chunked": (100, 1.3), "contiguous": (100, 0.85)}


def loader_files(directory):
    """Normal values in steps of 1/1024, as measured data have: gzip-4 + shuffle keeps about a third of the bytes."""
    import h5py
    random = numpy.random.default_rng(5)
    rows = (numpy.round(random.standard_normal((LOADER_ROWS, LOADER_VALUES)) * 1024) / 1024).astype(numpy.float32)
    for name, storage in LOADER_FILES.items():
        with h5py.File(os.path.join(directory, name + ".h5"), "w") as f:
            f.create_dataset("train/features", data=rows, **storage)
            f.create_dataset("validation/features", data=rows[:8])


LARGE_SHAPE, LARGE_CHUNK_ROWS = (12945, 360, 167), 16


def loader_large(directory):
    """The reference load at a quarter of its rows; one stored chunk stands for all, so that it is made in seconds."""
    import h5py
    path, shape, chunk = os.path.join(directory, "large.h5"), LARGE_SHAPE, (LARGE_CHUNK_ROWS, *LARGE_SHAPE[1:])
    values = numpy.round(numpy.random.default_rng(6).standard_normal(chunk) * 4).astype(numpy.float32) / 4
    with h5py.File(path, "w") as f:
        rows = f.create_dataset("train/features", shape, numpy.float32, chunks=chunk, compression=4, shuffle=True)
        rows[:chunk[0]] = values
        mask, stored = rows.id.read_direct_chunk((0, 0, 0))
        for at in range(chunk[0], shape[0], chunk[0]):
            rows.id.write_direct_chunk((at, 0, 0), stored, mask)
    return path


class LoaderRun:
    """A loaderd alone, serving a run of its own; `read` asks it as a consumer would."""

    def __init__(self, directory, *settings):
        self.directory = os.path.join(directory, "run-%d" % len(os.listdir(directory)))
        config = self.directory + ".yaml"
        with open(config, "w") as f:
            f.write("name: bench\ndata: {file: %s/gzip.h5}\nmodel: {layers: [{type: linear, out: 2}]}\n"
                    "tasks: [{name: A}]\n" % directory)
        words = [w for s in settings for w in ("--set", s)]
        binaries = os.path.dirname(PROBE)
        subprocess.run([os.path.join(binaries, "prepare"), "run", "--config", config, "--run", self.directory, *words],
                       check=True, stdout=subprocess.DEVNULL)
        with open(self.directory + ".log", "wb") as log:
            self.process = subprocess.Popen([os.path.join(binaries, "loaderd"), "--run", self.directory],
                                            stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def read(self, path, **arguments):
        return output_of(os.path.join(os.path.dirname(PROBE), "loader_probe"), self.directory, path, "train",
                         *("%s=%d" % a for a in arguments.items()))

    def receipt(self):
        """The last one of the report."""
        subprocess.run([os.path.join(os.path.dirname(PROBE), "monitord"), "--report", self.directory], check=True,
                       stdout=subprocess.DEVNULL)
        with open(os.path.join(self.directory, "report/report.json")) as f:
            return json.load(f)["receipts"][-1]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()


def peer_loader(*arguments):
    return output_of(PYTHON, os.path.join(HERE, "peer_loader.py"), *arguments)


def row_us(timings, key):
    return statistics.median(1e6 * t[key] / t["rows"] for t in timings)


def loader_shuffled(loader, path, runs, compared):
    """Either side with fewer and more threads or processes; what counts is the better one."""
    ours, chunks, workers = {"auto": [], "2": []}, [], {0: [], 2: []}
    with LoaderRun(os.path.dirname(path), "loader.num_workers=2") as both:
        for _ in range(LOADER_REPEATS * runs):
            ours["auto"].append(loader.read(path, epochs=10))
            ours["2"].append(both.read(path, epochs=10))
            chunks.append(peer_loader("chunks", path, 3))
            for n in workers:
                workers[n].append(peer_loader("dataloader", path, n, 4))

    def best(timings, key):
        return min(row_us(t, key) for t in timings.values())
    record("loader-shuffled-wall", "us a row, best of num_workers auto and 2; DataLoader + h5py, best of 0 and 2 workers",
           best(ours, "seconds"), best(workers, "seconds"), 500, compared)
    record("loader-shuffled-cpu", "CPU us a row, h5py by whole chunks", best(ours, "cpu_seconds"),
           row_us(chunks, "cpu_seconds"), 2.5, compared)


def page_cache_drop(path):
    with open(path, "rb") as f:
        os.fsync(f.fileno())
        os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def page_cache_renew(path):
    """As reading the file once leaves it: in large pieces. What was written, or has lain there for long, may be in single
    pages all over the memory, which the kernel copies at half the speed (6 GB/s instead of 14): how much of either there
    is changes from minute to minute, and with it what is measured, of both sides."""
    page_cache_drop(path)
    with open(path, "rb") as f:
        while f.read(1 << 20):
            pass


def loader_sequential(loader, paths, runs, compared):
    """Beside H5Dread, which has one thread, we have one or more; its array stands where numpy puts it or on a page, and
    it has a cache for chunks, as libhdf5 sets it up, or none: what counts is the best one of each side."""
    with LoaderRun(os.path.dirname(paths["gzip"]), "loader.num_workers=0") as alone:
        for name, (epochs, bar) in LOADER_SEQUENTIAL.items():
            ours, theirs = {"auto": [], "0": []}, {setting: [] for setting in PEER_SETTINGS[name]}
            for _ in range(LOADER_REPEATS * runs):
                page_cache_renew(paths[name])
                for workers, side in (("auto", loader), ("0", alone)):
                    ours[workers].append(side.read(paths[name], epochs=epochs, shuffle=0))
                for setting, timings in theirs.items():
                    timings.append(peer_loader("whole", paths[name], epochs // 2 // len(theirs), *setting))

            def best(side):
                return min(side, key=lambda setting: row_us(side[setting], "cpu_seconds"))
            mine, peer = best(ours), best(theirs)
            record("loader-%s-cpu" % name,
                   "CPU us a row, spans of %.1f MiB, num_workers %s; H5Dread of everything to byte %d of a page, cache "
                   "of %d KiB" % (ours[mine][0]["span_rows"] * LOADER_VALUES * 4 / 2 ** 20, mine, peer[0],
                                  peer[1] >> 10),
                   row_us(ours[mine], "cpu_seconds"), row_us(theirs[peer], "cpu_seconds"), bar, compared)


def memory_record(name, read, chunk_bytes, compared):
    workers = max(1, os.cpu_count() // 2)
    record(name, "MiB besides the arena (PSS)", read["pss_bytes"] / 2 ** 20, None, None, compared,
           smaller_bar=32 + workers * 2 * chunk_bytes / 2 ** 20)


def loader_large_bench(directory, runs):
    """A file of 3.1 GB of rows where the run may plan with half as much as is stored (memory.host_limit_mb only; the
    machine may have more): what was read is dropped."""
    path = loader_large(directory)
    rows, row_bytes, chunk_rows = LARGE_SHAPE[0], LARGE_SHAPE[1] * LARGE_SHAPE[2] * 4, LARGE_CHUNK_ROWS
    stored, first = os.path.getsize(path), []
    with LoaderRun(directory, "loader.receipt=true", "memory.host_limit_mb=%d" % (stored // 2 ** 21)) as loader:
        for _ in range(runs):
            page_cache_drop(path)
            first.append(loader.read(path, epochs=0)["first_row_s"])
        read, receipt = loader.read(path, epochs=1), loader.receipt()
    if receipt["rows"] != rows or receipt["digest"] != read["digest"]:
        sys.exit("loader: the receipt says %s, the rows %s" % (receipt, read))
    compared = "its rows are one chunk repeated, digest %s; %.0f MB stored" % (read["digest"], stored / 1e6)
    record("loader-large-first-row", "s, %d x %d x %d float32, gzip-4 + shuffle, none of it cached" % LARGE_SHAPE,
           statistics.median(first), None, None, compared, smaller_bar=1)
    record("loader-large-amplification", "bytes decoded / bytes delivered, file twice memory.host_limit_mb",
           receipt["amplification"], None, None, compared, smaller_bar=1.0)
    record("loader-large-bytes-read", "bytes read / bytes stored, the same", receipt["bytes_read"] / stored, None, None,
           compared, smaller_bar=1.01)
    memory_record("loader-large-memory", read, chunk_rows * row_bytes, compared)


def bench_loader(runs):
    with tempfile.TemporaryDirectory() as directory:
        loader_files(directory)
        paths = {name: os.path.join(directory, name + ".h5") for name in LOADER_FILES}
        with LoaderRun(directory) as loader:
            digests = {name: loader.read(path)["digest"] for name, path in paths.items()}
            peer = peer_loader("digest", paths["gzip"])["digest"]
            if set(digests.values()) != {peer}:
                sys.exit("loader: digests differ: h5py %s, loaderd %s" % (peer, digests))
            compared = "digest of all rows %s" % peer
            loader_shuffled(loader, paths["gzip-shuffle"], runs, compared)
            loader_sequential(loader, paths, runs, compared)
            long = loader.read(paths["gzip-shuffle"], epochs=100)
            plain, told = [], []
            with LoaderRun(directory, "loader.receipt=true") as telling:
                for _ in range(LOADER_REPEATS * runs):
                    for timings, side in ((plain, loader), (told, telling)):
                        timings.append(side.read(paths["gzip-shuffle"], epochs=20))
                receipt = telling.receipt()
        if receipt["rows"] != LOADER_ROWS or receipt["digest"] != peer:
            sys.exit("loader: the receipt says %s" % receipt)
        record("loader-receipt", "CPU us a row with receipts; peer: without", row_us(told, "cpu_seconds"),
               row_us(plain, "cpu_seconds"), 0.9, compared)
        record("loader-amplification", "bytes decoded / bytes delivered", receipt["amplification"], None, None, compared,
               smaller_bar=1.0)
        memory_record("loader-memory", long, LOADER_CHUNK * LOADER_VALUES * 4, compared)
        record("loader-growth", "MiB over 100 epochs", long["pss_growth_bytes"] / 2 ** 20, None, None, compared,
               smaller_bar=1)
        loader_large_bench(directory, runs)
