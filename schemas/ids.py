"""Identities: 64-bit BLAKE2b hashes of content, as int64.

The first 64 bits of a 128-bit hash are the id, the other 64 the digest: two rows with the same id and
different digests are a collision, which a commit refuses.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from schemas.caption_attributes import CAPTION_ATTRIBUTES

_SEPARATOR = b"\x1f"


def text_hash(*parts: str | bytes | int) -> bytes:
    """128-bit hash of a few values; lengths are part of it, so ("ab", "c") differs from ("a", "bc")."""
    h = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part if isinstance(part, bytes) else str(part).encode()
        h.update(len(data).to_bytes(8, "little"))
        h.update(data)
    return h.digest()


def text_id(*parts: str | bytes | int) -> int:
    """int64 id of a few values."""
    return int.from_bytes(text_hash(*parts)[:8], "little", signed=True)


def content_ids(
    kind: str, strings: Sequence[Iterable[str]], arrays: Sequence[np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and digests of N rows.

    strings: columns of N strings; arrays: (N, ...) arrays, hashed by their little-endian bytes.
    `kind` keeps the ids of different tables apart. Returns two (N,) int64 arrays.
    """
    n = len(arrays[0])
    flat = [np.ascontiguousarray(a).reshape(n, -1) for a in arrays]
    flat = [a.astype(a.dtype.newbyteorder("<"), copy=False) for a in flat]
    packed = np.concatenate([a.view(np.uint8).reshape(n, -1) for a in flat], axis=1)
    columns = [list(column) for column in strings]
    prefix = kind.encode() + _SEPARATOR
    hashes = bytearray()
    for i in range(n):
        h = hashlib.blake2b(prefix, digest_size=16)
        for column in columns:
            text = column[i].encode()
            h.update(len(text).to_bytes(4, "little"))
            h.update(text)
        h.update(packed[i].tobytes())
        hashes += h.digest()
    both = np.frombuffer(bytes(hashes), "<i8").reshape(n, 2)
    return both[:, 0].copy(), both[:, 1].copy()


def caption_ids(
    sources: Sequence[str], keys: Sequence[str], said: Mapping[str, Sequence[str | None]]
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and digests of N captions; `said` has their `text` and attributes, which shape the pictures."""
    words = [[value or "" for value in said[name]] for name in ("text", *CAPTION_ATTRIBUTES)]
    return content_ids("caption", [sources, keys, *words], [np.empty((len(keys), 0), np.uint8)])


def mix(ids: np.ndarray, *salt: str | int) -> np.ndarray:
    """(N,) uint64 pseudo-random numbers that depend on each id and the salt alone (splitmix64).

    For seeds and draws: vectorised, the same on every machine, and independent of the other rows.
    """
    start = int.from_bytes(text_hash(*salt)[:8], "little")
    with np.errstate(over="ignore"):
        z = ids.astype(np.int64).view(np.uint64) ^ np.uint64(start)
        for _ in range(2):
            z = z + np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
    return z


def uniform(ids: np.ndarray, *salt: str | int) -> np.ndarray:
    """(N,) float64 in [0, 1), a function of each id and the salt."""
    return (mix(ids, *salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def hex_id(value: int) -> str:
    """An id as 16 hexadecimal digits, for file names and messages."""
    return f"{int(value) & 0xFFFFFFFFFFFFFFFF:016x}"
