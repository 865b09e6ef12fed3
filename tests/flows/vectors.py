"""The fake provider's vector function (tests/fake/README.md) in numpy, and what may be derived."""
import hashlib
import struct

import numpy as np

GAMMA = 0x9E3779B97F4A7C15


def tokens_input(ids):
    """A token array as the function's input bytes."""
    return b"\0tok" + b"".join(struct.pack("<I", i) for i in ids)


def f(space, role, dims, text):
    """float32[dims]; text is str, bytes, or a list of token ids."""
    if isinstance(text, str):
        text = text.encode()
    elif not isinstance(text, (bytes, bytearray)):
        text = tokens_input(text)
    named = b"\0".join([b"veckeep-fake", space.encode(), role.encode(), str(dims).encode(), bytes(text)])
    seed = int.from_bytes(hashlib.sha256(named).digest()[:8], "little")
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, dims + 1, dtype=np.uint64) * np.uint64(GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    whole = (z >> np.uint64(40)).astype(np.int32) - np.int32(1 << 23)
    return whole.astype(np.float32) / np.float32(1 << 23)


def unit(row):
    row = np.asarray(row, dtype=np.float64)
    return (row / np.linalg.norm(row)).astype(np.float32)


def cut(row, dims):
    """A Matryoshka row's shorter form: the first dims components, of unit length again."""
    return unit(np.asarray(row, dtype=np.float32)[:dims])


def same_bits(a, b):
    a, b = np.asarray(a, dtype=np.float32), np.asarray(b, dtype=np.float32)
    return a.shape == b.shape and bool(np.array_equal(a.view(np.uint32), b.view(np.uint32)))


def close(a, b, tolerance=1e-6):
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    return a.shape == b.shape and bool(np.all(np.abs(a - b) <= tolerance))
