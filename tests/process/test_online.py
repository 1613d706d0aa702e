"""Online EWC: the tasks that a task protects are one term, about the newest one's weights."""
import json
import os
import subprocess

from harness import limit, skip
from small_run import BINARIES, LAYERS, trained

try:
    import h5py
    import numpy as np
    from fisher_file import fisher_vector
except ImportError:
    np = None

PIPELINE = """name: three
data: {scale: 0.01}
model:
  layers:
%s
training: {batch_size: 64, threads: 2}
continual_learning:
  ewc_config:
    {mode: %%s, gamma: %%s, lambda: 1e5, fisher_computation: {block_size: 1000, compression: gzip}}
tasks:
  - {name: A, epochs: 1}
  - {name: B, epochs: 1, from: A, permute_features: 3}
  - {name: C, epochs: 1, from: B, ewc: %%s, permute_features: 5}
""" % "\n".join("    - {type: %s}" % line for line in LAYERS)


def ended(name, mode, gamma, protected):
    run, _, _ = trained(name, pipeline=PIPELINE % (mode, gamma, protected))
    with h5py.File(run.path("checkpoints/task-C.h5")) as f:
        return run, [f["parameters/" + n][:] for n in ("0.weight", "0.bias", "2.weight", "2.bias")]


def values(run, name):
    return fisher_vector(run.path("fisher", name + ".h5")).astype(np.float64)


@limit(120)
def test_tasks_add_up_to_one_term():
    if np is None:
        skip("python3-h5py or python3-numpy is not installed")
    half, weights = ended("half", "online", 0.5, "[B, A]")  # the run's order counts, not the list's
    assert sorted(os.listdir(half.path("fisher"))) == ["A.h5", "B.h5", "B.online.h5"]
    merged, wanted = values(half, "B.online"), 0.5 * values(half, "A") + values(half, "B")
    assert np.linalg.norm(merged - wanted) < 1e-6 * np.linalg.norm(wanted)
    with h5py.File(half.path("fisher/B.online.h5")) as f, h5py.File(half.path("checkpoints/task-B.h5")) as b:
        assert f.attrs["parameters_sha256"] == b.attrs["parameters_sha256"]
        assert f.attrs["estimator"].decode().startswith("online: 2 tasks, gamma 0.5; exact: ")
        assert 0 < f.attrs["noise"] < 1
    os.makedirs(half.path("report"), exist_ok=True)
    subprocess.run([os.path.join(BINARIES, "monitord"), "--report", half.directory], check=True, capture_output=True)
    with open(half.path("report/report.json")) as f:
        state = json.load(f)["ewc_state"]
    assert [(s["task"], s["form"], s["bytes"]) for s in state] == [
        (task, "gzip", os.path.getsize(half.path("fisher", name + ".h5")))
        for task, name in (("A", "A"), ("B", "B"), ("B, online", "B.online"))], state
    # nothing of A is left at gamma 0: the bits of a task that protects B alone
    _, none = ended("none", "online", 0, "[A, B]")
    alone, separate = ended("alone", "separate", 1, "[B]")
    assert all(np.array_equal(a, b) for a, b in zip(none, separate))
    assert not all(np.array_equal(a, b) for a, b in zip(weights, separate))
    assert sorted(os.listdir(alone.path("fisher"))) == ["B.h5"]
    # a file without its end is seen by trainerd, one with another byte in a block by fisherd; both are made again
    os.truncate(half.path("fisher/B.h5"), 3000)
    with h5py.File(half.path("fisher/A.h5")) as f:
        chunk = f["blocks/00001/values"].id.get_chunk_info(0)
    with open(half.path("fisher/A.h5"), "r+b") as f:
        f.seek(chunk.byte_offset + chunk.size - 1)  # of zlib's checksum
        last = f.read(1)[0]
        f.seek(-1, os.SEEK_CUR)
        f.write(bytes([last ^ 1]))
    with half:
        os.remove(half.path("fisher/B.online.h5"))
        for name in os.listdir(half.path("checkpoints")):
            if name != "task-A.h5" and name != "task-B.h5" and not name.endswith("-0000000022-2.h5"):
                os.remove(half.path("checkpoints", name))
        half.start("loaderd", "fisherd", "trainerd")
        assert half.wait("fisherd") == 111
        assert "fisher/A.h5 is removed, to be made again: cannot read data set" in half.log("fisherd"), half.log("fisherd")
        half.start("fisherd")
        assert half.wait("trainerd") == 0, half.log("trainerd")
    assert np.array_equal(values(half, "B.online"), merged)
    with h5py.File(half.path("checkpoints/task-C.h5")) as f:
        assert np.array_equal(f["parameters/0.weight"][:], weights[0])
