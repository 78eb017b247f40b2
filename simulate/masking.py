"""What a scan leaves out: the skull, the face, what lies beyond the field of view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from simulate.fields import SmoothField, blur
from simulate.tissue import Labels, brain_mask

Mask = npt.NDArray[np.bool_]

_STRIP_SIGMA_MM = 3.0
_RAGGED_MM = 0.8


def stripping_mask(
    labels: Labels, spacing_mm: Sequence[float], margin_mm: float, rng: np.random.Generator
) -> Mask:
    """The brain as a skull stripper leaves it: sulci filled, border a little ragged.

    Parameters
    ----------
    labels : (X, Y, Z) raw ids
    spacing_mm : of the voxels
    margin_mm : what is left around the brain
    rng : draws the raggedness

    Returns
    -------
    (X, Y, Z) bool, holds every brain voxel
    """
    brain = brain_mask(labels)
    sigma = [_STRIP_SIGMA_MM / s for s in spacing_mm]
    ragged = SmoothField(labels.shape, [12 / s for s in spacing_mm], rng).volume()
    reach = (margin_mm + _RAGGED_MM * ragged) / _STRIP_SIGMA_MM
    mask: Mask = brain | (blur(brain.astype(np.float32), sigma) > ndtr(-reach))
    return mask


def face_mask(labels: Labels, spacing_mm: Sequence[float], rng: np.random.Generator) -> Mask:
    """The face in front of and below the forehead, clear of the brain.

    Parameters
    ----------
    labels : (X, Y, Z) raw ids, RAS+
    spacing_mm : of the voxels
    rng : draws where and how ragged the cut is

    Returns
    -------
    (X, Y, Z) bool
    """
    brain = brain_mask(labels)
    low, high = box_of(brain)
    y = np.arange(labels.shape[1])[:, None] * spacing_mm[1]
    z = np.arange(labels.shape[2]) * spacing_mm[2]
    size_mm = (high - low) * np.array(spacing_mm)
    brow_y = low[1] * spacing_mm[1] + size_mm[1] * rng.uniform(0.66, 0.76)
    brow_z = low[2] * spacing_mm[2] + size_mm[2] * rng.uniform(0.38, 0.48)
    ahead_mm = (y - brow_y) - rng.uniform(0.2, 0.6) * (z - brow_z)
    ragged = SmoothField(labels.shape, [15 / s for s in spacing_mm], rng).volume()
    near = blur(brain.astype(np.float32), [4 / s for s in spacing_mm]) > 0.01
    mask: Mask = (np.minimum(ahead_mm, brow_z - z) + 3 * ragged > 0) & ~near
    return mask


def field_of_view(
    labels: Labels, spacing_mm: Sequence[float], field_mm: Sequence[float]
) -> tuple[slice, slice, slice]:
    """The part of the grid that a box around the brain's centre covers."""
    low, high = box_of(brain_mask(labels))
    cut = []
    for axis, count in enumerate(labels.shape):
        width = min(count, max(1, round(field_mm[axis] / spacing_mm[axis])))
        start = round((low[axis] + high[axis]) / 2 - width / 2)
        start = min(max(start, 0), count - width)
        cut.append(slice(start, start + width))
    return cut[0], cut[1], cut[2]


def box_of(mask: Mask) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """First voxel and one past the last, per axis; the whole grid where it is empty."""
    if not mask.any():
        return np.zeros(3, np.intp), np.array(mask.shape, np.intp)
    axes = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return np.array([a[0] for a in axes]), np.array([a[-1] + 1 for a in axes])
