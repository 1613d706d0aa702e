"""make chunks-soak: files of which a reader has more to do than of any usual one, through loaderd to a consumer.

A script of its own, not part of tests/check.sh: making the files takes a minute and 1.1 GB of disk, which is given
back. Of each a line; exits 1 at the first that cannot be read, or whose reader takes more memory than it says.
"""
import json
import os
import subprocess
import sys
import tempfile
import zlib

import h5py
import numpy

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [TESTS, os.path.join(TESTS, "process")]
from small_run import BINARIES, SmallRun  # noqa: E402

LIMIT_S = 900
PROGRAM_BYTES = 12 << 20  # of loaderd and its reader, without what they know of a file


def dense(path, rows, shapes):
    """Rows of zeros, each a stored chunk of every data set of `shapes` (name: shape of a row, type); the others whole."""
    with h5py.File(path, "w") as f:
        for split, count in (("train", rows), ("validation", 100)):
            for name, (shape, kind) in shapes.items():
                made = f.create_dataset("%s/%s" % (split, name), (count, *shape), kind, chunks=(1, *shape))
                row, rest = bytes(made.dtype.itemsize * int(numpy.prod(shape))), (0,) * len(shape)
                for i in range(count):
                    made.id.write_direct_chunk((i, *rest), row)


def weighed_tokens(path, chunks):
    """Tokens in chunks of 4 Mi with float32 weights, of which 16 MiB a chunk have to be decoded for the fingerprint."""
    count = 4 << 20
    weights = numpy.random.default_rng(3).integers(0, 16, count).astype("f4")
    stored = {"tokens": ("u1", zlib.compress(bytes(count), 1)), "weights": ("f4", zlib.compress(weights.tobytes(), 1))}
    with h5py.File(path, "w") as f:
        f.attrs["fingerprint"] = "0123456789abcdef"
        for split, many in (("train", chunks), ("validation", 1)):
            f[split + "/doc_ptr"] = numpy.array([0, many * count])
            for name, (kind, chunk) in stored.items():
                made = f.create_dataset("%s/%s" % (split, name), (many * count,), kind, chunks=(count,), compression=1)
                for i in range(many):
                    made.id.write_direct_chunk((i * count,), chunk)


def output_of(program, *arguments):
    out = subprocess.run([os.path.join(BINARIES, program), *arguments], capture_output=True, text=True,
                         timeout=LIMIT_S)
    if out.returncode:
        sys.exit(out.stderr)
    return out.stdout


def described(run, *settings):
    words = [w for s in settings for w in ("--set", s)]
    out = output_of("loaderd", "--describe", "--config", run.directory + ".yaml", *words)
    return dict(line.split("=", 1) for line in out.splitlines())


def read(path):
    with SmallRun(path + "-run", path) as run:
        said = int(described(run)["train.kept_bytes"]) + PROGRAM_BYTES
        run.start("loaderd")
        run.until(lambda: os.path.exists(run.path("sockets/loader.door")), "no loaderd")
        got = json.loads(output_of("loader_probe", run.directory, os.path.abspath(path), "train"))
    print("%s: %d rows, %.1f s of CPU an epoch, %.1f MB, said %.1f" % (
        path, got["rows"], got["cpu_seconds"], got["pss_bytes"] / 1e6, said / 1e6), flush=True)
    if got["pss_bytes"] > said:
        sys.exit(1)
    os.remove(path)


def main():
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        dense("short-rows.h5", 1281167, {"features": ((48,), "u1")})
        read("short-rows.h5")
        dense("single-numbers.h5", 500000, {"features": ((1,), "f4"), "targets": ((), "u1")})
        read("single-numbers.h5")
        weighed_tokens("weighed.h5", 225)
        found = described(SmallRun("weighed-run", "weighed.h5"), "data.weights=weights")
        print("weighed.h5: fingerprint", found["train.fingerprint"], flush=True)
        os.chdir("/")


if __name__ == "__main__":
    main()
