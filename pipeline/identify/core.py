"""The core of a head: what every brain scan shows, stripped or not, cropped or not.

Some slices through an ellipsoid in the middle of the brain, on a grid of 2 mm. It holds
white and grey matter, nuclei and ventricles, and no skull, skin or air.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from normbank.errors import EmptyScanError
from normbank.imaging.brain import guess_centre
from normbank.imaging.geometry import Geometry
from normbank.imaging.resample import (
    Axis,
    area_axis,
    linear_axis,
    nearest_index,
    resample_volume,
)
from normbank.imaging.scan import Scan

SPACING_MM = 2.0
SHAPE = (58, 70, 48)  # voxels: to the right, to the front, up
_BELOW_MM = 4.0  # the box's middle lies so far below that of the head
_RADII_MM = (48.0, 60.0, 38.0)
_HEIGHTS = np.linspace(6, 41, 10).round().astype(int)  # of the slices


class Core(NamedTuple):
    """Slices through the core of a head.

    Attributes
    ----------
    slices : N H W float32, of mean 1 inside
    inside : N H W bool, the ellipsoid
    """

    slices: npt.NDArray[np.float32]
    inside: npt.NDArray[np.bool_]


def core_of(scan: Scan) -> Core:
    """Find the core of a head and look at it.

    Parameters
    ----------
    scan : any orientation and spacing

    Raises
    ------
    EmptyScanError
        If nothing stands out from the background, or nothing is in the middle.
    """
    geometry = Geometry.of(scan, SPACING_MM)
    turned = geometry.turned(scan.data)
    x, y, z = guess_centre(_every_second_mm(turned, geometry), SPACING_MM)
    return _core(_slices(turned, geometry, (x, y, z - _BELOW_MM / SPACING_MM)))


def core_of_box(box: npt.NDArray[np.float32]) -> Core:
    """The same of a box that has been cut out already.

    Parameters
    ----------
    box : `SHAPE`, RAS+, 2 mm, the core in its middle
    """
    return _core(box[:, :, _HEIGHTS])


def _core(planes: npt.NDArray[np.float32]) -> Core:
    """Of (X, Y, N) planes at the heights that count."""
    slices = np.moveaxis(planes, 2, 0)
    inside = np.moveaxis(_ellipsoid()[:, :, _HEIGHTS], 2, 0)
    mean = float(slices[inside].mean())
    if not mean > 0:
        raise EmptyScanError("There is nothing in the middle of the scan.")
    return Core(np.ascontiguousarray(slices / np.float32(mean)), np.ascontiguousarray(inside))


def _every_second_mm(
    turned: npt.NDArray[np.float32], geometry: Geometry
) -> npt.NDArray[np.float32]:
    """The nearest voxels of a grid of 2 mm, read as they lie in memory."""
    drawn = zip(geometry.network_shape, turned.shape, geometry.zooms, strict=True)
    nearest = [nearest_index(m, n, zoom) for m, n, zoom in drawn]
    order = np.argsort([-abs(stride) for stride in turned.strides])
    sparse = turned.transpose(order)[np.ix_(*(nearest[axis] for axis in order))]
    return np.asarray(sparse.transpose(np.argsort(order)))


def _slices(
    turned: npt.NDArray[np.float32], geometry: Geometry, centre: tuple[float, float, float]
) -> npt.NDArray[np.float32]:
    """(X, Y, N) planes around a place of the grid of 2 mm; 0 beyond the scan."""
    wanted = (np.arange(SHAPE[0]), np.arange(SHAPE[1]), _HEIGHTS)
    planes = np.zeros([len(places) for places in wanted], np.float32)
    axes, sources, filled = [], [], []
    for places, size, middle, whole, length, zoom in zip(
        wanted, SHAPE, centre, geometry.network_shape, turned.shape, geometry.zooms, strict=True
    ):
        rows = places + round(middle - (size - 1) / 2)
        there = (rows >= 0) & (rows < whole)
        if not there.any():
            return planes
        drawn = (area_axis if zoom > 1 else linear_axis)(whole, length, zoom)
        axis, source = _part(drawn, rows[there])
        axes.append(axis)
        sources.append(source)
        filled.append(there)
    first, second, third = axes
    planes[np.ix_(*filled)] = resample_volume(turned[np.ix_(*sources)], (first, second, third))
    return planes


def _part(axis: Axis, rows: npt.NDArray[np.intp]) -> tuple[Axis, npt.NDArray[np.intp]]:
    """Some samples of an axis, and which source voxels they need."""
    source, taps = np.unique(axis.taps[rows], return_inverse=True)
    weights = axis.weights[rows]
    return Axis(taps.reshape(weights.shape), weights, len(source)), source


def _ellipsoid() -> npt.NDArray[np.bool_]:
    places = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * SPACING_MM for n in SHAPE), indexing="ij", sparse=True
    )
    distance = sum((place / r) ** 2 for place, r in zip(places, _RADII_MM, strict=True))
    return np.asarray(distance < 1)
