"""Makes the files that fuzz_reader mutates: bases.py DIRECTORY

One small file a layout, so that a mutation meets what it says rather than its data, and beside each FILE.map, which
says where to aim: "data START END" are bytes of rows (hit seldom), "field OFFSET WIDTH" is a number of the file's
structure (an address, a size, a dimension; hit often). Equal content for equal libraries: nothing is random.
"""
import os
import struct
import sys

import h5py
import numpy

ROWS = 40


def rows(shape, dtype):
    return (numpy.arange(numpy.prod(shape)).reshape(shape) * 7 % 101).astype(dtype)


def pair(f, dtype="<u2", shape=(ROWS, 6), chunks=(8, 6), targets=True, **options):
    """The data sets of a split `train`."""
    f.create_dataset("train/features", data=rows(shape, dtype), chunks=chunks, **options)
    if targets:
        f.create_dataset("train/targets", data=rows(shape[:1], "u1"), chunks=(16,) if chunks else None,
                         **({"compression": 4} if chunks else {}))


def low(f, filters, dtype="<u2", chunk=(8, 6)):
    """Features with filters that h5py's options do not reach, targets after them."""
    dcpl = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    dcpl.set_chunk(chunk)
    filters(dcpl)
    group = h5py.h5g.create(f.id, b"train")
    made = h5py.h5d.create(group, b"features", h5py.h5t.py_create(numpy.dtype(dtype), logical=True),
                           h5py.h5s.create_simple((ROWS, 6)), dcpl)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, rows((ROWS, 6), dtype))
    f.create_dataset("train/targets", data=rows((ROWS,), "<i4"))


def attributes(f):
    pair(f, compression=4)
    f.attrs["fingerprint"] = numpy.bytes_(b"0123456789abcdef")
    for i in range(20):
        f["train/features"].attrs["note %d" % i] = "x" * i


def text_fingerprint(f):
    pair(f, compression=4)
    f.attrs["fingerprint"] = "0123456789abcdef"  # of variable length: in the global heap


def groups(f):
    f.create_group("train")
    for i in range(30):
        f["train"].create_group("other %d" % i)
    f["train/cycle"] = f["/train"]
    pair(f, compression=4, shuffle=True)


def gzip_twice(dcpl):
    dcpl.set_deflate(1)
    dcpl.set_shuffle()
    dcpl.set_filter(h5py.h5z.FILTER_DEFLATE, h5py.h5z.FLAG_OPTIONAL, (6,))


def timeframes(f, names, dtype="<f4"):
    """A group of timeframes; `names` is what its attribute says."""
    for i, name in enumerate(("M1", "M5", "H1")):
        f.create_dataset("train/features/" + name, data=rows((ROWS, 2 + i, 3), dtype), chunks=(8 + i, 2 + i, 3),
                         compression=4, shuffle=True)
    f["train/features"].attrs["timeframes"] = names
    f.create_dataset("train/targets", data=rows((ROWS,), "u1"))


def graphs(f, dtype="<f4", index="<i4", node_chunk=20, edge_chunk=(2, 30), **options):
    """40 graphs of 0 to 5 nodes in rings."""
    nodes = numpy.arange(ROWS) % 6
    node_ptr = numpy.concatenate([[0], numpy.cumsum(nodes)])
    source = numpy.concatenate([numpy.arange(n) for n in nodes])
    target = numpy.concatenate([(numpy.arange(n) + 1) % n for n in nodes if n])
    train = f.create_group("train")
    train.create_dataset("node_features", data=rows((node_ptr[-1], 3), dtype),
                         chunks=(node_chunk, 3) if node_chunk else None, **options)
    train.create_dataset("edge_index", data=numpy.stack([source, target]).astype(index), chunks=edge_chunk, **options)
    train.create_dataset("edge_features", data=rows((node_ptr[-1], 2), "u1"),
                         chunks=(node_chunk, 2) if node_chunk else None, **options)
    train["node_ptr"] = node_ptr.astype("<u8")
    train["edge_ptr"] = node_ptr.astype("<i4")
    train["targets"] = rows((ROWS, 4), "<f4")


def tokens(f, dtype="<u2", chunk=(50,), weights=None, **options):
    """41 windows of 7 tokens, which may weigh; 20 documents, some empty."""
    f.create_dataset("train/tokens", data=rows((290,), dtype), chunks=chunk, **options)
    if weights:
        f.create_dataset("train/weights", data=rows((290,), weights), chunks=(45,), **options)
    f["train/doc_ptr"] = numpy.sort(numpy.concatenate([[0, 290], rows((18,), "<u4") * 2, [140]])).astype("<u4")


# name: (what makes it, arguments of h5py.File)
BASES = {
    "gzip": (lambda f: pair(f, compression=4, shuffle=True), {}),
    "gzip-new": (lambda f: pair(f, compression=4, shuffle=True), {"libver": "latest"}),
    "contiguous": (lambda f: pair(f, chunks=None), {}),
    "contiguous-new": (lambda f: pair(f, chunks=None), {"libver": "latest"}),
    "plain": (lambda f: pair(f), {}),
    "fletcher": (lambda f: pair(f, shuffle=True, compression=1, fletcher32=True), {}),
    "grows": (lambda f: pair(f, maxshape=(None, 6), compression=1), {"libver": "latest"}),
    "grows-both": (lambda f: pair(f, maxshape=(None, None), compression=1), {"libver": "latest"}),
    "one-chunk": (lambda f: pair(f, chunks=(ROWS, 6), compression=1), {"libver": "latest"}),
    "many-chunks": (lambda f: pair(f, shape=(ROWS, 24), chunks=(1, 3), targets=False, compression=1), {}),
    "many-chunks-new": (lambda f: pair(f, shape=(ROWS, 24), chunks=(1, 3), targets=False, compression=1),
                        {"libver": "latest"}),
    "big-endian": (lambda f: pair(f, dtype=">f4", compression=4, shuffle=True), {}),
    "rank-3": (lambda f: pair(f, dtype="<f8", shape=(ROWS, 3, 4), chunks=(5, 3, 4), compression=1), {}),
    "scale-offset": (lambda f: pair(f, dtype="<i4", scaleoffset=0), {}),
    "nbit": (lambda f: low(f, lambda p: p.set_filter(h5py.h5z.FILTER_NBIT, h5py.h5z.FLAG_OPTIONAL, ())), {}),
    "gzip-twice": (lambda f: low(f, gzip_twice), {}),
    "fill": (lambda f: low(f, lambda p: p.set_fill_value(numpy.array(9, "<u2"))), {"libver": "latest"}),
    "user-block": (lambda f: pair(f, compression=4), {"userblock_size": 512}),
    "attributes": (attributes, {"libver": "latest"}),
    "text-fingerprint": (text_fingerprint, {}),
    "groups": (groups, {}),
    "groups-new": (groups, {"libver": "latest"}),
    "timeframes": (lambda f: timeframes(f, "M1 H1"), {}),
    "timeframes-array": (lambda f: timeframes(f, numpy.array([b"M5", b"M1"])), {"libver": "latest"}),
    "timeframes-strings": (lambda f: timeframes(f, ["H1", "M1", "M5"], ">i2"), {}),
    "graphs": (lambda f: graphs(f, compression=4, shuffle=True), {}),
    "graphs-new": (lambda f: graphs(f, dtype="<f8", edge_chunk=(1, 25), compression=4), {"libver": "latest"}),
    "graphs-contiguous": (lambda f: graphs(f, node_chunk=None, edge_chunk=None), {}),
    "graphs-big-endian": (lambda f: graphs(f, ">f4", ">u2", compression=1, fletcher32=True), {}),
    "tokens": (lambda f: tokens(f, compression=4, shuffle=True), {}),
    "tokens-contiguous": (lambda f: tokens(f, "u1", None), {"libver": "latest"}),
    "tokens-big-endian": (lambda f: tokens(f, ">u4", (33,), ">f2", compression=1), {}),
    "ordered": (lambda f: pair(f, compression=4), {"libver": "latest", "track_order": True}),
}


def places(path):
    """(ranges of data, numbers worth looking for) of a file."""
    ranges, numbers = [], {os.path.getsize(path)}
    with h5py.File(path) as f:
        base = f.userblock_size

        def visit(name, found):
            if not isinstance(found, h5py.Dataset):
                return
            numbers.update(found.shape)
            numbers.update(found.chunks or ())
            if found.chunks:
                for i in range(found.id.get_num_chunks()):
                    chunk = found.id.get_chunk_info(i)
                    ranges.append((base + chunk.byte_offset, base + chunk.byte_offset + chunk.size))
                    numbers.update((chunk.byte_offset, chunk.size))
            elif found.id.get_offset() is not None:
                ranges.append((base + found.id.get_offset(),
                               base + found.id.get_offset() + found.id.get_storage_size()))
                numbers.add(found.id.get_offset())
        f.visititems(visit)
    return ranges, numbers - {0}


def map_write(path):
    ranges, numbers = places(path)
    with open(path, "rb") as f:
        content = f.read()
    is_data = bytearray(len(content))
    for start, end in ranges:
        is_data[start:end] = b"\1" * (end - start)
    with open(path + ".map", "w") as out:
        for start, end in ranges:
            out.write("data %d %d\n" % (start, end))
        for width, form in ((8, "<Q"), (4, "<I"), (2, "<H")):
            for at in range(len(content) - width):
                value = struct.unpack_from(form, content, at)[0]
                known = value in numbers and (width > 2 or value > 2)
                address = width == 8 and at % 8 == 0 and 0 < value <= len(content)
                if (known or address) and not any(is_data[at:at + width]):
                    out.write("field %d %d\n" % (at, width))


def main(directory):
    os.makedirs(directory, exist_ok=True)
    for name, (make, options) in BASES.items():
        path = os.path.join(directory, name + ".h5")
        with h5py.File(path, "w", **options) as f:
            make(f)
        map_write(path)


if __name__ == "__main__":
    main(sys.argv[1])
