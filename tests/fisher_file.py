"""The Fisher information in a file of fisherd, read by a page of numpy: what docs/FISHER.md says and nothing else."""
import hashlib

import h5py
import numpy as np

SMALLEST = np.float32(2.0 ** -126)


def text(attribute):
    return attribute.decode() if isinstance(attribute, bytes) else str(attribute)


def roots(block, count, group, codes):
    """int8 and int4: the code times the group's scale, squared, each product rounded to float32."""
    scales = np.repeat(block["scales"][:], group)[:count]
    root = codes[:count].astype(np.float32) * scales
    return np.where(codes[:count] > 0, np.maximum(root * root, SMALLEST), np.float32(0))


def int8(block, count):
    return roots(block, count, 256, block["codes"][:])


def int4(block, count):
    pairs = block["codes"][:]
    return roots(block, count, 64, np.stack([pairs >> 4, pairs & 15], axis=1).ravel())


def lowrank(block, count):
    """The factors' products summed one after the other, each product and sum rounded to float32."""
    factors, pieces = block["factors"][:].astype(np.float32), []
    for (rows, columns, rank), scale in zip(block["shapes"][:].reshape(-1, 3).astype(int), block["scales"][:]):
        left, right = factors[:rows * rank].reshape(rows, rank), factors[rows * rank:(rows + columns) * rank].reshape(columns, rank)
        factors = factors[(rows + columns) * rank:]
        total = np.zeros((rows, columns), np.float32)
        for k in range(rank):
            total += left[:, k, None] * right[None, :, k]
        root = np.maximum(total, 0) * scale
        some = left.any(axis=1)[:, None] & right.any(axis=1)[None, :]
        pieces.append(np.where(some, np.maximum(root * root, SMALLEST), np.float32(0)).ravel())
    return np.concatenate(pieces)


def log_rank1(block, count):
    codes, means, levels, expected = (block[name][:] for name in ("codes", "means", "levels", "expected"))
    pieces = []
    for rows, columns, level_count, expected_count in block["shapes"][:].reshape(-1, 4).astype(int):
        row, means = means[:rows], means[rows:]
        column = np.zeros(columns, np.uint8)
        if rows > 1:
            column, means = means[:columns], means[columns:]
        rows_of, columns_of = np.flatnonzero(row != 255), np.argsort(column, kind="stable")[:(column != 255).sum()]
        at = expected[row[rows_of].astype(int)[:, None] + column[columns_of]].ravel()  # level expected of each value
        order = np.argsort(at, kind="stable")  # codes lie by it
        code, codes = codes[:at.size], codes[at.size:]
        value = np.zeros(at.size, np.float32)
        if at.size:
            value[order] = np.where(code > 0, levels[(code.astype(int) - 1 + at[order]) % level_count], 0)
        piece = np.zeros((rows, columns), np.float32)
        piece[np.ix_(rows_of, columns_of)] = value.reshape(len(rows_of), len(columns_of))
        levels, expected = levels[level_count:], expected[expected_count:]
        pieces.append(piece.ravel())
    assert not len(codes) and not len(means) and not len(levels) and not len(expected)
    return np.concatenate(pieces)


FORMS = {"float32": lambda block, count: block["values"][:], "gzip": lambda block, count: block["values"][:],
         "int8": int8, "int4": int4, "lowrank": lowrank, "log_rank1": log_rank1}


def block_digest(block):
    """SHA-256 over a line about the block, then for each array a line about it and its little-endian bytes."""
    sha = hashlib.sha256(("%s %d %d\n" % (text(block.attrs["form"]), block.attrs["first"], block.attrs["count"])).encode())
    names = {"uint8": "u8", "uint32": "u32", "float16": "f16", "float32": "f32"}
    for name in block:  # in the order they were made
        array = block[name][:]
        sha.update(("%s %s %d %d\n" % (name, names[str(array.dtype)], array.ndim, array.size)).encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def fisher_blocks(path):
    """(first, names of tensors, values) of each block; digests, sizes and what the root says of all are checked."""
    blocks, digests = [], hashlib.sha256()
    with h5py.File(path, "r", track_order=True) as f:
        at = 0
        for i in range(int(f.attrs["blocks"])):
            block = f["blocks/%05d" % i]
            count = int(block.attrs["count"])
            values = FORMS[text(block.attrs["form"])](block, count)
            assert values.shape == (count,) and values.dtype == np.float32 and block.attrs["first"] == at, (values.shape, count)
            assert block_digest(block) == text(block.attrs["digest"])
            assert block.attrs["bytes"] == sum(block[name].id.get_storage_size() for name in block)
            digests.update(text(block.attrs["digest"]).encode())
            blocks.append((at, text(block.attrs["tensors"]).split(), values))
            at += count
        assert at == f.attrs["parameters"] and digests.hexdigest() == text(f.attrs["digest"])
        assert sorted(f["blocks"]) == ["%05d" % i for i in range(len(blocks))]
    return blocks


def fisher_vector(path):
    """The diagonal in one piece."""
    return np.concatenate([values for _, _, values in fisher_blocks(path)])
