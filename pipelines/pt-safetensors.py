#!/usr/bin/python3
"""pt-safetensors.py - a PyTorch file (.pt, .pth, .bin) as a safetensors file, or back.

  pipelines/pt-safetensors.py IN.pt OUT.safetensors [--key NAME]
  pipelines/pt-safetensors.py IN.safetensors OUT.pt

The PyTorch file holds a state dict, or a dict with one under --key (tried by itself: model, state_dict,
model_state_dict). It is opened with weights_only, so that the pickle in it can run no code. Types stay as they are.
What finetuned reads of the result is model.pretrained (docs/OPTIONS.md). Needs python3-torch, which nothing else of
finetuned does.

example: pipelines/pt-safetensors.py resnet.pt resnet.safetensors
"""
import ctypes
import json
import os
import struct
import sys

torch = None  # imported when the arguments are known to be good: that takes seconds

TYPES = {"float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
         "int16": "I16", "int8": "I8", "uint8": "U8", "bool": "BOOL"}
KEYS = ("model", "state_dict", "model_state_dict")
HEADER_MAX = 100000000


def fail(sentence):
    print("pt-safetensors.py: " + sentence, file=sys.stderr)
    sys.exit(100)


def torch_import():
    global torch
    try:
        import torch
    except ImportError:
        fail("python3-torch is not installed")


def is_state(value):
    return isinstance(value, dict) and value and all(isinstance(v, torch.Tensor) for v in value.values())


def state_find(path, key):
    """The state dict in a PyTorch file."""
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        fail("cannot read %s as a PyTorch file of weights: %s" % (path, str(error).splitlines()[0]))
    if is_state(loaded) and not key:
        return loaded
    for name in (key,) if key else KEYS:
        if isinstance(loaded, dict) and is_state(loaded.get(name)):
            return loaded[name]
    there = ", ".join(map(str, loaded)) if isinstance(loaded, dict) else type(loaded).__name__
    fail("%s holds no state dict%s; there is: %.300s" % (path, " under " + key if key else "", there))


def bytes_of(tensor):
    return ctypes.string_at(tensor.data_ptr(), tensor.numel() * tensor.element_size()) if tensor.numel() else b""


def safetensors_write(path, state):
    header, end, parts = {"__metadata__": {"format": "pt"}}, 0, []
    for name, tensor in state.items():
        kind = str(tensor.dtype).split(".")[1]
        if kind not in TYPES or tensor.layout != torch.strided:
            fail("tensor %s is of type %s, which a safetensors file does not have" % (name, tensor.dtype))
        part = bytes_of(tensor.detach().contiguous())
        header[name] = {"dtype": TYPES[kind], "shape": list(tensor.shape), "data_offsets": [end, end + len(part)]}
        end += len(part)
        parts.append(part)
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path + ".tmp", "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for part in parts:
            f.write(part)
        f.flush()
        os.fsync(f.fileno())
    os.rename(path + ".tmp", path)


def safetensors_read(path):
    """Name -> tensor; a file that does not agree with itself is refused."""
    kinds = {short: getattr(torch, name) for name, short in TYPES.items()}
    with open(path, "rb") as f:
        data = bytearray(f.read())
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 10 else 0
    if not 2 <= length <= min(HEADER_MAX, len(data) - 8):
        fail("%s is no safetensors file" % path)
    state, rest = {}, memoryview(data)[8 + length:]
    try:
        for name, of in json.loads(data[8:8 + length]).items():
            if name == "__metadata__":
                continue
            (first, end), kind = of["data_offsets"], kinds[of["dtype"]]
            if not 0 <= first <= end <= len(rest):
                raise ValueError("offsets of " + name)
            part = rest[first:end]
            flat = torch.frombuffer(part, dtype=kind) if end > first else torch.empty(0, dtype=kind)
            state[name] = flat.reshape(of["shape"]).clone()
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        fail("%s is no usable safetensors file: %s" % (path, error))
    return state


def main(words):
    if not words or "--help" in words or "-h" in words:
        print(__doc__)
        return 0 if words else 100
    key = None
    if "--key" in words[:-1]:
        at = words.index("--key")
        key = words[at + 1]
        del words[at:at + 2]
    if len(words) != 2 or words[0].endswith(".safetensors") == words[1].endswith(".safetensors"):
        fail("accepted: IN.pt OUT.safetensors [--key NAME], or IN.safetensors OUT.pt (see --help)")
    if not os.path.isfile(words[0]):
        fail("there is no file %s" % words[0])
    torch_import()
    if words[1].endswith(".safetensors"):
        state = state_find(words[0], key)
        safetensors_write(words[1], state)
    else:
        state = safetensors_read(words[0])
        torch.save(state, words[1])
    print("%d tensors, %d numbers: %s" % (len(state), sum(t.numel() for t in state.values()), words[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
