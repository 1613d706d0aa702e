"""model.pretrained: what tasks begin with is the file's weights, by name and shape; heads are exchanged, other names are
mapped, wrong files are refused in one sentence, and a file that changed under a run is not taken for the old one."""
import os

from harness import limit, skip
from small_run import CLASSES, FEATURES, HIDDEN, ROWS, SmallRun, data_write, report, trained

try:
    import h5py
    import numpy as np
    import safetensors_file
except ImportError:
    h5py = None

STILL = "training.learning_rate=0"  # a run that leaves its weights as they began
FROM_START = "tasks.B.from=start"


def state(classes=CLASSES, seed=1):
    """What a file for the small run's model holds."""
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    random = np.random.default_rng(seed)
    return {name: random.standard_normal(shape).astype(np.float32) * np.float32(0.1) for name, shape in (
        ("0.weight", (HIDDEN, FEATURES)), ("0.bias", (HIDDEN,)),
        ("2.weight", (classes, HIDDEN)), ("2.bias", (classes,)))}


def begun(arrays, *settings, directory="run", path="in.safetensors"):
    """A run whose tasks begin with that file: (run, its weights at the end of task A)."""
    if arrays is not None:
        safetensors_file.write(path, arrays, {"format": "pt"})
    run, _, _ = trained(directory, settings=("model.pretrained=" + os.path.abspath(path), *settings))
    return run, weights_of(run, "task-A.h5")


def weights_of(run, name):
    with h5py.File(run.path("checkpoints", name)) as f:
        return {n: d[:] for n, d in f["parameters"].items()}


def equal(a, b):
    return set(a) == set(b) and all(np.array_equal(a[n], b[n]) for n in a)


@limit(180)
def test_all_tensors_of_every_type_are_taken():
    whole = state()
    run, weights = begun(whole, STILL)
    assert equal(weights, whole)
    assert equal(weights_of(run, "task-B.h5"), whole)  # begins where A ended, which did not move
    told = report(run)["pretrained"]
    assert told["tensors_taken"] == 4 and told["fresh"] == told["unused"] == "" and len(told["sha256"]) == 64
    assert "4 tensors of" in open(run.path("report/report.md")).read()
    mixed = {"0.weight": whole["0.weight"].astype(np.float16), "0.bias": whole["0.bias"].astype(np.float64) / 3,
             "2.weight": safetensors_file.bfloat16(whole["2.weight"]), "2.bias": whole["2.bias"]}
    _, weights = begun(mixed, STILL, directory="mixed")
    assert np.array_equal(weights["0.weight"], mixed["0.weight"].astype(np.float32))
    assert np.array_equal(weights["0.bias"], mixed["0.bias"].astype(np.float32))
    assert np.array_equal(weights["2.weight"].view(np.uint32) >> 16, mixed["2.weight"])
    assert not (weights["2.weight"].view(np.uint32) & 0xffff).any()


@limit(180)
def test_a_head_is_exchanged_and_names_are_mapped():
    fresh, _, _ = trained("fresh", settings=(STILL,))
    fresh = weights_of(fresh, "task-A.h5")
    for name, file, settings in (
            ("shape", state(classes=9), ()),
            ("same", state(), ()),  # a fresh head stays fresh where the file has one of that shape
            ("absent", {n: a for n, a in state().items() if n[0] == "0"}, ()),
            ("mapped", {"body." + n[2:]: a for n, a in state().items() if n[0] == "0"},
             ("model.pretrained_map=0:body",)),
            ("backbone", state(classes=9), ("training.backbone_layers=2",)),
            ("bare", {n[2:]: a for n, a in state().items() if n[0] == "0"}, ("model.pretrained_map=0:",))):
        run, weights = begun(file, STILL, "model.pretrained_head=fresh", *settings, directory=name)
        assert np.array_equal(weights["0.weight"], state()["0.weight"]), name
        assert np.array_equal(weights["2.weight"], fresh["2.weight"]), name
        assert np.array_equal(weights["2.bias"], fresh["2.bias"]), name
        told = report(run)["pretrained"]
        assert told["tensors_taken"] == 2 and told["fresh"] == "2.weight, 2.bias", told
        assert told["unused"] == ("2.bias, 2.weight" if name in ("shape", "same", "backbone") else ""), told


@limit(180)
def test_a_checkpoint_is_such_a_file_too():
    if h5py is None:
        skip("python3-h5py or python3-numpy is not installed")
    first, _, _ = trained("first")
    path = first.path("checkpoints/best-A.h5")
    _, weights = begun(None, STILL, "seed=5", directory="second", path=path)
    assert equal(weights, weights_of(first, "best-A.h5"))
    with h5py.File(path) as f:
        offset = f["parameters/0.weight"].id.get_offset()
    with open(path, "rb") as f:
        data = bytearray(f.read())
    data[offset] ^= 1
    with open("bent.h5", "wb") as f:
        f.write(data)
    assert "is damaged" in refused("bent.h5")


def refused(path, *settings):
    """The sentence that trainerd ends with."""
    if not os.path.exists("data.h5"):
        data_write("data.h5")
    name = "refused%d" % len(os.listdir("."))
    run = SmallRun(name, "data.h5", ROWS, ("model.pretrained=" + os.path.abspath(path), *settings))
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 100, run.log("trainerd")
    assert not os.listdir(run.path("checkpoints"))
    return run.log("trainerd").strip().splitlines()[-1]


@limit(180)
def test_what_does_not_fit_is_one_sentence():
    def file(**changes):
        arrays = state()
        for name, array in changes.items():
            arrays[name[1:].replace("_", ".", 1)] = array
        safetensors_file.write("x.safetensors", arrays)
        return "x.safetensors"
    whole = state()
    assert "2.weight is [5, 32], that of" in refused(file(_2_weight=np.zeros((9, HIDDEN), np.float32)))
    assert "is [160]" in refused(file(_2_weight=np.zeros(160, np.float32)))
    assert "0.weight is [32, 60]" in refused(file(_0_weight=np.zeros((FEATURES, HIDDEN), np.float32)),
                                             "model.pretrained_head=fresh")
    assert "0.weight is [32, 60]" in refused(file(_0_weight=np.zeros((3, 3), np.float32)), "model.pretrained_head=fresh",
                                             "training.backbone_layers=1")
    assert "of type I8; accepted" in refused(file(_0_bias=np.zeros(HIDDEN, np.int8)))
    broken = whole["2.bias"].copy()
    broken[3] = np.nan
    assert "2.bias" in (said := refused(file(_2_bias=broken))) and "holds nan at place 3" in said
    assert "holds inf" in refused(file(_2_bias=np.full(CLASSES, 1e300)))
    del whole["2.bias"]
    safetensors_file.write("less.safetensors", whole)
    assert "2.bias" in (said := refused("less.safetensors")) and "under no name" in said, said
    assert "claims a header" in refused("data.h5.yaml" if os.path.exists("data.h5.yaml") else __file__)
    assert "cannot open" in refused("nowhere.safetensors")
    good = file()
    assert "which is not there" in refused(good, "model.pretrained_map=7:x")
    assert "twice" in refused(good, "model.pretrained_map=0:x 0:y")
    assert "no PLACE:NAME" in refused(good, "model.pretrained_map=0:x here")


@limit(180)
def test_a_file_that_changed_is_not_the_one_the_run_began_with():
    run, _ = begun(state(), FROM_START)
    whole = weights_of(run, "task-B.h5")
    for name in os.listdir(run.path("checkpoints")):  # as before task B began
        if name.endswith("-02.h5") or name in ("task-B.h5", "best-B.h5"):
            os.remove(run.path("checkpoints", name))
    os.rename("in.safetensors", "kept")
    for code, there in ((100, False), (100, True), (0, None)):
        if there:
            safetensors_file.write("in.safetensors", state(seed=2), {"format": "pt"})
        elif there is None:
            os.replace("kept", "in.safetensors")
        with run:
            run.start("loaderd", "fisherd", "trainerd")
            assert run.wait("trainerd") == code, run.log("trainerd")
        if code:
            assert ("is another file" if there else "cannot open") in run.log("trainerd"), run.log("trainerd")
    assert equal(weights_of(run, "task-B.h5"), whole)
    os.remove("in.safetensors")  # a run that does not need it any more
    with run:
        run.start("loaderd", "fisherd", "trainerd")
        assert run.wait("trainerd") == 0, run.log("trainerd")


@limit(180)
def test_killed_anywhere_the_end_is_the_same():
    whole = weights_of(begun(state(), FROM_START)[0], "task-B.h5")
    for kill_at in (1, 3, 6):
        run = SmallRun("killed%d" % kill_at, "data.h5", ROWS, (
            "model.pretrained=" + os.path.abspath("in.safetensors"), FROM_START, "training.checkpoint_every_s=0.01",
            "training.checkpoint_keep=1000"))
        with run:
            run.start("loaderd", "fisherd", "trainerd")
            run.until(lambda: len(os.listdir(run.path("checkpoints"))) >= kill_at
                      or run.processes["trainerd"].poll() is not None, "checkpoints")
            run.kill("trainerd")
            run.start("trainerd")
            assert run.wait("trainerd") == 0, run.log("trainerd")
        assert equal(weights_of(run, "task-B.h5"), whole), kill_at
