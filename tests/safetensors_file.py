"""safetensors files, read and written with struct and json alone, so that no package stands between a test and the
bytes of our own writer and reader."""
import json
import struct

import numpy as np

TYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": np.uint16, "I8": np.int8, "I64": np.int64}


def read(path):
    """(name -> array, metadata); BF16 as its bits."""
    with open(path, "rb") as f:
        data = f.read()
    length, = struct.unpack("<Q", data[:8])
    header = json.loads(data[8:8 + length])
    metadata, arrays = header.pop("__metadata__", {}), {}
    for name, of in header.items():
        first, end = of["data_offsets"]
        part = data[8 + length + first:8 + length + end]
        arrays[name] = np.frombuffer(part, TYPES[of["dtype"]]).reshape(of["shape"])
    assert sum(a.nbytes for a in arrays.values()) == len(data) - 8 - length
    return arrays, metadata


def bfloat16(array):
    """The bits of the bfloat16 nearest to each float32 (ties to even), as uint16."""
    bits = np.ascontiguousarray(array, np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7fff + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def write(path, arrays, metadata=None):
    """name -> array; uint16 is written as BF16."""
    names = {np.dtype(t): n for n, t in TYPES.items()}
    header, data = {}, b""
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, array in arrays.items():
        part = np.ascontiguousarray(array).tobytes()
        header[name] = {"dtype": names[array.dtype], "shape": list(array.shape),
                        "data_offsets": [len(data), len(data) + len(part)]}
        data += part
    text = json.dumps(header).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + data)
