"""Volumes and labels from one spacing to another along their own axes.

Both grids share the centre of their field of view, so that a mirrored input
gives the mirrored output.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.imaging.threads import in_threads

_BLOCK = 1 << 13  # voxels voted on at a time: their votes stay in the cache
SLAB_VOXELS = 1 << 22  # of a volume that are resampled at a time
_FWHM_TO_SIGMA = 1 / 2.3548


@dataclass(frozen=True, slots=True)
class Axis:
    """How the samples of one axis are drawn from another grid.

    Attributes
    ----------
    taps : (M, T) intp, source indices of each of M samples
    weights : (M, T) float32, summing to 1 over T
    length : source voxels N
    """

    taps: npt.NDArray[np.intp]
    weights: npt.NDArray[np.float32]
    length: int

    @property
    def count(self) -> int:
        """Samples M."""
        return len(self.taps)

    def matrix(self) -> npt.NDArray[np.float32]:
        """(M, N) float32."""
        dense = np.zeros((len(self.taps), self.length), np.float32)
        np.add.at(dense, (np.arange(len(self.taps))[:, None], self.taps), self.weights)
        return dense

    def reached(self, part: slice) -> tuple[slice, slice, Axis]:
        """The samples that a part of the source has a say in.

        Returns
        -------
        which samples, the source voxels that they are drawn from, and how
        """
        touches = ((self.taps >= part.start) & (self.taps < part.stop)).any(axis=1)
        busy = np.flatnonzero(touches)
        rows = slice(int(busy[0]), int(busy[-1]) + 1) if busy.size else slice(0, 0)
        taps = self.taps[rows]
        first, last = (int(taps.min()), int(taps.max())) if busy.size else (0, -1)
        source = slice(first, last + 1)
        return rows, source, Axis(taps - first, self.weights[rows], last + 1 - first)


def _positions(count: int, length: int, step: float) -> npt.NDArray[np.float64]:
    """Where `count` samples, `step` source voxels apart, lie on the source axis."""
    return np.asarray((np.arange(count) - (count - 1) / 2) * step + (length - 1) / 2, np.float64)


def _axis(taps: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], length: int) -> Axis:
    """Normalise the weights; taps outside the source take its last voxel."""
    weights = weights / weights.sum(axis=1, keepdims=True)
    inside = np.clip(taps, 0, length - 1).astype(np.intp)
    return Axis(inside, weights.astype(np.float32), length)


def nearest_index(count: int, length: int, step: float) -> npt.NDArray[np.intp]:
    """The source voxel that lies nearest to each sample, (count,)."""
    positions = np.floor(_positions(count, length, step) + 0.5)
    return np.clip(positions, 0, length - 1).astype(np.intp)


def linear_axis(count: int, length: int, step: float) -> Axis:
    """Linear interpolation at `count` samples, `step` source voxels apart."""
    positions = _positions(count, length, step)
    first = np.floor(positions)
    part = positions - first
    return _trimmed(first[:, None] + [0, 1], np.stack([1 - part, part], axis=1), length)


def area_axis(count: int, length: int, step: float) -> Axis:
    """Mean of the linear interpolant over each sample's own width.

    For step > 1, where single points would skip source voxels. Weights are
    the integral of each voxel's tent over the sample.
    """
    centres = _positions(count, length, step)[:, None]
    reach = int(np.ceil(step / 2)) + 1
    taps = np.round(centres) + np.arange(-reach, reach + 1, dtype=float)
    weights = _tent_integral(centres + step / 2 - taps) - _tent_integral(centres - step / 2 - taps)
    return _trimmed(taps, weights, length)


def gaussian_axis(count: int, length: int, step: float) -> Axis:
    """Gaussian-weighted mean around each sample.

    For step > 1. The source's own width is taken off in quadrature, so that
    the blur adds up to the new voxel's width.
    """
    positions = _positions(count, length, step)[:, None]
    sigma = max(_FWHM_TO_SIGMA * np.sqrt(step**2 - 1), 1e-3)
    reach = int(np.ceil(3 * sigma)) + 1
    fine = np.arange(-reach, reach + 1, dtype=float)
    kernel = np.exp(-0.5 * (fine / sigma) ** 2)
    kernel /= kernel.sum()
    first = np.floor(positions)
    part = positions - first
    taps = first + np.arange(-reach, reach + 2, dtype=float)
    weights = (1 - part) * np.append(kernel, 0) + part * np.insert(kernel, 0, 0)
    return _trimmed(taps, weights, length)


def _tent_integral(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Integral of max(0, 1 - |t|) up to x."""
    x = np.clip(x, -1, 1)
    return np.where(x < 0, (1 + x) ** 2 / 2, 1 - (1 - x) ** 2 / 2)


def _trimmed(taps: npt.NDArray[np.float64], weights: npt.NDArray[np.float64], length: int) -> Axis:
    """Drop the taps that no sample uses."""
    used = weights.max(axis=0) > 1e-9
    return _axis(taps[:, used], weights[:, used], length)


def resample_volume(
    volume: npt.NDArray[np.float32], axes: tuple[Axis | None, Axis | None, Axis | None]
) -> npt.NDArray[np.float32]:
    """Apply one matrix per axis; None leaves an axis as it is.

    Works in slabs: beside the volume and the result there is at most one array of
    the size that the volume has once its first two axes are resampled.

    Parameters
    ----------
    volume : (X, Y, Z), in any order of memory

    Returns
    -------
    (X', Y', Z') float32, C-contiguous
    """
    first, second, third = axes
    x, y, z = (n if a is None else a.count for a, n in zip(axes, volume.shape, strict=True))
    resampled = np.empty((x, y, z), np.float32)
    planes = np.moveaxis(volume, 2, 0)
    if first is not None or second is not None:
        between = np.moveaxis(resampled, 2, 0)
        if third is not None:
            between = np.empty((len(planes), x, y), np.float32)
        for part in _slabs(len(planes), max(x, volume.shape[0]) * max(y, volume.shape[1])):
            slab = np.ascontiguousarray(volume[:, :, part], np.float32)
            between[part] = np.moveaxis(_along(second, 1, _along(first, 0, slab)), 2, 0)
        planes = between
    if third is not None:
        for part in _slabs(x, y * max(z, len(planes))):
            slab = np.ascontiguousarray(planes[:, part], np.float32)
            resampled[part] = np.moveaxis(_along(third, 0, slab), 0, 2)
    return resampled


def _along(
    axis: Axis | None, number: int, slab: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """A slab resampled along one of its axes."""
    if axis is None:
        return slab
    # The whole matrix each time, zeros too: with fewer of them the sums would be
    # formed in another order, and end in other last bits.
    return np.moveaxis(np.tensordot(axis.matrix(), slab, axes=(1, number)), 0, number)


def _slabs(count: int, voxels: int) -> list[slice]:
    """Cuts of an axis, each plane across which has so many voxels."""
    step = max(SLAB_VOXELS // voxels, 1)
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]


def resample_classes(
    classes: npt.NDArray[np.uint8], axes: tuple[Axis, Axis, Axis], n: int
) -> npt.NDArray[np.uint8]:
    """Resample each class as its own volume and take the strongest.

    The same as interpolating all `n` one-hot volumes, but only samples whose
    sources disagree are voted on.

    Parameters
    ----------
    classes : (X, Y, Z), below `n`

    Returns
    -------
    (X', Y', Z') uint8; the lowest class wins a tie
    """
    low = _reduce(classes, axes, np.minimum)
    mixed = np.flatnonzero(low != _reduce(classes, axes, np.maximum))
    result: npt.NDArray[np.uint8] = low.ravel()
    flat = np.ascontiguousarray(classes).ravel()
    strides = (classes.shape[1] * classes.shape[2], classes.shape[2], 1)

    def decide(start: int) -> None:
        block = mixed[start : start + _BLOCK]
        where = np.unravel_index(block, low.shape)
        result[block] = _vote(flat, strides, axes, where, n)

    in_threads(decide, range(0, len(mixed), _BLOCK))
    return result.reshape(low.shape)


def _reduce(
    classes: npt.NDArray[np.uint8], axes: tuple[Axis, Axis, Axis], pick: Any
) -> npt.NDArray[np.uint8]:
    """Least or greatest class among each sample's sources."""
    for number, axis in enumerate(axes):
        taken = classes.take(axis.taps[:, 0], axis=number)
        for tap in axis.taps.T[1:]:
            pick(taken, classes.take(tap, axis=number), out=taken)
        classes = taken
    return np.ascontiguousarray(classes)


def _vote(
    flat: npt.NDArray[np.uint8],
    strides: tuple[int, int, int],
    axes: tuple[Axis, Axis, Axis],
    where: tuple[npt.NDArray[np.intp], ...],
    n: int,
) -> npt.NDArray[np.uint8]:
    """The class with the greatest summed weight at each place (V,)."""
    count = len(where[0])
    base = np.arange(count) * n
    votes = np.zeros(count * n, np.float32)
    offsets = [(a.taps * s)[w].T for a, s, w in zip(axes, strides, where, strict=True)]
    weights = [a.weights[w].T for a, w in zip(axes, where, strict=True)]
    for i, j, k in product(*(range(len(o)) for o in offsets)):
        labels = flat[offsets[0][i] + offsets[1][j] + offsets[2][k]]
        votes[base + labels] += weights[0][i] * weights[1][j] * weights[2][k]
    strongest: npt.NDArray[np.intp] = votes.reshape(count, n).argmax(axis=1)
    return strongest.astype(np.uint8)
