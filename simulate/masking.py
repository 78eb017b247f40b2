"""What a scan leaves out: the skull, the face, what lies beyond the field of view."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from simulate.fields import Box, SmoothField, blur, span

Mask = npt.NDArray[np.bool_]

_STRIP_SIGMA_MM = 3.0
_RAGGED_MM = 0.8
_MOST = 5.0  # standard deviations that a ragged border never goes beyond


def stripping_mask(
    brain: Mask, spacing_mm: Sequence[float], margin_mm: float, rng: np.random.Generator
) -> Mask:
    """The brain as a skull stripper leaves it: sulci filled, border a little ragged.

    Parameters
    ----------
    brain : (X, Y, Z) bool
    spacing_mm : of the voxels
    margin_mm : what is left around the brain
    rng : draws the raggedness

    Returns
    -------
    (X, Y, Z) bool, holds every brain voxel
    """
    sigma = [_STRIP_SIGMA_MM / s for s in spacing_mm]
    ragged = SmoothField(brain.shape, [12 / s for s in spacing_mm], rng)
    box = box_around(brain, [strip_reach_mm(margin_mm) / s for s in spacing_mm])
    near = blur(brain.astype(np.float32), sigma, box)
    reach = (margin_mm + _RAGGED_MM * ragged.volume(box)) / _STRIP_SIGMA_MM
    undecided = (near > ndtr(-reach.max())) & ~brain[box]
    mask = brain.copy()
    mask[box][undecided] = near[undecided] > ndtr(-reach[undecided])
    return mask


def strip_reach_mm(margin_mm: float) -> float:
    """How far from the brain's box stripping may leave something."""
    return margin_mm + _MOST * _RAGGED_MM + _STRIP_SIGMA_MM


def face_mask(brain: Mask, spacing_mm: Sequence[float], rng: np.random.Generator) -> Mask:
    """The face in front of and below the forehead, clear of the brain.

    Parameters
    ----------
    brain : (X, Y, Z) bool, RAS+
    spacing_mm : of the voxels
    rng : draws where and how ragged the cut is

    Returns
    -------
    (X, Y, Z) bool
    """
    low, high = box_of(brain)
    y = np.arange(brain.shape[1])[:, None] * spacing_mm[1]
    z = np.arange(brain.shape[2]) * spacing_mm[2]
    size_mm = (high - low) * np.array(spacing_mm)
    brow_y = low[1] * spacing_mm[1] + size_mm[1] * rng.uniform(0.66, 0.76)
    brow_z = low[2] * spacing_mm[2] + size_mm[2] * rng.uniform(0.38, 0.48)
    ahead_mm = (y - brow_y) - rng.uniform(0.2, 0.6) * (z - brow_z)
    ahead_mm = np.minimum(ahead_mm, brow_z - z).astype(np.float32)
    ragged = SmoothField(brain.shape, [15 / s for s in spacing_mm], rng)
    possible = ahead_mm > -_MOST * 3
    mask = np.zeros(brain.shape, bool)
    if possible.any():
        ahead, below = (span(possible.max(axis)) for axis in (1, 0))
        box = slice(0, len(brain)), ahead, below
        mask[box] = ahead_mm[box[1:]] + 3 * ragged.volume(box) > 0
        mask[box] &= blur(brain.astype(np.float32), [4 / s for s in spacing_mm], box) <= 0.01
    return mask


def field_of_view(brain: Mask, spacing_mm: Sequence[float], field_mm: Sequence[float]) -> Box:
    """The part of the grid that a box around the brain's centre covers."""
    low, high = box_of(brain)
    cut = []
    for axis, count in enumerate(brain.shape):
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


def box_around(mask: Mask, reach: Sequence[float]) -> Box:
    """The mask's box and so many voxels more on either side."""
    low, high = box_of(mask)
    x, y, z = (
        slice(max(int(a - r), 0), int(np.ceil(b + r)))
        for a, b, r in zip(low, high, reach, strict=True)
    )
    return x, y, z
