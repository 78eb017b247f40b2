"""A head turned upright, and labels turned back."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial.transform import Rotation

SIDE_MM = 256.0  # of the upright volume: a head with its neck
_CORNERS = np.array(list(product((0, 1), repeat=3)))
_SLAB_ROWS = 16  # of the volume, whose labels are turned back at once

Shape = tuple[int, int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Upright:
    """A rotation about the middle of a head, between two grids of the same spacing.

    Attributes
    ----------
    rotation : turns an upright head into the one in the volume
    centre : (3,) voxels, the head's middle in the volume; it becomes the upright grid's
    shape : voxels of the upright grid
    """

    rotation: Rotation
    centre: npt.NDArray[np.float64]
    shape: Shape

    @classmethod
    def of(cls, rotation: Rotation, centre: npt.NDArray[np.float64], spacing_mm: float) -> Upright:
        side = round(SIDE_MM / spacing_mm)
        return cls(rotation, np.asarray(centre, float), (side, side, side))

    @property
    def _middle(self) -> npt.NDArray[np.float64]:
        return (np.array(self.shape) - 1) / 2

    def turn(self, volume: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The volume with its head upright; 0 beyond what it shows.

        Parameters
        ----------
        volume : (X, Y, Z)
        """
        matrix = self.rotation.as_matrix()
        offset = self.centre - matrix @ self._middle
        turned = ndimage.affine_transform(
            volume, matrix, offset, self.shape, order=3, mode="constant", prefilter=True
        )
        return np.asarray(np.maximum(turned, 0, out=turned), np.float32)

    def turn_back(self, labels: npt.NDArray[np.uint8], shape: Shape) -> npt.NDArray[np.uint8]:
        """Labels of the upright head on the volume's own grid.

        Each voxel takes the label that weighs most among the eight around its place, by
        their nearness: trilinear interpolation of every label's mask at once.

        Parameters
        ----------
        labels : on the upright grid
        shape : voxels of the volume
        """
        back = np.zeros(shape, np.uint8)
        rows, *across = self._reach(labels, shape)
        for row in range(rows.start, rows.stop, _SLAB_ROWS):
            slab = (slice(row, min(row + _SLAB_ROWS, rows.stop)), *across)
            back[slab] = self._turned_slab(labels, slab)
        return back

    def _turned_slab(
        self, labels: npt.NDArray[np.uint8], slab: tuple[slice, ...]
    ) -> npt.NDArray[np.uint8]:
        """Labels in a box of the volume."""
        matrix = self.rotation.inv().as_matrix()
        first = np.array([part.start for part in slab])
        # A little more than that: rounding shall not put one place below a voxel and above it.
        start = matrix @ (first - self.centre) + self._middle + 1e-6
        size = tuple(part.stop - part.start for part in slab)
        corners = np.stack(
            [
                # Half a voxel back, the nearest is the one below.
                ndimage.affine_transform(
                    labels, matrix, start - 0.5 + corner, size, order=0, mode="constant"
                )
                for corner in _CORNERS
            ]
        )
        there = corners[0].copy()
        split = (corners != there).any(0)
        places = np.argwhere(split) @ matrix.T + start
        above = (places - np.floor(places)).astype(np.float32)
        weights = np.stack([np.where(corner, above, 1 - above).prod(1) for corner in _CORNERS])
        some = corners[:, split]
        totals = np.stack([(weights * (some == label)).sum(0) for label in some])
        there[split] = np.take_along_axis(some, totals.argmax(0)[None], 0)[0]
        return np.asarray(there)

    def _reach(self, labels: npt.NDArray[np.uint8], shape: Shape) -> tuple[slice, ...]:
        """The box of the volume in which labels can lie."""
        places = np.argwhere(labels[::4, ::4, ::4]) * 4
        if not len(places):
            return (slice(0, 0),) * 3
        there = self.rotation.apply(places - self._middle) + self.centre
        low = np.clip(np.floor(there.min(0)).astype(int) - 8, 0, shape)
        high = np.clip(np.ceil(there.max(0)).astype(int) + 9, 0, shape)
        return tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
