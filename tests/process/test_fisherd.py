"""fisherd alone, asked by a Python client instead of trainerd: it answers every request, refuses what cannot be done
in one sentence without dying, and loses at most the block in work."""
import os
import shutil
import time

from harness import limit, skip
from small_run import CLASSES, FEATURES, HIDDEN, ROWS, SmallRun, data_write, report, trained

try:
    import h5py
    import msgpack
    import numpy as np
    import zmq
    from fisher_file import fisher_vector
except ImportError:
    zmq = None


class Client:
    def __init__(self, run, name="fisher.ctl"):
        self.socket = zmq.Context.instance().socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.connect("ipc://" + run.path("sockets", name))
        self.seq = 0

    def send(self, request, name=b"estimate"):
        self.seq += 1
        head = {"incarnation": 0, "seq": self.seq, "time_s": time.time()}
        self.socket.send_multipart([name, msgpack.packb({**head, **request})])

    def receive(self, timeout=20):
        """Name and fields of the next answer."""
        assert self.socket.poll(timeout * 1000), "no answer within %d s" % timeout
        name, body = self.socket.recv_multipart()
        return name.decode(), msgpack.unpackb(body)

    def ask(self, request):
        self.send(request)
        return self.receive()

    def result(self, request, timeout=30):
        """The last answer: estimated or refused."""
        name, m = self.ask(request)
        end = time.monotonic() + timeout
        while name == "estimating":
            assert time.monotonic() < end
            name, m = self.receive(timeout)
        return name, m


def loader_asked(run, data, **changes):
    """What loaderd answers to a request for the file."""
    client = Client(run, "loader.ctl")
    client.send({"file": os.path.abspath(data), "split": "train", "seed": 0, "shuffle": False, "streams": 0,
                 "span_rows": 0, "span_bytes_limit": 1 << 26, "verify": False, "features": "features",
                 "targets": "targets", "weights": "", "begins": False, "rest": False, "singly": False, "window": 256, "window_spans": 1, "batch_rows": 0, "slice_rows": 0, "epochs": [], **changes},
                b"open")
    name, answer = client.receive()
    assert name in ("opened", "rejected"), (name, answer)
    return name, answer


def fingerprint_of(run, data):
    """What loaderd says of the file; nothing where it rejects it."""
    return loader_asked(run, data)[1].get("fingerprint", "")


def request_for(run, data="data.h5", **changes):
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        digest, fingerprint = (f.attrs[name].decode() for name in ("parameters_sha256", "fingerprint"))
    if data != "data.h5":
        fingerprint = fingerprint_of(run, data)
    request = {"job": "A-1", "task": "A", "checkpoint": "checkpoints/task-A.h5", "digest": digest,
               "file": os.path.abspath(data), "split": "train", "fingerprint": fingerprint, "samples": ROWS,
               "scale": 0.01, "permute": False, "permute_seed": 0, "merge": "", "gamma": 1.0}
    return {**request, **changes}


def client_needs():
    """Skips the case that needs a client where there is none."""
    if zmq is None:
        skip("python3-zmq, python3-msgpack, python3-numpy or python3-h5py is not installed")


def begun(samples=ROWS, settings=()):
    """A trained run without its Fisher file."""
    client_needs()
    run, _, _ = trained(samples=samples, settings=settings)
    os.remove(run.path("fisher/A.h5"))
    return run


def vector(run, task="A"):
    return fisher_vector(run.path("fisher", task + ".h5"))


def noise_of(run, task):
    with h5py.File(run.path("fisher", task + ".h5")) as f:
        return float(f.attrs["noise"])


def test_streams_are_in_file_order_and_windows_hold_one_span_of_each():
    with begun() as run:
        run.start("loaderd")
        run.until(lambda: run.log("loaderd").count("ready"), "loaderd is not ready")
        name, m = loader_asked(run, "data.h5", streams=4, window_spans=4)
        assert name == "opened" and m["streams"] == 4, (name, m)
        for changes, words in (({"streams": 4, "window_spans": 4, "shuffle": True}, "streams are in file order"),
                               ({"streams": 4, "window_spans": 1}, "4 streams were asked for in windows of 1 spans")):
            name, m = loader_asked(run, "data.h5", **changes)
            assert name == "rejected" and m["permanent"] and words in m["reason"], (name, m)


def test_a_request_is_answered_as_often_as_it_comes():
    with begun() as run:
        run.start("fisherd")
        client, request = Client(run), request_for(run)
        for _ in range(3):  # there is no loaderd: the job waits
            name, m = client.ask(request)
            assert name == "estimating" and m["job"] == "A-1" and m["samples_done"] == 0 and m["samples"] > 0
        run.start("loaderd")
        name, m = client.receive(30)
        assert name == "estimated" and m["path"] == "fisher/A.h5" and m["samples"] == ROWS and m["trace"] > 0, m
        again, n = client.ask(request)
        assert again == "estimated" and all(n[k] == m[k] for k in ("job", "path", "digest", "samples", "trace"))
        with h5py.File(run.path("fisher/A.h5")) as f:
            assert f.attrs["digest"].decode() == m["digest"]
        before = os.stat(run.path("fisher/A.h5"))
        assert client.ask({**request, "samples": 1})[0] == "estimated"  # the job decides, not the rest
        after = os.stat(run.path("fisher/A.h5"))
        assert before.st_mtime_ns == after.st_mtime_ns and before.st_ino == after.st_ino


def test_jobs_wait_their_turn_and_take_the_samples_asked_for():
    with begun() as run:
        run.start("loaderd", "fisherd")
        client = Client(run)
        jobs = {"A-%d" % i: request_for(run, job="A-%d" % i, task="T%d" % i, samples=100 * i + 1) for i in range(4)}
        for request in jobs.values():
            client.send(request)
        done = {}
        while len(done) < len(jobs):
            name, m = client.receive(30)
            assert name in ("estimating", "estimated"), m
            if name == "estimated":
                done[m["job"]] = m
        for job, request in jobs.items():
            assert done[job]["samples"] == request["samples"]
            assert not os.path.exists(run.path("fisher", request["task"] + ".part"))
        assert client.ask(jobs["A-3"])[0] == "estimated"
        noise = [noise_of(run, "T%d" % i) for i in range(4)]  # of 1, 101, 201, 301 samples: two slices tell
        assert np.isnan(noise[:2]).all() and 1.05 < noise[2] / noise[3] < 1.5, noise
        # permuted features have another Fisher information, of the same trace at best by accident
        name, m = client.result(request_for(run, job="P", task="P", permute=True, permute_seed=7))
        assert name == "estimated" and not np.array_equal(vector(run, "P"), vector(run, "T3"))


def test_what_cannot_be_done_is_refused_in_one_sentence():
    with begun() as run:
        run.start("loaderd", "fisherd")
        client, digest = Client(run), request_for(run)["digest"]
        features = np.random.default_rng(5).random((ROWS, FEATURES), dtype=np.float32)
        features[333, 7] = np.nan
        data_write("nan.h5", features)
        data_write("label.h5", targets=np.full(ROWS, 5, np.uint8))
        data_write("float.h5", targets=np.full(ROWS, 1, np.float32))
        with h5py.File("narrow.h5", "w") as f:
            f["train/features"] = np.zeros((ROWS, FEATURES - 1), np.uint8)
            f["train/targets"] = np.zeros(ROWS, np.uint8)
        with open("text.h5", "w") as f:
            f.write("no HDF5")
        shutil.copy(run.path("checkpoints/task-A.h5"), run.path("checkpoints/short.h5"))
        os.truncate(run.path("checkpoints/short.h5"), 5000)
        for changes, words in (
                ({"data": "nan.h5"}, ("nan.h5", "row 333", "nan")),
                ({"data": "label.h5"}, ("label.h5", "class", "0 to 4")),
                ({"data": "float.h5"}, ("float.h5", "f32")),
                ({"data": "narrow.h5"}, ("59 features", "takes 60")),
                ({"data": "text.h5"}, ("text.h5",)),
                ({"data": "missing.h5"}, ("missing.h5",)),
                ({"split": "test"}, ("test",)),
                ({"fingerprint": "0" * 64}, ("data.h5", "has changed", "old file back")),
                ({"samples": 0}, ("no samples",)),
                ({"digest": digest[::-1]}, ("checkpoints/task-A.h5", digest, digest[::-1])),
                ({"checkpoint": "checkpoints/none.h5"}, ("checkpoints/none.h5", "No such file")),
                ({"checkpoint": "checkpoints/short.h5"}, ("checkpoints/short.h5", "truncated")),
                ({"checkpoint": "../other.h5"}, ("../other.h5", "inside the run")),
                ({"task": "../A"}, ("../A", "letters, digits")),
                ({"merge": "B ../A"}, ("B ../A", "not names of tasks"))):
            name, m = client.result(request_for(run, **{"job": "J", **changes}))
            assert name == "refused" and m["job"] == "J", (changes, name, m)
            for word in words:
                assert word.lower() in m["reason"].lower(), (changes, m["reason"])
            assert "\n" not in m["reason"]
        assert run.processes["fisherd"].poll() is None
        assert client.result(request_for(run))[0] == "estimated"
        assert sorted(os.listdir(run.path("fisher"))) == ["A.h5"]


def test_a_full_disk_ends_it_with_111_and_keeps_the_finished_blocks():
    """And where all are finished, the sums: one that a power cut then spoils is made of them."""
    run = begun()
    with run:
        run.start("loaderd", "fisherd")
        assert Client(run).result(request_for(run))[0] == "estimated"
        run.kill("fisherd")
        with h5py.File(run.path("fisher/A.h5")) as f:
            blocks = int(f.attrs["blocks"])
        whole = vector(run)
        os.remove(run.path("fisher/A.h5"))
        deaths, parts, count, spoiled = 0, 0, 2, ""
        while not os.path.exists(run.path("fisher/A.h5")):
            run.start("fisherd", environment={"FINETUNED_FAIL": "write:%d:ENOSPC" % count})
            run.until(lambda: os.path.exists(run.path("sockets/fisher.ctl")), "no socket")
            client = Client(run)
            while run.processes["fisherd"].poll() is None and not client.socket.poll(100):
                client.send(request_for(run))
            run.until(lambda: run.processes["fisherd"].poll() is not None
                      or os.path.exists(run.path("fisher/A.h5")), "neither an end nor a file")
            if not os.path.exists(run.path("fisher/A.h5")):
                assert run.processes["fisherd"].returncode == 111
                deaths += 1
                left = os.listdir(run.path("fisher/A.part")) if os.path.exists(run.path("fisher/A.part")) else []
                finished = [n for n in left if n.endswith(".h5")]
                assert len(finished) >= parts and not [n for n in left if "tmp" in n], left
                parts = len(finished)
                assert parts < blocks or {"sums-0", "sums-1", "half"} <= set(left), left
                if parts == blocks and not spoiled:
                    parts, spoiled = parts - 1, run.path("fisher/A.part", finished[0])
                    os.truncate(spoiled, 1000)
                    logged = len(run.log("fisherd"))
            run.kill("fisherd")
            count += 3
            assert count < 100
        assert deaths >= 3 and "No space left on device" in run.log("fisherd")
        log = run.log("fisherd")[logged:]
        assert "removed and made again" in log, log
        assert log.count("The estimate goes on") == log.count("samples=%d The estimate goes on" % ROWS) > 0, log
        os.makedirs(run.path("fisher/A.part"), exist_ok=True)  # a kill may have left it behind the commit
        with open(run.path("fisher/A.part/sums-1"), "w") as f:
            f.write("left")
        run.start("fisherd")
        assert client_result(run) == "estimated" and os.listdir(run.path("fisher")) == ["A.h5"]
        assert np.array_equal(vector(run), whole)


@limit(180)
def test_kill_9_at_any_moment_gives_the_same_file():
    """Which goes on behind the sums that were last made durable, or behind the last block."""
    run = begun(settings=("training.checkpoint_every_s=0.01",))
    random = np.random.default_rng(20260101)
    with run:
        run.start("loaderd", "fisherd")
        assert Client(run).result(request_for(run))[0] == "estimated"
        with open(run.path("fisher/A.h5"), "rb") as f:
            whole = f.read()
        for round in range(4):
            os.remove(run.path("fisher/A.h5"))
            kills = 0
            while not os.path.exists(run.path("fisher/A.h5")):
                kills += 1
                victim = "fisherd" if random.random() < 0.7 else "loaderd"
                end = time.monotonic() + random.random() * 0.05 * (2 + kills)  # a busy machine gets there, too
                while time.monotonic() < end and not os.path.exists(run.path("fisher/A.h5")):
                    client = Client(run)
                    client.send(request_for(run))
                    client.socket.poll(30)
                    client.socket.close()
                run.kill(victim)
                run.start(victim)
            with open(run.path("fisher/A.h5"), "rb") as f:
                assert f.read() == whole
        assert client_result(run) == "estimated"
        for name in os.listdir(run.path("fisher")):
            assert name == "A.h5" or name.startswith("A.h5.tmp-"), name


def client_result(run):
    return Client(run).result(request_for(run))[0]


def estimated(of, name, *settings, weighed=None, others=()):
    """Values and attributes of the estimate of a trained run's checkpoint in a run of other options, or of another file
    (with weights)."""
    data = weighed or "data.h5"
    with SmallRun(name, data, settings=[*others, *("continual_learning.ewc_config." + s for s in settings)]) as run:
        os.makedirs(run.path("checkpoints"), exist_ok=True)
        shutil.copy(of.path("checkpoints/task-A.h5"), run.path("checkpoints/task-A.h5"))
        run.start("loaderd", "fisherd")
        run.until(lambda: os.path.exists(run.path("sockets/fisher.ctl")), "no socket")
        other = {"file": os.path.abspath(data), "fingerprint": loader_asked(run, data, weights="weights")[1]["fingerprint"]} \
            if weighed else {}
        answer = Client(run).result(request_for(run, **other))
        assert answer[0] == "estimated", answer
        with h5py.File(run.path("fisher/A.h5")) as f:
            return vector(run), {**f.attrs}


def off(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def matrices(values):
    """The two matrices and two biases of the small model."""
    shapes, at = [(HIDDEN, FEATURES), (HIDDEN,), (CLASSES, HIDDEN), (CLASSES,)], 0
    for shape in shapes:
        yield values[at:at + np.prod(shape)].reshape(shape).astype(np.float64)
        at += int(np.prod(shape))


def cheap_estimators(run, exact_only, exact):
    """By row and column sums, which are the exact ones; and from the optimizer's second moments, exactly those."""
    values, attributes = estimated(run, "factored", exact_only, "fisher_computation.estimator=factored")
    assert attributes["estimator"].decode().startswith("factored: ") and np.isnan(attributes["noise"])
    for ours, wanted in zip(matrices(values), matrices(exact)):
        if wanted.ndim == 2:
            assert off(ours.sum(0), wanted.sum(0)) < 1e-5 and off(ours.sum(1), wanted.sum(1)) < 1e-5
            assert off(ours, np.outer(wanted.sum(1), wanted.sum(0)) / wanted.sum()) < 1e-5
        else:
            assert off(ours, wanted) < 1e-5
    print("factored: %.3f off" % off(values, exact))
    values, attributes = estimated(run, "adam", exact_only, "fisher_computation.estimator=adam")
    assert attributes["estimator"].decode().startswith("adam: ") and attributes["labels"].decode() == "none"
    assert attributes["samples"] == 0
    with h5py.File(run.path("checkpoints/task-A.h5")) as f:
        names = [n for layer in ("0", "2") for n in (layer + ".weight", layer + ".bias")]
        moments = np.concatenate([f["moments/v/" + n][:].ravel() for n in names]).astype(np.float64)
        steps = int(f.attrs["moment_steps"])
        assert steps == -(-ROWS // 64)
    assert off(values, moments / (1 - 0.999 ** steps) * 64) < 1e-6
    print("adam: %.3f off" % off(values, exact))


def test_labels_blocks_and_estimators_are_those_of_the_options():
    trained_run, exact = begun(), "fisher_computation.use_compression=false"
    found = {labels: estimated(trained_run, labels, exact, "fisher_labels=" + labels) for labels in ("true", "sampled", "all")}
    for labels, (_, attributes) in found.items():
        assert attributes["labels"].decode() == labels and attributes["samples"] == ROWS and attributes["blocks"] > 1
    # the classes are made up, the model all but undecided: drawn labels and all of them give the same up to their noise
    everything = found["all"][0]
    for labels, less in (("sampled", 0.5), ("true", 1.0)):
        assert 0.01 < off(found[labels][0], everything) < less, labels
    # one block, summed in memory: the same bits as from files
    whole, attributes = estimated(trained_run, "whole", exact, "fisher_computation.block_size=1000000")
    assert attributes["blocks"] == 1 and np.array_equal(whole, found["true"][0])
    assert abs(attributes["noise"] / found["true"][1]["noise"] - 1) < 1e-6
    cheap_estimators(trained_run, exact, found["true"][0])
    with SmallRun("gaussian", "data.h5", settings=("continual_learning.ewc_config.fisher_labels=gaussian",)) as run:
        run.start("loaderd", "trainerd")
        assert run.wait("trainerd") == 100
        assert "ewc_config: fisher_labels is gaussian, which the loss softmax_cross_entropy has not; accepted: true, sampled, all" \
            in run.log("trainerd")
    for settings, words in (
            (("training.optimizer=sgd",), "estimator is adam, but training.optimizer is sgd, which keeps no second moment"),
            (("continual_learning.ewc_config.fisher_labels=sampled",), "adam, which takes no labels, but fisher_labels is sampled")):
        estimator = "continual_learning.ewc_config.fisher_computation.estimator=adam"
        with SmallRun("adam-" + words[-6:], "data.h5", settings=(estimator, *settings)) as run:
            run.start("trainerd")
            assert run.wait("trainerd") == 100 and words in run.log("trainerd"), run.log("trainerd")


def planned_blocks(name, block_size, width, samples):
    run, _, _ = trained(name, samples=samples, layers=("linear, out: %d" % width, "relu", "linear, out: %d" % width, "relu", "linear, out: 5"),
                        settings=("continual_learning.ewc_config.fisher_computation.block_size=%d" % block_size,
                                  "training.batch_size=256"))
    memory = report(run)["memory"]
    for stage in ("fisherd", "trainerd"):
        planned, peak = memory["plan"][stage], memory["peak"][stage]
        print("%s: planned %.1f MiB, peak %.1f" % (stage, planned / 2 ** 20, peak / 2 ** 20))
        assert planned > 20 << 20 and peak <= planned + (4 << 20), memory


@limit(120)
def test_many_blocks_take_what_is_planned_for_one():
    """Pages of the sums' files and libhdf5's own tables of the file would else add up with the blocks."""
    if zmq is None:
        skip("python3-h5py is not installed")
    planned_blocks("blocks", 20000, 2000, samples=64)


@limit(120)
def test_large_blocks_leave_nothing_beside_the_next_one():
    """What encoded one would else be there while the next one's sums are, in the heap even when it is freed."""
    if zmq is None:
        skip("python3-h5py is not installed")
    for block_size in (1000000, 2000000):  # with sums of half of the samples
        planned_blocks("blocks-%d" % block_size, block_size, 2200, samples=128)
