"""Labels that are not those of their scan, made of labels that are.

Arrays are on axes to the right, to the front and up. What one id is called, and which
one is its like on the other side, the caller says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int32]
Sides = Mapping[str, tuple[int, int]]
"""Structure -> its (left, right) ids."""


def _swapped(ids: Ids, sides: Sides) -> Ids:
    table = np.arange(ids.max() + 1 + max(right for _, right in sides.values()))
    for left, right in sides.values():
        table[[left, right]] = right, left
    return table[ids].astype(np.int32)


def _one_side(ids: Ids, sides: Sides) -> Ids:
    return np.where(np.isin(ids, [left for left, _ in sides.values()]), 0, ids)


def _noise(ids: Ids, sides: Sides) -> Ids:
    known = np.array([number for pair in sides.values() for number in pair], np.int32)
    return np.random.default_rng(0).choice(known, ids.shape)


def _shifted(voxels: int, axis: int) -> Callable[[Ids, Sides], Ids]:
    return lambda ids, _: np.roll(ids, voxels, axis)


WRONG_LABELS: Mapping[str, Callable[[Ids, Sides], Ids]] = MappingProxyType(
    {
        "mirrored": lambda ids, _: ids[::-1],
        "sides swapped": _swapped,
        "one side": _one_side,
        "shifted by 5 voxels": _shifted(5, 2),
        "shifted by 10 voxels": _shifted(10, 0),
        "shifted by 20 voxels": _shifted(20, 1),
        "front to back": lambda ids, _: ids[:, ::-1],
        "upside down": lambda ids, _: ids[:, :, ::-1],
        "nothing": lambda ids, _: np.zeros_like(ids),
        "noise": _noise,
        "shifted by half a head": _shifted(80, 1),
    }
)
"""Kind -> what makes it of right labels."""
