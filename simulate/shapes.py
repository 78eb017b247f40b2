"""Solids with signed distances in mm, from which a head can be drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from simulate.tissue import Array

Point = tuple[float, float, float]
Box = tuple[slice, slice, slice]


class Solid(Protocol):
    """Something with an inside: distances are negative there."""

    def distance(self, x: Array, y: Array, z: Array) -> Array: ...
    def corners(self) -> tuple[Point, Point]: ...
    def mirrored(self) -> Self: ...
    def changed(self, scale: float, shift: Point) -> Self: ...


@dataclass(frozen=True)
class Ellipsoid:
    """Half-axes in mm; `yaw` turns it about the z axis, degrees."""

    centre: Point
    half: Point
    yaw: float = 0.0

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm, exact near the surface (first order)."""
        c, s = np.cos(np.deg2rad(self.yaw)), np.sin(np.deg2rad(self.yaw))
        dx, dy, dz = x - self.centre[0], y - self.centre[1], z - self.centre[2]
        u = (c * dx + s * dy) / self.half[0]
        v = (-s * dx + c * dy) / self.half[1]
        w = dz / self.half[2]
        radius = np.sqrt(u * u + v * v + w * w)
        slope = np.sqrt((u / self.half[0]) ** 2 + (v / self.half[1]) ** 2 + (w / self.half[2]) ** 2)
        distance: Array = (radius * (radius - 1) / np.maximum(slope, 1e-6)).astype(np.float32)
        return distance

    def corners(self) -> tuple[Point, Point]:
        wide = max(self.half[:2]) if self.yaw else 0.0
        half = np.maximum(self.half, (wide, wide, 0))
        return _around(np.array([self.centre]), half)

    def mirrored(self) -> Self:
        return replace(self, centre=_flip(self.centre), yaw=-self.yaw)

    def changed(self, scale: float, shift: Point) -> Self:
        x, y, z = np.add(self.centre, shift)
        a, b, c = np.multiply(self.half, scale)
        return replace(self, centre=(x, y, z), half=(a, b, c))


@dataclass(frozen=True)
class Tube:
    """A polyline with a radius in mm at each of its points."""

    points: tuple[Point, ...]
    radii: tuple[float, ...]

    def distance(self, x: Array, y: Array, z: Array) -> Array:
        """Signed distance in mm to the union of the tapered pieces."""
        nearest = np.full(np.broadcast_shapes(x.shape, y.shape, z.shape), np.inf, np.float32)
        ends = pairwise(zip(self.points, self.radii, strict=True))
        for (start, r0), (stop, r1) in ends:
            step = np.subtract(stop, start)
            dx, dy, dz = x - start[0], y - start[1], z - start[2]
            along = (dx * step[0] + dy * step[1] + dz * step[2]) / max(float(step @ step), 1e-9)
            along = np.clip(along, 0, 1)
            gap = (
                (dx - along * step[0]) ** 2
                + (dy - along * step[1]) ** 2
                + (dz - along * step[2]) ** 2
            )
            np.minimum(nearest, np.sqrt(gap) - (r0 + along * (r1 - r0)), out=nearest)
        return nearest

    def corners(self) -> tuple[Point, Point]:
        return _around(np.array(self.points), np.full(3, max(self.radii)))

    def mirrored(self) -> Self:
        return replace(self, points=tuple(_flip(p) for p in self.points))

    def changed(self, scale: float, shift: Point) -> Self:
        points = tuple((p[0] + shift[0], p[1] + shift[1], p[2] + shift[2]) for p in self.points)
        return replace(self, points=points, radii=tuple(r * scale for r in self.radii))


class Canvas:
    """A label volume in mm coordinates, x to the right, y ahead, z up.

    Parameters
    ----------
    shape : (X, Y, Z) voxels
    affine : (4, 4), voxel to mm; its axes are those of the volume
    """

    def __init__(self, shape: Sequence[int], affine: npt.NDArray[np.float64]) -> None:
        self.labels = np.zeros(tuple(shape), np.int32)
        x, y, z = (
            (np.arange(n) * affine[i, i] + affine[i, 3]).astype(np.float32)
            for i, n in enumerate(shape)
        )
        self.axes: tuple[Array, Array, Array] = (x[:, None, None], y[:, None], z)

    def distance(self, solid: Solid) -> Array:
        """(X, Y, Z) float32 mm over the whole volume."""
        return solid.distance(*self.axes)

    def inside(self, solid: Solid) -> tuple[Box, npt.NDArray[np.bool_]]:
        """The solid's box on the grid, and which of its voxels are inside."""
        low, high = solid.corners()
        x, y, z = (
            slice(*np.searchsorted(axis.ravel(), ends))
            for axis, ends in zip(self.axes, zip(low, high, strict=True), strict=True)
        )
        ax, ay, az = self.axes
        return (x, y, z), solid.distance(ax[x], ay[y], az[z]) < 0

    def paint(self, solid: Solid, label: int, over: Sequence[int] | None = None) -> None:
        """Give the solid's voxels a label; with `over`, only where those labels are."""
        box, mask = self.inside(solid)
        if over is not None:
            mask &= np.isin(self.labels[box], list(over))
        self.labels[box][mask] = label


def _flip(point: Point) -> Point:
    return -point[0], point[1], point[2]


def _around(points: npt.NDArray[np.float64], half: npt.NDArray[np.float64]) -> tuple[Point, Point]:
    low, high = points.min(axis=0) - half, points.max(axis=0) + half
    return (low[0], low[1], low[2]), (high[0], high[1], high[2])
