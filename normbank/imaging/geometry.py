"""From a scan's own grid to the network's, and exactly back.

Decided first, applied second: a `Geometry` holds the numbers, its methods
only use them, so that what was done can be undone.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from normbank.imaging.masks import box_of, counted, relabelled
from normbank.imaging.resample import (
    Axis,
    area_axis,
    gaussian_axis,
    linear_axis,
    nearest_index,
    resample_classes,
    resample_volume,
)
from normbank.imaging.scan import Grid, spacing_of
from normbank.imaging.window import Window

__all__ = ["Geometry", "Window", "nearest_ras"]

_SAME_SPACING = 0.03  # relative; such an axis is not resampled
_RESTORING_ROUNDS = 2
_SPACING_DIGITS = 4  # files store float32: equal spacings must stay equal
_D = TypeVar("_D", bound=np.generic)


@dataclass(frozen=True, slots=True, eq=False)
class Geometry:
    """Axes turned to RAS+, then zoomed to the network's spacing.

    The network's first axis grows to the patient's right, the second to the
    front, the third to the top. Its axes stay the scan's voxel axes: oblique
    scans are not rotated.

    Attributes
    ----------
    scan_shape : voxels (X, Y, Z) in the file
    order : the file's axis that becomes network axis 0, 1, 2
    flips : whether it is reversed
    zooms : network spacing over scan spacing, per network axis; 1: left alone
    network_shape : voxels (X', Y', Z')
    network_affine : (4, 4), network voxel to RAS+ mm
    """

    scan_shape: tuple[int, int, int]
    order: tuple[int, int, int]
    flips: tuple[bool, bool, bool]
    zooms: tuple[float, float, float]
    network_shape: tuple[int, int, int]
    network_affine: npt.NDArray[np.float64]

    @classmethod
    def of(cls, scan: Grid, spacing_mm: float) -> Self:
        """Decide how a scan gets into the network's space.

        Parameters
        ----------
        scan : any of the 48 orientations, any spacing, oblique or not
        spacing_mm : mm, the network's isotropic spacing

        Examples
        --------
        >>> from normbank.imaging.scan import Scan
        >>> scan = Scan(np.zeros((64, 64, 30), np.float32), np.diag([1.0, 1.0, 2.0, 1.0]))
        >>> geometry = Geometry.of(scan, 1.0)
        >>> geometry.network_shape
        (64, 64, 60)
        >>> geometry.labels_to_scan(np.ones((64, 64, 60), np.uint8)).shape
        (64, 64, 30)
        """
        order, flips = nearest_ras(scan.affine)
        turned = _turned_affine(scan.affine, scan.shape, order, flips)
        spacing = [round(s, _SPACING_DIGITS) for s in spacing_of(turned)]
        zooms = [_zoom(s, spacing_mm) for s in spacing]
        turned_shape = [scan.shape[a] for a in order]
        shape = [_samples(n, z) for n, z in zip(turned_shape, zooms, strict=True)]
        step = np.diag([*zooms, 1.0])
        first = np.array(turned_shape) - 1 - (np.array(shape) - 1) * zooms
        step[:3, 3] = first / 2
        return cls(
            scan.shape, order, flips, _three(zooms), _three(shape), np.asarray(turned @ step)
        )

    @property
    def is_identity(self) -> bool:
        """Whether no axis is resampled, so that voxels are only reordered."""
        return self.zooms == (1.0, 1.0, 1.0)

    def to_network(self, data: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Bring a volume into the network's space.

        Axes on which the scan is finer are smoothed with a Gaussian first,
        the others interpolated linearly.

        Parameters
        ----------
        data : (X, Y, Z), on the scan's grid

        Returns
        -------
        (X', Y', Z') float32; where no axis is resampled, a view of `data`
        """
        turned = self.turned(np.asarray(data, np.float32))
        if self.is_identity:
            return turned
        x, y, z = (
            None if z == 1 else (gaussian_axis if z > 1 else linear_axis)(m, n, z)
            for m, n, z in zip(self.network_shape, turned.shape, self.zooms, strict=True)
        )
        return resample_volume(turned, (x, y, z))

    def labels_to_network(self, classes: npt.NDArray[np.uint8], n: int) -> npt.NDArray[np.uint8]:
        """Bring class numbers into the network's space.

        Where the scan is nowhere finer than the network, voxels whose class
        `labels_to_scan` would not restore are put right at their centre: a
        network that learns the labels by heart answers them as they were.

        Parameters
        ----------
        classes : (X, Y, Z), on the scan's grid, below `n`

        Returns
        -------
        (X', Y', Z') uint8
        """
        turned = np.ascontiguousarray(self.turned(classes))
        if self.is_identity:
            return turned
        axes = _class_axes(self.network_shape, turned.shape, self.zooms)
        network = resample_classes(turned, axes, n)
        if max(self.zooms) <= 1:
            for _ in range(_RESTORING_ROUNDS):
                self._restore(turned, network, n)
        return network

    def _restore(
        self, turned: npt.NDArray[np.uint8], network: npt.NDArray[np.uint8], n: int
    ) -> None:
        """Set the voxels of `network` at whose centres `turned` would be lost."""
        wrong = np.nonzero(resample_classes(network, self._axes_back(), n) != turned)
        index = (
            nearest_index(m, k, 1 / zoom)[w]
            for m, k, zoom, w in zip(
                turned.shape, self.network_shape, self.zooms, wrong, strict=True
            )
        )
        network[tuple(index)] = turned[wrong]

    def _axes_back(self) -> tuple[Axis, Axis, Axis]:
        shape = _three([self.scan_shape[a] for a in self.order])
        return _class_axes(shape, self.network_shape, _three([1 / z for z in self.zooms]))

    def labels_to_scan(
        self, classes: npt.NDArray[np.uint8], dtype: type[np.integer[Any]] = np.uint8
    ) -> npt.NDArray[Any]:
        """Bring class numbers back onto the scan's grid.

        Parameters
        ----------
        classes : (X', Y', Z')
        dtype : of what is returned

        Returns
        -------
        (X, Y, Z), in the order of memory that files have
        """
        if classes.shape != self.network_shape:
            raise ValueError("classes are not on the network's grid")
        scan_classes: npt.NDArray[Any] = np.zeros(self.scan_shape, dtype, order="F")
        turned, box = self.turned(scan_classes), box_of(classes)
        if self.is_identity:
            turned[box] = classes[box]
            return scan_classes
        reached = [a.reached(s) for a, s in zip(self._axes_back(), box, strict=True)]
        there, source, axes = zip(*reached, strict=True)
        part, present = _numbered(classes[source])
        table = np.zeros(256, np.uint8)
        table[: len(present)] = present
        turned[there] = relabelled(resample_classes(part, axes, len(present)), table)
        return scan_classes

    def turned(self, data: npt.NDArray[_D]) -> npt.NDArray[_D]:
        """A view of (X, Y, Z) on the scan's grid: axes to the right, to the front and up."""
        if data.shape != self.scan_shape:
            raise ValueError("data are not on the scan's grid")
        turned = data.transpose(self.order)
        return turned[tuple(slice(None, None, -1 if f else 1) for f in self.flips)]


def nearest_ras(
    affine: npt.NDArray[np.float64],
) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """Which voxel axis runs most nearly right, front and up.

    Parameters
    ----------
    affine : (4, 4), voxel to RAS+ mm

    Returns
    -------
    order : voxel axis for right, front, up; the choice whose axes together
        deviate least, however the file stores them
    flips : whether the axis has to be reversed

    Examples
    --------
    A sagittal scan, stored from front to back, top to bottom and left to right:

    >>> affine = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], float)
    >>> nearest_ras(affine)
    ((2, 0, 1), (False, True, True))
    """
    cosines = affine[:3, :3] / np.array(spacing_of(affine))
    size = np.abs(cosines)
    order = max(permutations(range(3)), key=lambda p: sum(size[i, a] for i, a in enumerate(p)))
    flips = [bool(cosines[i, a] < 0) for i, a in enumerate(order)]
    return _three(order), _three(flips)


def _turned_affine(
    affine: npt.NDArray[np.float64],
    shape: tuple[int, int, int],
    order: tuple[int, int, int],
    flips: tuple[bool, bool, bool],
) -> npt.NDArray[np.float64]:
    """Affine of the volume once its axes are reordered and reversed."""
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for network_axis, (axis, flip) in enumerate(zip(order, flips, strict=True)):
        turn[axis, network_axis] = -1 if flip else 1
        turn[axis, 3] = shape[axis] - 1 if flip else 0
    return np.asarray(affine @ turn)


def _numbered(
    classes: npt.NDArray[np.uint8],
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Each voxel's place in the list of what occurs, 0 always being first, and that list."""
    present = np.union1d(np.flatnonzero(counted(classes, 256)), [0]).astype(np.uint8)
    numbers = np.zeros(256, np.uint8)
    numbers[present] = np.arange(len(present))
    return relabelled(classes, numbers), present


def _zoom(spacing: float, target: float) -> float:
    zoom = target / spacing
    return 1.0 if abs(zoom - 1) <= _SAME_SPACING else zoom


def _samples(count: int, zoom: float) -> int:
    """Network voxels that cover `count` scan voxels."""
    return max(1, int(np.ceil(count / zoom - 1e-3)))


def _class_axes(
    shape: tuple[int, ...], source: tuple[int, ...], zooms: tuple[float, float, float]
) -> tuple[Axis, Axis, Axis]:
    """Votes are taken over a sample's width where it is the coarser one."""
    x, y, z = (
        (area_axis if zoom > 1 else linear_axis)(m, n, zoom)
        for m, n, zoom in zip(shape, source, zooms, strict=True)
    )
    return x, y, z


def _three(values: Any) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third
