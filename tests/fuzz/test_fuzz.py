"""Hostile files through a real reader: each is served or rejected with a sentence; part of what `make fuzz` does."""
import os
import subprocess
import time
import zlib

import h5py
import numpy

from fuzz import ROOT, fuzz
from harness import limit, skip

VARIANT = os.environ.get("VARIANT", "release")
PROBE = os.path.join(ROOT, "build", VARIANT, "bin/fuzz_reader")


def probed(path, seconds=10):
    begin = time.monotonic()
    out = subprocess.run([PROBE, "--probe", path], capture_output=True, text=True, timeout=60)
    assert time.monotonic() - begin < seconds, "%s took too long: %s" % (path, out.stdout)
    return out.stdout + out.stderr


def made(name, make, seconds=10, **options):
    with h5py.File(name, "w", **options) as f:
        make(f)
    return probed(name, seconds)


def expect(text, *words):
    assert all(w in text for w in words), (words, text)


def rows(n=64, values=10, dtype="<u2"):
    return (numpy.arange(n * values).reshape(n, values) % 251).astype(dtype)


def chunks_written(f, payload, shape=(64, 10), chunks=(16, 10), dtype="<u2", **options):
    """train/features whose every chunk is stored as `payload`."""
    d = f.create_dataset("train/features", shape, dtype, chunks=chunks, **options)
    for row in range(0, shape[0], chunks[0]):
        d.id.write_direct_chunk((row,) + (0,) * (len(shape) - 1), payload)


@limit(60)
def test_mutated_files():
    """A few seconds of `make fuzz`, where a fault of ours does not go unseen. First, since it keeps one core busy."""
    if VARIANT != "asan":
        skip("runs in the asan variant")
    sums = fuzz(VARIANT, 500, 20261, 15, os.getcwd(), 1)
    assert sums["mutations"] >= 200 and sums["died"] == 0, sums
    assert sums["served"] > 0 and sums["rejected"] > sums["served"] / 4, sums
    assert sums["limited"] * 50 < sums["mutations"], sums


def test_links_and_other_files():
    with h5py.File("other.h5", "w") as f:
        f["train/features"] = rows()

    def soft_set(f):
        f["here"] = rows()
        f["train/features"] = h5py.SoftLink("/here")
    expect(made("soft.h5", soft_set), "rejected", "soft link")

    def soft_group(f):
        f["here/features"] = rows()
        f["train"] = h5py.SoftLink("/here")
    expect(made("softgroup.h5", soft_group), "rejected", "link to elsewhere")

    def external_group(f):
        f["train"] = h5py.ExternalLink("other.h5", "/train")
    expect(made("extgroup.h5", external_group), "rejected", "link to elsewhere")

    def external_set(f):
        f.create_group("train")["features"] = h5py.ExternalLink("other.h5", "/train/features")
    expect(made("extset.h5", external_set), "rejected", "link to another file")

    def virtual(f):
        layout = h5py.VirtualLayout((64, 10), "<u2")
        layout[:] = h5py.VirtualSource("other.h5", "train/features", (64, 10))
        f.create_virtual_dataset("train/features", layout)
    expect(made("virtual.h5", virtual, libver="latest"), "rejected", "virtual data set")

    def storage(f):
        f.create_dataset("train/features", (64, 10), "<u2", external=[("other.h5", 0, 1280)])
    expect(made("storage.h5", storage), "rejected", "lies in other files")


def test_bombs():
    zeros = zlib.compress(bytes(400 << 20), 9)
    for name, options, words in (
            ("direct", {"compression": 9}, "expand to more than 320 bytes"),
            ("converted", {"compression": 9, "dtype": ">u2"}, "cannot be read")):
        text = made("bomb-%s.h5" % name, lambda f: chunks_written(f, zeros, shape=(16, 10), **options))
        expect(text, "rejected" if VARIANT == "release" or name == "direct" else "")
        assert words in text or "claims" in text, text
    half = zlib.compress(bytes(300), 9)
    expect(made("short.h5", lambda f: chunks_written(f, half, compression=9)), "rejected", "less than 320 bytes")
    wide = zlib.compress(bytes(1 << 20), 9)
    expect(made("wide.h5", lambda f: chunks_written(f, wide, shape=(16, 1 << 26), chunks=(16, 1 << 26),
                                                    compression=9)), "rejected")


def test_chunks_that_are_not_there():
    def plain(f):
        f.create_dataset("train/features", data=rows(), chunks=(16, 10))
    expect(made("chunks.h5", plain), "served")
    with h5py.File("chunks.h5") as f:
        where = [f["train/features"].id.get_chunk_info(i).byte_offset for i in range(4)]
    whole = open("chunks.h5", "rb").read()

    def moved(to, which=2):
        old = where[which].to_bytes(8, "little")
        assert whole.count(old) == 1, "the address of the chunk stands more than once"
        with open("moved.h5", "wb") as f:
            f.write(whole.replace(old, to.to_bytes(8, "little")))
        return probed("moved.h5")
    expect(moved(len(whole) + 4096), "rejected", "chunk 2 of train/features")
    expect(moved(len(whole) - 10), "rejected", "chunk 2 of train/features")
    expect(moved(1 << 62), "rejected", "train/features")
    expect(moved(where[1]), "served")  # overlapping: whose bytes they are is the file's affair
    expect(moved(0), "served")         # so is the superblock as rows


def test_a_chunk_of_another_size_in_the_index():
    def plain(f):
        f.create_dataset("train/features", data=rows(), chunks=(16, 10))
        f["tail"] = numpy.zeros(4096, "u1")
    expect(made("index.h5", plain), "served")
    whole = open("index.h5", "rb").read()
    key = (320).to_bytes(4, "little") + bytes(4) + (32).to_bytes(8, "little")  # size, mask, first row
    assert whole.count(key) == 1
    for stored in (2000, 321, 319, 1):
        with open("other-size.h5", "wb") as f:
            f.write(whole.replace(key, stored.to_bytes(4, "little") + key[4:]))
        expect(probed("other-size.h5"), "rejected", "chunk 2 of train/features")


def test_sizes():
    def grown(f):
        d = f.create_dataset("train/features", (64, 10), "<u2", chunks=(16, 10), maxshape=(None, 10))
        d.id.write_direct_chunk((0, 0), bytes(320))
        d.id.set_extent((1 << 39, 10))
    expect(made("grown.h5", grown), "rejected", "cannot hold")

    def absent(f):
        f.create_dataset("train/features", (1 << 40, 1 << 20), "<u2", chunks=(16, 10))
    expect(made("absent.h5", absent), "rejected")

    def compact(f):
        dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        dcpl.set_layout(h5py.h5d.COMPACT)
        d = h5py.h5d.create(h5py.h5g.create(f.id, b"train"), b"features", h5py.h5t.STD_U16LE,
                            h5py.h5s.create_simple((16, 10)), dcpl)
        d.write(h5py.h5s.ALL, h5py.h5s.ALL, rows(16))
    expect(made("compact.h5", compact), "served")
    whole = open("compact.h5", "rb").read()
    dims = (16).to_bytes(8, "little") + (10).to_bytes(8, "little")
    assert dims in whole
    with open("compact-large.h5", "wb") as f:
        f.write(whole.replace(dims, (160).to_bytes(8, "little") + dims[8:]))
    expect(probed("compact-large.h5"), "rejected", "declares 3200 bytes and stores 320")


def test_many_small_chunks_in_one_read():
    """libhdf5 keeps a table of all chunks of a read; big-endian rows go through it."""
    def tiny(f):
        d = f.create_dataset("train/features", (8, 60000), ">u2", chunks=(8, 1))
        d.id.write_direct_chunk((0, 0), bytes(16))
    expect(made("tiny.h5", tiny), "served")


def graph(f, nodes=(0, 2, 2, 5), edges=(0, 1, 1, 3), index=((0, 0, 2), (1, 1, 0)), **more):
    f["train/node_features"] = numpy.ones((5, 2), "f4")
    f["train/edge_index"] = numpy.array(index, "<i4")
    for name, values in (("node_ptr", nodes), ("edge_ptr", edges)):
        f.create_dataset("train/" + name, data=numpy.array(values, "<i8"), **more)


def test_pointers():
    expect(made("graph.h5", graph), "served: 3 rows")
    for nodes, words in (((1, 2, 2, 5), "node_ptr[0] is 1"), ((0, 3, 2, 5), "node_ptr[2] is 2"),
                         ((0, 2, 2, 6), "node_ptr[3] is 6"), ((0, 2, 2, 4), "node_ptr[3] is 4"),
                         ((0, -1, 2, 5), "node_ptr[1] is -1"), ((0, 2, 1 << 62, 5), "node_ptr[2] is"),
                         ((0, 2, 5), "node_ptr has 3 numbers and edge_ptr 4"), ((0, 1, 2, 5), "of graph 0 names node 1")):
        expect(made("nodes.h5", lambda f: graph(f, nodes)), "rejected", words)
    for end in (5, -1, 1 << 30):
        expect(made("ends.h5", lambda f: graph(f, index=((0, 0, 2), (1, 1, end)))), "rejected", "of graph 2 names node")

    def bomb(f, count=50 << 20, at="node_ptr"):
        graph(f)
        del f["train/" + at]
        d = f.create_dataset("train/" + at, (count,), "u1", chunks=(1 << 20,), compression=9)
        chunk = zlib.compress(bytes(1 << 20), 9)
        for i in range(0, count, 1 << 20):
            d.id.write_direct_chunk((i,), chunk)
    expect(made("many.h5", lambda f: bomb(f, 160 << 20)), "rejected", "1280 MiB, which are kept in memory")
    expect(made("zeros.h5", bomb, seconds=20), "rejected", "node_ptr[52428799] is 0")

    def documents(f, pointer=(0, 3, 3, 30), count=30):
        f["train/tokens"] = numpy.arange(count, dtype="u2")
        f["train/doc_ptr"] = numpy.array(pointer)
    expect(made("tokens.h5", documents), "served: 4 rows")
    expect(made("short.h5", lambda f: documents(f, (0, 7), 7)), "rejected", "has 7 tokens and data.window is 7")
    expect(made("falls.h5", lambda f: documents(f, (0, 9, 8, 30))), "rejected", "doc_ptr[2] is 8")
    expect(made("floats.h5", lambda f: documents(f, (0., 30.))), "rejected", "doc_ptr has floats")


def test_timeframes():
    def frames(f, names="M1 M5", member=None):
        f["train/features/M1"] = numpy.ones((20, 4, 3), "f4")
        f["train/features/M5"] = numpy.ones((20, 2, 3), "u1")
        if names is not None:
            f["train/features"].attrs.create("timeframes", names)
        if member is not None:
            del f["train/features/M5"]
            f["train/features/M5"] = member
    expect(made("frames.h5", frames), "served: 20 rows")
    expect(made("array.h5", lambda f: frames(f, ["M5", "M1"])), "served: 20 rows")
    for names, words in ((None, "does not say which"), (3, "does not say which"), ("", "does not say which"),
                         (["M1"] * 3, "twice"), ("M1 M9", "no data set M9"), ("M1 ../../train/features/M5", "names"),
                         (["M1"] * 1000, "does not say which"), ("M1 " * 10000, "does not say which"),
                         (numpy.full(4000, b"M1", "S2"), "does not say which"), ("M1 .", "train/features has no data set ."),
                         (" ".join("x%d" % i for i in range(16)), "does not say which")):
        expect(made("names.h5", lambda f: frames(f, names), libver="latest"), "rejected", words)
    expect(made("soft.h5", lambda f: frames(f, member=h5py.SoftLink("/train/features/M1"))), "rejected", "soft link")
    expect(made("far.h5", lambda f: frames(f, member=h5py.ExternalLink("other.h5", "/x"))), "rejected", "another file")

    def cycle(f):
        frames(f)
        del f["train/features/M5"]
        f["train/features/M5"] = f["train/features"]
    expect(made("cycle.h5", cycle), "rejected", "M5 is not a data set")


def test_groups_and_attributes():
    def cycles(f):
        f["train/features"] = rows()
        f["train/again"] = f["train"]
        f["train/root"] = f["/"]
    expect(made("cycle.h5", cycles), "served")

    def loop(f):
        f["train"] = h5py.SoftLink("/train")
    expect(made("loop.h5", loop), "rejected")

    def deep(f):
        group = f
        for _ in range(3000):
            group = group.create_group("g")
        f["train/features"] = rows()
    expect(made("deep.h5", deep), "served")

    def crowd(f):
        f.create_group("train")
        for i in range(20000):
            f["train"].create_group("%d" % i)
    expect(made("crowd.h5", crowd, libver="latest"), "rejected", "no data set features", "...")

    def attributes(f):
        f["train/features"] = rows()
        for i in range(3000):
            f.attrs["%d" % i] = numpy.zeros(50)
        f.attrs["fingerprint"] = numpy.full(4 << 20, b"a", "S1")
    expect(made("attributes.h5", attributes, libver="latest"), "served")

    def text(f):
        f["train/features"] = rows()
        f.attrs["fingerprint"] = "a" * (30 << 20)
    expect(made("text.h5", text, libver="latest"), "served")
