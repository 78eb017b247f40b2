"""One anatomy becomes many: random affine and smooth deformations of labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from simulate.fields import SmoothField
from simulate.tissue import Array, Labels

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
    limits = deformation or Deformation()
    rng = np.random.default_rng(seed)
    matrix, offset = _affine(limits, labels.shape, spacing_mm, rng)
    bends = [
        [
            (mm / spacing, SmoothField(labels.shape, [cell / s for s in spacing_mm], rng))
            for spacing in spacing_mm
        ]
        for mm, cell in limits.bends
    ]
    moved = np.zeros_like(labels, order="C")
    for start in range(0, len(labels), _SLAB):
        stop = min(start + _SLAB, len(labels))
        source = _affine_slab(matrix, offset, labels.shape, start, stop)
        for axes in bends:
            for coordinate, (amplitude, field) in zip(source, axes, strict=True):
                coordinate += np.float32(amplitude) * field.slab(start, stop)
        moved[start:stop] = _nearest(labels, source)
    return moved


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


def _affine_slab(
    matrix: npt.NDArray[np.float64],
    offset: npt.NDArray[np.float64],
    shape: tuple[int, ...],
    start: int,
    stop: int,
) -> list[Array]:
    """Three (stop - start, Y, Z) float32 volumes of source coordinates."""
    x = np.arange(start, stop)[:, None, None]
    y, z = np.arange(shape[1])[:, None], np.arange(shape[2])
    return [
        (row[0] * x + (row[1] * y + (row[2] * z + o))).astype(np.float32)
        for row, o in zip(matrix, offset, strict=True)
    ]


def _nearest(labels: Labels, source: list[Array]) -> Labels:
    """`labels` at the nearest voxels; 0 outside."""
    index = np.zeros(source[0].shape, np.int64)
    inside = np.ones(source[0].shape, bool)
    for coordinate, count in zip(source, labels.shape, strict=True):
        voxel = np.rint(coordinate).astype(np.int32)
        inside &= (voxel >= 0) & (voxel < count)
        index *= count
        index += np.clip(voxel, 0, count - 1)
    return np.where(inside, labels.ravel()[index], labels.dtype.type(0))
