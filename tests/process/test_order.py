"""The rows of an epoch and their order are the same whatever the threads, slots and batches, and whoever is killed."""
import json
import os
import random
import subprocess
import sys
import threading

from harness import limit, skip
from small_run import BINARIES, ROOT, SmallRun

try:
    import h5py
    import numpy
except ImportError:
    h5py = None

ROWS, EPOCHS, KILLS = 6007, 3, 100
WINDOW = 4  # spans, of 256 rows: 6 windows an epoch, the last chunk, span and window not full


def data_make():
    """Returns the digest of the rows as numpy finds it."""
    if h5py is None:
        skip("python3-numpy or python3-h5py is not installed")
    values = numpy.random.default_rng(3)
    features = values.standard_normal((ROWS, 40)).astype(numpy.float32)
    targets = values.integers(0, 9, ROWS).astype(numpy.uint8)
    with h5py.File("data.h5", "w") as f:
        for split in ("train", "validation"):
            f.create_dataset(split + "/features", data=features, chunks=(64, 40), shuffle=True, compression=4)
            f.create_dataset(split + "/targets", data=targets, chunks=(100,), shuffle=True, compression=4)
    sys.path.append(os.path.join(ROOT, "tests/bench"))
    from peer_loader import digest
    return digest(features, targets)


def probe(run, state, **arguments):
    """A consumer that reads EPOCHS epochs, or on from where `state` says: its exit code and what it printed."""
    done = subprocess.run([os.path.join(BINARIES, "order_probe"), run.directory, os.path.abspath("data.h5"), "train",
                           "state=" + state, "epochs=%d" % EPOCHS, "span_rows=256",
                           *("%s=%s" % a for a in arguments.items())], stdout=subprocess.PIPE, timeout=100)
    return done.returncode, json.loads(done.stdout) if done.returncode == 0 else None


def receipt(run):
    subprocess.run([os.path.join(BINARIES, "monitord"), "--report", run.directory], check=True,
                   stdout=subprocess.DEVNULL)
    with open(run.path("report/report.json")) as f:
        return json.load(f)["receipts"][-1]


def test_order_and_digest_do_not_depend_on_threads_slots_and_batches():
    digest, found = data_make(), {0: set(), 1: set()}
    for workers in (1, 2, 4):
        settings = ("loader.num_workers=%d" % workers, "loader.receipt=true")
        with SmallRun("run-%d" % workers, "data.h5", settings=settings) as run:
            run.start("loaderd")
            run.until(lambda: run.log("loaderd").count("ready"), "loaderd is not ready")
            for shuffle, window in ((1, WINDOW), (0, 1)):
                for slots in (window + 1, 2 * window):
                    for batch in (1, 64, 1000):
                        state = "state-%d-%d-%d-%d" % (workers, shuffle, slots, batch)
                        code, told = probe(run, state, shuffle=shuffle, slots=slots, batch=batch)
                        assert code == 0 and told["rows"] == EPOCHS * ROWS, (code, told)
                        assert told["digest"] == "%016x" % (EPOCHS * digest % 2 ** 64), told
                        found[shuffle].add(told["order"])
                        last = receipt(run)
                        assert last["digest"] == "%016x" % digest and last["rows"] == ROWS, last
    assert len(found[0]) == len(found[1]) == 1 and found[0] != found[1], found


class Supervised:
    """A loaderd that is started again whenever it ends; its ends are counted."""

    def __init__(self, run):
        self.run, self.ending, self.ends = run, False, 0
        self.run.start("loaderd")
        self.thread = threading.Thread(target=self.keep)
        self.thread.start()

    def keep(self):
        while True:
            self.run.processes["loaderd"].wait()
            if self.ending:
                return
            self.ends += 1
            self.run.start("loaderd")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.ending = True
        self.run.processes["loaderd"].kill()
        self.thread.join()


def killed_probe(run, events):
    """Read everything while at seeded rows the loader ("L") or the consumer ("C") is killed; the last one's words."""
    deaths, kills = 0, []
    for rows, who in [*events, (None, "end")]:
        if who == "L":
            kills.append(rows)
            continue
        more = {"kills": ",".join(map(str, kills))} if kills else {}
        code, told = probe(run, "state-killed", **more, **({"dies_at": rows} if who == "C" else {}))
        assert code == (-9 if who == "C" else 0), (code, rows, who)
        deaths, kills = deaths + (who == "C"), []
    return deaths, told


@limit(240)
def test_order_and_digest_survive_100_kills():
    digest, seed = data_make(), int(os.environ.get("TEST_SEED", "1"))
    rng = random.Random(seed)
    last = EPOCHS * ROWS - 200  # some batches are left after it
    events = sorted((rng.randrange(1, last), "LC"[i % 2]) for i in range(KILLS))
    with SmallRun("run", "data.h5", settings=("loader.num_workers=2",)) as run, Supervised(run) as loader:
        run.until(lambda: run.log("loaderd").count("ready"), "loaderd is not ready")
        whole = probe(run, "state-whole")[1]
        before = loader.ends
        deaths, told = killed_probe(run, events)
        print("seed", seed, "deaths of the consumer", deaths)
        assert told == whole and told["digest"] == "%016x" % (EPOCHS * digest % 2 ** 64), (told, whole)
        assert deaths == KILLS // 2
        run.until(lambda: loader.ends - before == KILLS // 2, "loaderd did not die %d times" % (KILLS // 2))
