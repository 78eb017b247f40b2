"""Files and texts with some of their bytes changed."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import numpy as np

HEADER_BYTES = 352
EXTREMES = (
    b"\0\0",
    b"\xff\xff",
    b"\x7f\xff",
    b"\xff\x7f",
    b"\0\0\0\0",
    b"\xff\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x7f\xff\xff\xff",
    b"\0\0\x80\x7f",  # infinity, little-endian
    b"\0\0\xc0\x7f",  # not a number
    b"\0\0\x80\xff",
    b"\x01\0\0\0",
)

Generator = np.random.Generator
Mutation = Callable[[bytearray, Generator, int], None]


def _flip(data: bytearray, rng: Generator, reach: int) -> None:
    for _ in range(rng.integers(1, 9)):
        data[rng.integers(min(reach, len(data)))] ^= 1 << int(rng.integers(8))


def _extreme(data: bytearray, rng: Generator, reach: int) -> None:
    for _ in range(rng.integers(1, 4)):
        value = EXTREMES[rng.integers(len(EXTREMES))]
        place = int(rng.integers(max(min(reach, len(data)) - 4, 1))) // 2 * 2
        data[place : place + len(value)] = value


def _noise(data: bytearray, rng: Generator, reach: int) -> None:
    size = int(rng.integers(1, 65))
    place = int(rng.integers(min(reach, len(data))))
    data[place : place + size] = rng.bytes(size)


def _cut(data: bytearray, rng: Generator, _reach: int) -> None:
    del data[rng.integers(len(data)) :]


def _doubled(data: bytearray, rng: Generator, reach: int) -> None:
    place = int(rng.integers(min(reach, len(data))))
    data[place:place] = data[place : place + int(rng.integers(1, 257))]


MUTATIONS: tuple[Mutation, ...] = (_flip, _flip, _extreme, _extreme, _noise, _cut, _doubled)


def mutated(data: bytes, rng: Generator, reach: int = HEADER_BYTES) -> bytes:
    """With one or two mutations, in nine of ten cases within the first `reach` bytes."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 3)):
        if changed:
            within = reach if rng.random() < 0.9 else len(changed)
            MUTATIONS[rng.integers(len(MUTATIONS))](changed, rng, within)
    return bytes(changed)


def mutated_gzip(data: bytes, rng: Generator) -> bytes:
    """Mutated and compressed, or compressed and mutated."""
    if rng.random() < 0.7:
        return gzip.compress(mutated(data, rng), 1)
    return mutated(gzip.compress(data, 1), rng)
