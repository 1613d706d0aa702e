"""The stored forms of the Fisher information, read by h5py and a page of numpy that knows only docs/FISHER.md: bit for bit
what the C reader has; and the way to disk in bounded memory."""
import json
import os
import subprocess
import zlib

from harness import skip
from small_run import BINARIES

try:
    import h5py
    import numpy as np
    from fisher_file import fisher_vector
except ImportError:
    h5py = np = None

PROBE = os.path.join(BINARIES, "fisher_probe")
SHAPES = [("0.weight", 60, 90), ("0.bias", 0, 60), ("2.weight", 1, 7000), ("4.weight", 200, 300), ("4.bias", 0, 1)]
FORMS = ("float32", "gzip", "int8", "int4", "lowrank", "log_rank1")


def needed():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")


def probe(*words):
    out = subprocess.run([PROBE, *words], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def values_make(directory, seed=7):
    """F of rows and columns that differ a lot, with zeros: single ones, whole rows, whole columns."""
    random, parts = np.random.default_rng(seed), []
    for _, rows, columns in SHAPES:
        rows = max(rows, 1)
        f = np.exp(random.normal(-9, 1, (rows, columns)) + random.normal(0, 2, (rows, 1)) + random.normal(0, 2, columns))
        f[random.random(f.shape) < 0.1] = 0
        if rows > 9:
            f[3], f[:, 5] = 0, 0
        parts.append(f.astype(np.float32).ravel())
    os.makedirs(directory, exist_ok=True)
    values = np.concatenate(parts)
    values.tofile(os.path.join(directory, "values.f32"))
    with open(os.path.join(directory, "tensors.txt"), "w") as f:
        f.writelines("%s %d %d\n" % s for s in SHAPES)
    return values


def test_numpy_reads_every_form_bit_for_bit():
    needed()
    values = values_make("forms").astype(float)
    for form in FORMS:
        for block in (1000000, 6000):  # the second cuts tensors, inside a row too
            told = probe("store", "forms", "form=" + form, "block=%d" % block, "threads=2")
            ours = np.fromfile("forms/decoded.f32", np.float32)
            theirs = fisher_vector("forms/out.h5")  # digests, sizes and ranges are checked in it
            assert np.array_equal(ours, theirs), form
            error = np.linalg.norm(theirs - values) / np.linalg.norm(values)
            assert abs(error - told["error"]) <= 1e-4 * error, (form, error, told)
            assert not ((theirs == 0) & (values > 0)).any(), form
            assert form == "lowrank" or (theirs[values == 0] == 0).all(), form
            with h5py.File("forms/out.h5") as f:
                assert f.attrs["compression"].decode() == form and f.attrs["error"] == f.attrs["error"]
                assert abs(f.attrs["trace"] - values.sum()) < 1e-9 * values.sum()
                assert abs(f.attrs["bytes_per_parameter"] * len(values) - told["bytes"]) < 1


def test_codes_are_no_larger_than_gzip_makes_them():
    needed()
    values_make("codes")
    for step in (0.08, 0.16, 0.346, 1):
        probe("store", "codes", "step=%g" % step)
        with h5py.File("codes/out.h5") as f:
            codes = f["blocks/00000/codes"]
            data, chunk = codes[:].tobytes(), codes.chunks[0]
            gzip = sum(len(zlib.compress(data[i:i + chunk], 6)) for i in range(0, len(data), chunk))
            assert codes.id.get_storage_size() <= gzip, (step, codes.id.get_storage_size(), gzip)


def test_memory_is_that_of_a_block_whatever_the_model():
    needed()
    small, large = (probe("stream", ".", "parameters=%d" % n) for n in (5000000, 50000000))
    assert large["parameters"] > 49e6 and large["blocks"] > 45
    assert large["peak_bytes"] < small["peak_bytes"] + (4 << 20), (small, large)
    assert large["peak_bytes"] < 64 << 20, large
