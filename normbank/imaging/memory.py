"""How much memory a scan will take, from its header alone.

Whole-volume arrays are counted, and of the stages the one that holds most of them at once.
Turning a head upright is, where a volume is not much finer than the network's, and any head
may need it: one that lies straight then takes half of what is foreseen, one that is turned
nearly all of it (`docs/results/memory.md`).
"""

from __future__ import annotations

import math

from normbank.imaging.geometry import Geometry
from normbank.imaging.resample import SLAB_VOXELS
from normbank.imaging.scan import Grid, spacing_of
from normbank.imaging.upright import SIDE_MM

_FIXED = 128 << 20  # a window's slices, what the network sees and gives, a chunk of the file
_BRAIN_MM3 = 160.0 * 192.0 * 160.0  # the box in which labels are brought back


def reading_bytes(grid: Grid) -> int:
    """Of a scan while it is read and its air is brought to 0.

    Parameters
    ----------
    grid : a header, or a scan
    """
    return 5 * math.prod(grid.shape) + (16 << 20)


def needed_bytes(grid: Grid, spacing_mm: float) -> int:
    """Of a scan from its file to its answer, the head turned upright where that is needed.

    Parameters
    ----------
    grid : a header, or a scan
    spacing_mm : of the network
    """
    return 4 * math.prod(grid.shape) + _work_bytes(grid, spacing_mm)


def labelled_bytes(grid: Grid, spacing_mm: float) -> int:
    """Of a scan with labels on its grid, read and held against what a network sees.

    Parameters
    ----------
    grid : a header, or a scan
    spacing_mm : of the network
    """
    voxels = math.prod(grid.shape)
    compared = 8 * voxels  # the answer, both as classes, masks of a structure
    return 8 * voxels + max(_work_bytes(grid, spacing_mm), compared)


def _work_bytes(grid: Grid, spacing_mm: float) -> int:
    """Of segmenting a scan, beside the scan itself."""
    geometry = Geometry.of(grid, spacing_mm)
    voxels, seen = math.prod(grid.shape), math.prod(geometry.network_shape)
    volume = 0 if geometry.is_identity else 4 * seen
    upright = round(SIDE_MM / spacing_mm) ** 3
    looking = 4 * seen  # the head's mask, and what a percentile sorts
    turning = seen + 4 * upright + max(8 * seen, 8 * upright)  # a spline's double precision
    brain = min(voxels, _BRAIN_MM3 / math.prod(spacing_of(grid.affine)))
    back = seen + 3 * voxels + (0 if geometry.is_identity else 6 * int(brain))
    later = volume + max(looking, turning, back)
    return max(_resampling_bytes(geometry), later) + _FIXED


def _resampling_bytes(geometry: Geometry) -> int:
    """Of `normbank.imaging.resample.resample_volume`, its result included."""
    if geometry.is_identity:
        return 0
    x, y, z = geometry.network_shape
    width, height, depth = (geometry.scan_shape[axis] for axis in geometry.order)
    in_plane = geometry.zooms[:2] != (1.0, 1.0)
    between = x * y * depth if in_plane and geometry.zooms[2] != 1.0 else 0
    slab = max(SLAB_VOXELS, max(x, width) * max(y, height), y * max(z, depth))
    return 4 * (x * y * z + between + 4 * slab)
