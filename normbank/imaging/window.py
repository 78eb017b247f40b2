"""A box cut out of a volume, and put back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

_D = TypeVar("_D", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """A box of fixed shape around a centre; it may reach beyond the volume.

    Attributes
    ----------
    shape : voxels (W, H, D)
    centre : voxel coordinates of its middle; rounded to whole voxels
    """

    shape: tuple[int, int, int]
    centre: Sequence[float] | npt.NDArray[np.floating[Any]]

    @property
    def start(self) -> tuple[int, int, int]:
        """Voxel of the volume at which the box begins; may lie outside."""
        x, y, z = (
            int(np.floor(c + 0.5)) - n // 2 for n, c in zip(self.shape, self.centre, strict=True)
        )
        return x, y, z

    def cut(self, volume: npt.NDArray[_D]) -> npt.NDArray[_D]:
        """The box's content; 0 where it lies outside the volume.

        Parameters
        ----------
        volume : (X, Y, Z)

        Returns
        -------
        (W, H, D), the volume's type, its axes in the volume's order of memory
        """
        box = np.zeros_like(volume, shape=self.shape)
        inside, there = self._overlap(volume.shape)
        box[inside] = volume[there]
        return box

    def paste(self, box: npt.NDArray[_D], shape: tuple[int, int, int]) -> npt.NDArray[_D]:
        """A volume that is 0 but for the box; undoes `cut` inside the box.

        Parameters
        ----------
        box : (W, H, D)
        shape : voxels (X, Y, Z) of the volume

        Returns
        -------
        (X, Y, Z), the box's type and order of memory
        """
        if box.shape != self.shape:
            raise ValueError("the box does not have the window's shape")
        volume = np.zeros_like(box, shape=shape)
        inside, there = self._overlap(shape)
        volume[there] = box[inside]
        return volume

    def _overlap(self, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Slices of the box and of the volume that are the same place."""
        inside, there = [], []
        for size, start, count in zip(self.shape, self.start, shape, strict=True):
            low = min(max(start, 0), count)
            high = min(max(start + size, low), count)
            there.append(slice(low, high))
            inside.append(slice(low - start, high - start) if high > low else slice(0, 0))
        return tuple(inside), tuple(there)
