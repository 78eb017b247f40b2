"""Smooth random fields and separable resampling, both as one matrix per axis."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from simulate.tissue import Array

P = ParamSpec("P")
R = TypeVar("R")
Box = tuple[slice, slice, slice]

FWHM_PER_SIGMA = 2.354820045
EVERYWHERE: Box = (slice(None), slice(None), slice(None))


def one_thread(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function's products of matrices run on one core.

    Processes side by side would fight over the cores otherwise.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with threadpool_limits(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


class SmoothField:
    """A uniform cubic B-spline over a volume whose coefficients are random.

    Mean 0, standard deviation about 1. Evaluated only where it is wanted, so
    that no more of it is in memory than the caller needs.

    Parameters
    ----------
    shape : (X, Y, Z) voxels of the volume
    cell : voxels between two knots, per axis; the smoothness
    rng : draws the coefficients
    """

    def __init__(
        self, shape: Sequence[int], cell: Sequence[float], rng: np.random.Generator
    ) -> None:
        self._weights = [_spline_matrix(n, c) for n, c in zip(shape, cell, strict=True)]
        x, y, z = (weights.shape[1] for weights in self._weights)
        drawn = rng.standard_normal((y, z, x), dtype=np.float32) * _SPLINE_GAIN
        self._coefficients = np.ascontiguousarray(np.moveaxis(drawn, 2, 0))

    def volume(self, box: Box = EVERYWHERE) -> Array:
        """(X', Y', Z') float32: the field in a box of its volume, of any steps."""
        return along_axes(self._coefficients, self._rows(box))

    def planes(self, box: Box = EVERYWHERE) -> Planes:
        """The same, for who wants it slab by slab."""
        x, y, z = self._rows(box)
        return Planes(x, np.matmul(y, self._coefficients @ z.T))

    def _rows(self, box: Box) -> list[Array]:
        return [weights[part] for weights, part in zip(self._weights, box, strict=True)]


@dataclass(frozen=True)
class Planes:
    """A volume as a product of two matrices.

    Attributes
    ----------
    weights : (X, K) float32, how each plane is mixed
    planes : (K, Y, Z) float32
    """

    weights: Array
    planes: Array

    def slab(self, start: int, stop: int) -> Array:
        """(stop - start, Y, Z) float32: planes `start` to `stop` of the volume."""
        return _mixed(self.weights[start:stop], self.planes)


def _mixed(weights: Array, planes: Array) -> Array:
    """(X, Y, Z) from (X, K) and (K, Y, Z); planes without a weight are passed over."""
    part = span((weights != 0).max(axis=0))
    flat: Array = weights[:, part] @ planes[part].reshape(part.stop - part.start, -1)
    return flat.reshape(-1, *planes.shape[1:])


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


def sampling_matrix(count: int, positions: npt.NDArray[np.float64], sigma: float) -> Array:
    """Gaussian weights that blur an axis and sample it in one product.

    Parameters
    ----------
    count : voxels of the axis
    positions : (samples,) voxels
    sigma : voxels; below 0.05 the samples are interpolated linearly

    Returns
    -------
    (samples, count) float32, rows sum to 1
    """
    distance = np.clip(positions, 0, count - 1)[:, None] - np.arange(count)[None]
    if sigma < 0.05:
        weights = np.clip(1 - np.abs(distance), 0, None)
    else:
        weights = np.exp(-0.5 * (distance / sigma) ** 2)
        weights[np.abs(distance) > max(4 * sigma, 1)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return np.asarray(weights, np.float32)


def along_axes(volume: Array, matrices: Sequence[Array]) -> Array:
    """Multiply each axis of a volume by its matrix.

    The matrices are dense: most of their elements are 0, and yet a product by
    the processor's vectors is faster than one that skips them.

    Parameters
    ----------
    volume : (X, Y, Z)
    matrices : (X', X), (Y', Y), (Z', Z)

    Returns
    -------
    (X', Y', Z') float32, C order
    """
    x, y, z = matrices
    return _mixed(x, np.matmul(y, volume @ z.T))


def blur(volume: Array, sigma: Sequence[float], box: Box = EVERYWHERE) -> Array:
    """Gaussian blur.

    Parameters
    ----------
    volume : (X, Y, Z)
    sigma : voxels per axis
    box : where it is wanted

    Returns
    -------
    (X', Y', Z') float32
    """
    matrices = [
        sampling_matrix(n, np.arange(n)[part] * 1.0, s)
        for n, part, s in zip(volume.shape, box, sigma, strict=True)
    ]
    used = tuple(span((matrix != 0).max(axis=0)) for matrix in matrices)
    return along_axes(
        volume[used], [matrix[:, part] for matrix, part in zip(matrices, used, strict=True)]
    )


def span(line: npt.NDArray[np.bool_]) -> slice:
    """From the first that is true to the last; all where none is."""
    where = np.flatnonzero(line)
    return slice(int(where[0]), int(where[-1]) + 1) if where.size else slice(0, len(line))
