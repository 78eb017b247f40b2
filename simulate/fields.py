"""Smooth random fields and separable resampling, both as one matrix per axis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array

from simulate.tissue import Array

FWHM_PER_SIGMA = 2.354820045


class SmoothField:
    """A uniform cubic B-spline over a volume whose coefficients are random.

    Mean 0, standard deviation about 1. Evaluated slab by slab along the first
    axis, so that no more of it is in memory than the caller wants.

    Parameters
    ----------
    shape : (X, Y, Z) voxels of the volume
    cell : voxels between two knots, per axis; the smoothness
    rng : draws the coefficients
    """

    def __init__(
        self, shape: Sequence[int], cell: Sequence[float], rng: np.random.Generator
    ) -> None:
        mx, my, mz = (_spline_matrix(n, c) for n, c in zip(shape, cell, strict=True))
        knots = (my.shape[1], mz.shape[1], mx.shape[1])
        coefficients = rng.standard_normal(knots, dtype=np.float32) * _SPLINE_GAIN
        self._along_x = mx
        self._planes = _first_to_last(mz, _first_to_last(my, coefficients))

    def slab(self, start: int, stop: int) -> Array:
        """(stop - start, Y, Z) float32: planes `start` to `stop` of the field."""
        _, height, depth = self._planes.shape
        flat = csr_array(self._along_x[start:stop]) @ self._planes.reshape(len(self._planes), -1)
        values: Array = flat.reshape(-1, height, depth)
        return values

    def volume(self) -> Array:
        """(X, Y, Z) float32: the whole field."""
        return self.slab(0, len(self._along_x))


# Weights of a cubic B-spline have a mean square of 0.4794 per axis.
_SPLINE_GAIN = np.float32(0.4794**-1.5)


def _spline_matrix(count: int, cell: float) -> Array:
    """(count, knots) float32: cubic B-spline weights at each voxel."""
    position = np.arange(count) / cell
    knots = int(np.ceil(count / cell)) + 3
    distance = np.abs(position[:, None] + 1 - np.arange(knots)[None])
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance) ** 3 / 6
    return np.where(distance < 1, near, np.where(distance < 2, far, 0)).astype(np.float32)


def centres(count: int, ratio: float) -> npt.NDArray[np.float64]:
    """Where coarse voxels lie on the fine axis when both boxes share a centre.

    Parameters
    ----------
    count : voxels of the fine axis
    ratio : coarse spacing over fine spacing

    Returns
    -------
    (coarse voxels,) float64, fine voxels
    """
    coarse = max(1, round(count / ratio))
    steps = np.arange(coarse, dtype=np.float64) - (coarse - 1) / 2
    return steps * ratio + (count - 1) / 2


def sampling_matrix(count: int, at: npt.NDArray[np.float64], sigma: float) -> Array:
    """Gaussian weights that blur an axis and sample it in one product.

    Parameters
    ----------
    count : voxels of the axis
    at : (samples,) voxels
    sigma : voxels; below 0.05 the samples are interpolated linearly

    Returns
    -------
    (samples, count) float32, rows sum to 1
    """
    distance = np.clip(at, 0, count - 1)[:, None] - np.arange(count)[None]
    if sigma < 0.05:
        weights = np.clip(1 - np.abs(distance), 0, None)
    else:
        weights = np.exp(-0.5 * (distance / sigma) ** 2)
        weights[np.abs(distance) > max(4 * sigma, 1)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights, np.float32)


def along_axes(volume: Array, matrices: Sequence[Array]) -> Array:
    """Multiply each axis of a volume by its matrix.

    Parameters
    ----------
    volume : (X, Y, Z)
    matrices : (X', X), (Y', Y), (Z', Z)

    Returns
    -------
    (X', Y', Z') float32, C order
    """
    for matrix in matrices:
        volume = _first_to_last(matrix, volume)
    return volume


def _first_to_last(matrix: Array, volume: Array) -> Array:
    """Multiply the first axis and turn it to the last place; three rounds come full circle."""
    flat = csr_array(matrix) @ volume.reshape(len(volume), -1)
    return np.ascontiguousarray(np.moveaxis(flat.reshape(-1, *volume.shape[1:]), 0, -1))


def blur(volume: Array, sigma: Sequence[float]) -> Array:
    """(X, Y, Z) float32: Gaussian blur, `sigma` in voxels per axis."""
    shape = volume.shape
    axes = zip(shape, sigma, strict=True)
    return along_axes(volume, [sampling_matrix(n, np.arange(n) * 1.0, s) for n, s in axes])
