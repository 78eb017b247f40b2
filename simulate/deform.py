"""One anatomy becomes many: random affine and smooth deformations of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from simulate.fields import EVERYWHERE, Box, Planes, SmoothField, one_thread
from simulate.tissue import Labels

L = TypeVar("L", bound=np.integer[Any])
_SLAB = 16


@dataclass(frozen=True, slots=True)
class Deformation:
    """How far a deformation may go; affine parts are drawn uniformly.

    Attributes
    ----------
    rotation_deg : largest angle about each axis
    scale : largest change of size along each axis, as a fraction
    shear : largest shear
    shift_mm : largest shift along each axis
    bends : pairs (standard deviation mm, distance of knots mm), added up;
        below a ratio of about 1 : 4 nothing folds
    """

    rotation_deg: float = 8.0
    scale: float = 0.08
    shear: float = 0.04
    shift_mm: float = 6.0
    bends: tuple[tuple[float, float], ...] = ((3.0, 40.0), (1.2, 14.0))


NO_DEFORMATION = Deformation(0.0, 0.0, 0.0, 0.0, ())
# Heads as they lie in scanners, of people of all ages.
UPRIGHT_DEFORMATION = Deformation(10.0, 0.10, 0.06, 4.0, ((3.0, 40.0), (1.2, 14.0)))
WIDE_DEFORMATION = Deformation(18.0, 0.15, 0.10, 12.0, ((4.0, 36.0), (1.6, 12.0)))


def deform(
    labels: Labels,
    seed: int,
    deformation: Deformation | None = None,
    *,
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Labels:
    """Give a label map another pose and shape.

    Parameters
    ----------
    labels : (X, Y, Z) integers
    seed : decides everything that is drawn
    deformation : limits; None: `Deformation()`, another person of like pose
    spacing_mm : of the labels' voxels

    Returns
    -------
    (X, Y, Z), type of `labels`
        Nearest neighbour; what comes in from outside the box is 0.
    """
    return Warp(labels.shape, seed, deformation, spacing_mm=spacing_mm).of(labels)


class Warp:
    """What `deform` draws, to be worked out where it is wanted.

    Parameters
    ----------
    shape : (X, Y, Z) voxels of the labels
    seed, deformation, spacing_mm : as of `deform`
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        seed: int,
        deformation: Deformation | None = None,
        *,
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        limits = deformation or Deformation()
        rng = np.random.default_rng(seed)
        self._shape, self._spacing_mm = shape, spacing_mm
        self._matrix, self._offset = _affine(limits, shape, spacing_mm, rng)
        # Each with the fields that move x, y and z.
        self._bends = [
            (mm, [SmoothField(shape, [cell / s for s in spacing_mm], rng) for _ in spacing_mm])
            for mm, cell in limits.bends
        ]

    @one_thread
    def of(self, labels: npt.NDArray[L], box: Box = EVERYWHERE) -> npt.NDArray[L]:
        """The deformed labels in a box of their grid, of any steps.

        Parameters
        ----------
        labels : (X, Y, Z) integers

        Returns
        -------
        (X', Y', Z'), type of `labels`
        """
        around = np.pad(labels, 1)  # where a source lies outside
        steps = [np.arange(n)[part] for n, part in zip(self._shape, box, strict=True)]
        sources = [self._source(axis, steps, box) for axis in range(3)]
        moved = np.empty([len(s) for s in steps], labels.dtype)
        for start in range(0, len(moved), _SLAB):
            slab = moved[start : start + _SLAB]
            index = np.zeros(slab.shape, np.int32)
            for source, count in zip(sources, around.shape, strict=True):
                positions = source.slab(start, start + _SLAB)
                index *= count
                index += np.clip(positions, 0, count - 1, out=positions).astype(np.int32)
            np.take(around.ravel(), index, out=slab, mode="clip")
        return moved

    def _source(self, axis: int, steps: Sequence[npt.NDArray[np.intp]], box: Box) -> Planes:
        """(X', Y', Z') float32: where labels come from along an axis.

        In voxels of the labels with a border of one voxel about them, and half
        a voxel more: cut off, it is the nearest voxel.
        """
        x, y, z = steps
        row = self._matrix[axis]
        flat = row[1] * y[:, None] + (row[2] * z + self._offset[axis] + 1.5)
        weights = [np.stack([np.ones(len(x)), row[0] * x], axis=1)]
        planes = [np.stack([flat, np.ones_like(flat)])]
        for mm, fields in self._bends:
            bend = fields[axis].planes(box)
            weights.append(bend.weights)
            planes.append(bend.planes * np.float32(mm / self._spacing_mm[axis]))
        return Planes(
            np.concatenate(weights, 1, dtype=np.float32), np.concatenate(planes, dtype=np.float32)
        )


def _affine(
    limits: Deformation,
    shape: tuple[int, ...],
    spacing_mm: tuple[float, float, float],
    rng: np.random.Generator,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Map voxels of the deformed labels to voxels of the given ones."""
    angles = rng.uniform(-1, 1, 3) * limits.rotation_deg
    shear = np.eye(3) + np.triu(rng.uniform(-1, 1, (3, 3)) * limits.shear, 1)
    scale = np.diag(1 + rng.uniform(-1, 1, 3) * limits.scale)
    shift = rng.uniform(-1, 1, 3) * limits.shift_mm
    rotation = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()
    to_mm = np.diag(spacing_mm)
    matrix = np.linalg.inv(to_mm) @ rotation @ shear @ scale @ to_mm
    centre = (np.array(shape) - 1) / 2
    return matrix, centre + shift / np.array(spacing_mm) - matrix @ centre
