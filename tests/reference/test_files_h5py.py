"""What h5py and h5dump, which know nothing of this house, read in the checkpoints and Fisher files of a real run; and
the Fisher information in it against a PyTorch loop with batch size 1 in float64."""
import hashlib
import os
import subprocess

from harness import limit, skip
from small_run import CLASSES, FEATURES, HIDDEN, ROWS, trained

try:
    import h5py
    import numpy as np
    import torch
    from fisher_file import fisher_blocks
except ImportError:
    h5py = np = torch = None

TENSORS = [("0.weight", (HIDDEN, FEATURES)), ("0.bias", (HIDDEN,)), ("2.weight", (CLASSES, HIDDEN)), ("2.bias", (CLASSES,))]
PARAMETERS = sum(int(np.prod(s)) for _, s in TENSORS) if np else 0
BAR = 1e-5
EXACT = ("continual_learning.ewc_config.fisher_computation.compression=gzip",)


def needed():
    if h5py is None:
        skip("python3-h5py, python3-numpy or python3-torch is not installed")


def digest(arrays):
    """The digest of the house, from its description: a line of name, type, rank and sizes, then the bytes."""
    sha = hashlib.sha256()
    for name, a in arrays:
        sha.update(("%s f32 %d %s\n" % (name, a.ndim, " ".join(map(str, a.shape)))).encode())
        sha.update(np.ascontiguousarray(a, "<f4").tobytes())
    return sha.hexdigest()


def test_checkpoint_is_read_by_h5py():
    needed()
    run, _, _ = trained()
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        assert f.attrs["step"] == (ROWS + 63) // 64 and f.attrs["task_name"] and f.attrs["version"] == 6
        assert f.attrs["model"].decode().splitlines()[1:] == ["linear out=32", "relu", "linear out=5"]
        arrays = []
        for name, shape in TENSORS:
            for group in ("parameters", "moments/m", "moments/v"):
                d = f[group + "/" + name]
                assert d.shape == shape and d.dtype == np.dtype("<f4") and np.isfinite(d[:]).all()
                assert d.id.get_offset() % 64 == 0, "cannot be mapped"
            arrays.append(("parameters/" + name, f["parameters/" + name][:]))
        assert f.attrs["parameters_sha256"].decode() == digest(arrays)
        result = bytes(f["results"][:]).decode().splitlines()[0].split("\t")
        assert result[:3] == ["A", "A", "accuracy"] and 0 <= float(result[3]) <= 1
        assert result[5] == digest(arrays)


def test_h5dump_reads_both_files():
    needed()
    run, _, _ = trained()
    for path, words in (("checkpoints/task-B.h5", ("parameters_sha256", "0.weight", "moments")),
                        ("fisher/A.h5", ("estimator", "codes", "COMPRESSION DEFLATE", "SHUFFLE"))):
        for options in (("-p", "-H"), ()):
            try:
                out = subprocess.run(["h5dump", *options, run.path(path)], capture_output=True, text=True)
            except FileNotFoundError:
                skip("hdf5-tools is not installed")
            assert out.returncode == 0, out.stderr
            for word in words if options else words[:2]:
                assert word in out.stdout, (path, word)


def test_equal_runs_write_equal_files():
    needed()
    one, _, _ = trained("one")
    two, _, _ = trained("two", settings=("training.threads=1",))
    with open(one.path("fisher/A.h5"), "rb") as a, open(two.path("fisher/A.h5"), "rb") as b:
        assert a.read() == b.read(), "the Fisher file depends on the number of threads"
    three, _, _ = trained("three")
    for name in ("checkpoints/task-B.h5", "fisher/A.h5"):
        with open(one.path(name), "rb") as a, open(three.path(name), "rb") as b:
            assert a.read() == b.read(), name


def peer_fisher(run, features, targets):
    """Mean over the rows of the squared gradient of each row's own loss."""
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        weights = [torch.tensor(f["parameters/" + n][:].astype(np.float64), requires_grad=True) for n, _ in TENSORS]
    sums = [torch.zeros_like(w) for w in weights]
    x = torch.tensor(features.astype(np.float32) * np.float32(0.01)).double()
    for i in range(len(features)):
        hidden = torch.relu(torch.nn.functional.linear(x[i:i + 1], weights[0], weights[1]))
        out = torch.nn.functional.linear(hidden, weights[2], weights[3])
        loss = torch.nn.functional.cross_entropy(out, torch.tensor(targets[i:i + 1].astype(np.int64)))
        for s, g in zip(sums, torch.autograd.grad(loss, weights)):
            s += g * g
    return [(s / len(features)).numpy() for s in sums]


@limit(120)
def test_fisher_information_is_that_of_a_loop_with_batch_size_1():
    needed()
    run, features, targets = trained(settings=EXACT)
    found = fisher_blocks(run.path("fisher/A.h5"))
    vector, blocks = np.concatenate([values for _, _, values in found]), [(first, names) for first, names, _ in found]
    # 16 of 32 rows of 0.weight; the other 16 and the bias; the last layer, which is not divided
    assert blocks == [(0, ["0.weight"]), (960, ["0.weight", "0.bias"]), (1952, ["2.weight", "2.bias"])], blocks
    with h5py.File(run.path("fisher/A.h5")) as f:
        assert vector.size == PARAMETERS == f.attrs["parameters"] and f.attrs["samples"] == ROWS
        assert abs(f.attrs["trace"] - vector.astype(np.float64).sum()) < 1e-9 * f.attrs["trace"]
        with h5py.File(run.path(f.attrs["checkpoint"].decode())) as c:
            assert c.attrs["parameters_sha256"] == f.attrs["parameters_sha256"]
    at = 0
    for (name, shape), wanted in zip(TENSORS, peer_fisher(run, features, targets)):
        ours = vector[at:at + wanted.size].reshape(shape).astype(np.float64)
        at += wanted.size
        error = ours - wanted
        relative = np.linalg.norm(error) / np.linalg.norm(wanted)
        assert relative <= BAR, (name, relative)
        assert np.abs(error).max() <= BAR * np.abs(wanted).max(), (name, np.abs(error).max())


def test_no_temporary_is_left():
    needed()
    run, _, _ = trained()
    for directory in ("checkpoints", "fisher"):
        for name in os.listdir(run.path(directory)):
            assert ".tmp" not in name and not name.endswith(".part"), name
