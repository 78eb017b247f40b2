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
    coarse = turned[
        np.ix_(
            *(
                nearest_index(m, n, z)
                for m, n, z in zip(
                    geometry.network_shape, turned.shape, geometry.zooms, strict=True
                )
            )
        )
    ]
    x, y, z = guess_centre(coarse, SPACING_MM)
    centre = (x, y, z - _BELOW_MM / SPACING_MM)
    return core_of_box(_box(turned, geometry, centre))


def core_of_box(box: npt.NDArray[np.float32]) -> Core:
    """The same of a box that has been cut out already.

    Parameters
    ----------
    box : `SHAPE`, RAS+, 2 mm, the core in its middle
    """
    slices = np.moveaxis(box[:, :, _HEIGHTS], 2, 0)
    inside = np.moveaxis(_ellipsoid()[:, :, _HEIGHTS], 2, 0)
    mean = float(slices[inside].mean())
    if not mean > 0:
        raise EmptyScanError("There is nothing in the middle of the scan.")
    return Core(np.ascontiguousarray(slices / np.float32(mean)), np.ascontiguousarray(inside))


def _box(
    turned: npt.NDArray[np.float32], geometry: Geometry, centre: tuple[float, float, float]
) -> npt.NDArray[np.float32]:
    """`SHAPE` voxels of 2 mm around a place of the coarse grid; 0 beyond the scan."""
    box = np.zeros(SHAPE, np.float32)
    axes, sources, places = [], [], []
    for count, middle, whole, length, zoom in zip(
        SHAPE, centre, geometry.network_shape, turned.shape, geometry.zooms, strict=True
    ):
        start = round(middle - (count - 1) / 2)
        low, high = max(start, 0), min(start + count, whole)
        if low >= high:
            return box
        drawn = (area_axis if zoom > 1 else linear_axis)(whole, length, zoom)
        axis, source = _part(drawn, slice(low, high))
        axes.append(axis)
        sources.append(source)
        places.append(slice(low - start, high - start))
    first, second, third = axes
    box[tuple(places)] = resample_volume(turned[tuple(sources)], (first, second, third))
    return box


def _part(axis: Axis, rows: slice) -> tuple[Axis, slice]:
    """Some samples of an axis, and the source voxels that they need."""
    taps = axis.taps[rows]
    first, last = int(taps.min()), int(taps.max())
    part = Axis(taps - first, axis.weights[rows], last + 1 - first)
    return part, slice(first, last + 1)


def _ellipsoid() -> npt.NDArray[np.bool_]:
    places = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * SPACING_MM for n in SHAPE), indexing="ij", sparse=True
    )
    distance = sum((place / r) ** 2 for place, r in zip(places, _RADII_MM, strict=True))
    return np.asarray(distance < 1)
