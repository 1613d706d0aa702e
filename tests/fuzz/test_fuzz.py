"""Hostile files through a real reader: each is served or rejected with a sentence; part of what `make fuzz` does."""
import os
import subprocess
import time
import zlib

import h5py
import numpy

from fuzz import ROOT, fuzz
from harness import limit

VARIANT = os.environ.get("VARIANT", "release")
PROBE = os.path.join(ROOT, "build", VARIANT, "bin/fuzz_reader")


def probed(path, seconds=10):
    begin = time.monotonic()
    out = subprocess.run([PROBE, "--probe", path], capture_output=True, text=True, timeout=60)
    assert time.monotonic() - begin < seconds, "%s took too long: %s" % (path, out.stdout)
    return out.stdout + out.stderr


def made(name, make, **options):
    with h5py.File(name, "w", **options) as f:
        make(f)
    return probed(name)


def expect(text, *words):
    assert all(w in text for w in words), (words, text)


def rows(n=64, values=10, dtype="<u2"):
    return (numpy.arange(n * values).reshape(n, values) % 251).astype(dtype)


def chunks_written(f, payload, shape=(64, 10), chunks=(16, 10), dtype="<u2", **options):
    """train/features whose every chunk is stored as `payload`."""
    d = f.create_dataset("train/features", shape, dtype, chunks=chunks, **options)
    for row in range(0, shape[0], chunks[0]):
        d.id.write_direct_chunk((row,) + (0,) * (len(shape) - 1), payload)


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


@limit(60)
def test_mutated_files():
    sums = fuzz(VARIANT, 1500 if VARIANT == "asan" else 4000, 20261, 15, os.getcwd(), 1)
    assert sums["mutations"] >= 200 and sums["died"] == 0, sums
    assert sums["served"] > 0 and sums["rejected"] > sums["served"] / 4, sums
    assert sums["limited"] * 50 < sums["mutations"], sums
