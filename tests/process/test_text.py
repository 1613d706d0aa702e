"""`prepare text`: every byte of every document is there once, in its part; what is no document is passed over."""
import gzip
import os
import subprocess

import h5py
import numpy

from harness import limit
from runs import ROOT

PREPARE = os.path.join(ROOT, "build/release/bin/prepare")


def prepared(*options, command="text", source="corpus", code=0):
    with open("text.yaml", "w") as f:
        f.write("data: {prepare: text, source: %s, file: text.h5}\nmodel: {layers: [{type: linear, out: 256}]}\n"
                "tasks: [{name: A}]\n" % source)
    done = subprocess.run([PREPARE, command, "--config", "text.yaml", *([] if command == "check" else ["--out", "text.h5"]),
                           *(w for o in options for w in ("--set", "prepare." + o))],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done
    return done.stdout + done.stderr


def corpus_make(count=60):
    """Documents by name, in the order they are read in; some packed, one larger than several chunks."""
    rng, documents = numpy.random.default_rng(2), {}
    for i in range(count):
        name = "%02d/%s%d" % (i % 3, "ab"[i % 2], i)
        documents[name] = rng.integers(0, 256, 300_000 if i == 7 else int(rng.integers(1, 5000)), dtype="u1").tobytes()
    for name, data in documents.items():
        path = os.path.join("corpus", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with (gzip.open(path + ".gz", "wb") if name[3] == "b" else open(path, "wb")) as f:
            f.write(data)
    os.makedirs("corpus/.git")
    for path, data in (("corpus/01/empty", b""), ("corpus/.git/object", b"no"), ("corpus/.hidden", b"no")):
        with open(path, "wb") as f:
            f.write(data)
    os.symlink("00/a0", "corpus/link")
    os.mkfifo("corpus/pipe")
    return [documents[n] for n in sorted(documents, key=lambda n: (n[:3], n[3:] + (".gz" if n[3] == "b" else "")))]


def parts_read():
    with h5py.File("text.h5") as f:
        parts = []
        for part in ("train", "validation"):
            tokens, pointers = f[part + "/tokens"], f[part + "/doc_ptr"]
            assert tokens.dtype == "u1" and pointers.dtype == "u8" and tokens.chunks == (min(65536, len(tokens)),)
            assert pointers[0] == 0 and pointers[-1] == len(tokens)
            data = tokens[:].tobytes()
            parts.append([data[a:b] for a, b in zip(pointers[:-1], pointers[1:])])
        return parts


@limit(60)
def test_documents_come_back_whole_in_one_part_each():
    documents = corpus_make()
    said = prepared("validation_fraction=0.2")
    assert "60 documents" in said and "1 empty files were left out" in said, said
    train, validation = parts_read()
    assert len(train) == 48 and len(validation) == 12
    places = [documents.index(d) for d in train], [documents.index(d) for d in validation]
    assert sorted(places[0] + places[1]) == list(range(60)) and all(p == sorted(p) for p in places)
    assert min(places[1]) < 30, "not at random"
    prepared("validation_fraction=0.2", "split_seed=2")
    assert parts_read()[1] != validation
    prepared("validation_fraction=0.2", "split=last")
    assert parts_read() == [documents[:48], documents[48:]]
    said = prepared(command="check")
    assert "train/doc_ptr: u64 [49], documents of " in said and "validation/tokens: u8 [" in said, said
    for weights, words in ((None, "train: there is no data set `w`, which data.weights names"),
                           (lambda n: numpy.ones(n - 1), "numbers, where there are "),
                           (lambda n: numpy.arange(n) - 5., "train/w has a weight in token 1 that is negative"),  # the first is only read
                           (lambda n: numpy.arange(n) == 0, "rows has a target that counts"),
                           (lambda n: numpy.arange(n) == 1, "")):
        with h5py.File("text.h5", "r+") as f:
            for split in ("train", "validation") if weights else ():
                f.pop(split + "/w", None)
                f[split + "/w"] = weights(len(f[split + "/tokens"])).astype("f4")
        said = subprocess.run([PREPARE, "check", "--config", "text.yaml", "--set", "data.weights=w"], capture_output=True, text=True)
        assert said.returncode == (100 if words else 0) and words in said.stderr, said
    assert "train/w: f32 [" in said.stdout and "values 0 to 1" in said.stdout, said


@limit(60)
def test_of_a_single_document_the_end_evaluates():
    data = bytes(range(256)) * 700
    with gzip.open("corpus", "wb") as f:
        f.write(data)
    said = prepared("validation_fraction=0.25")
    assert "the end of the only document" in said, said
    assert parts_read() == [[data[:len(data) * 3 // 4]], [data[len(data) * 3 // 4:]]]
    with open("corpus", "wb") as f:
        f.write(b"ab")
    prepared()
    assert parts_read() == [[b"a"], [b"b"]]


@limit(60)
def test_file_is_made_again_when_a_document_changes():
    corpus_make(9)
    assert "up to date" not in prepared()
    assert "up to date" in prepared()
    assert "up to date" not in prepared("validation_fraction=0.5")
    with open("corpus/00/new", "wb") as f:
        f.write(b"x")
    assert "up to date" not in prepared("validation_fraction=0.5")
    os.utime("corpus/00/new", (1, 1))
    assert "up to date" not in prepared("validation_fraction=0.5")
    os.remove("corpus/00/new")
    assert "up to date" not in prepared("validation_fraction=0.5")


@limit(60)
def test_bad_sources_have_a_sentence_and_leave_the_old_file():
    corpus_make(9)
    prepared()
    before = open("text.h5", "rb").read()

    def refused(source, *words):
        said = prepared(source=source, code=100)
        assert said.count("\n") == 1 and all(w in said for w in words), (words, said)
        assert open("text.h5", "rb").read() == before and not [n for n in os.listdir(".") if ".tmp" in n]

    refused("absent", "cannot read absent", "No such file")
    os.mkdir("nothing")
    refused("nothing", "nothing has 0 bytes in 0 files")
    with open("nothing/byte", "wb") as f:
        f.write(b"x")
    refused("nothing", "1 bytes in 1 files; at least 2")
    packed = gzip.compress(b"abc" * 9999)
    for data, why in ((packed[:-9], "does not end"), (packed[:-8] + b"\0" * 8, "damaged"), (packed[:20] + b"\0" * 30, "")):
        with open("nothing/packed", "wb") as f:
            f.write(data)
        refused("nothing", "nothing/packed is", why)
    with open("text.h5", "wb") as f:
        f.write(b"mine")
    before = b"mine"
    refused("corpus", "not made by prepare")


@limit(60)
def test_check_refuses_pointers_out_of_order():
    corpus_make(9)
    prepared()
    with h5py.File("text.h5", "r+") as f:
        count = len(f["train/doc_ptr"])
        f["train/doc_ptr"][2] = 0
    assert "train/doc_ptr is 0 in row 2" in prepared(command="check", code=100)
    with h5py.File("text.h5", "r+") as f:
        f["train/doc_ptr"][1:] = numpy.arange(1, count)
    assert "train/doc_ptr ends with %d" % (count - 1) in prepared(command="check", code=100)
