"""A volume with its place in the world."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from normbank.config import Settings
from normbank.entities import Flag


@dataclass(frozen=True, slots=True)
class Limits:
    """What one file may cost, and what a head must at least be.

    Attributes
    ----------
    max_file_bytes : of the file as it came
    max_volume_bytes : of the file once decompressed
    max_voxels : of the volume, also once resampled to 1 mm
    min_thickness_mm : least extent along each axis
    """

    max_file_bytes: int
    max_volume_bytes: int
    max_voxels: int
    min_thickness_mm: float

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(
            settings.max_upload_bytes,
            settings.max_volume_bytes,
            settings.max_voxels,
            settings.min_thickness_mm,
        )


class Grid(Protocol):
    """Voxels in the world: of a scan, or of a header whose voxels nobody has read yet."""

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def affine(self) -> npt.NDArray[np.float64]: ...


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """One input volume in the order of its file.

    Attributes
    ----------
    data : (X, Y, Z) float32, scanner units, finite
    affine : (4, 4) float64, voxel to RAS+ mm
    header : the nibabel header it came with; None when drawn by code
    flags : what is doubtful about its place, size and intensities
    """

    data: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    header: Any = None
    flags: tuple[Flag, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        x, y, z = self.data.shape
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxels along each axis, from the affine."""
        return spacing_of(self.affine)


@dataclass(frozen=True, slots=True, eq=False)
class LabelVolume:
    """Labels in the order of their file.

    Attributes
    ----------
    data : (X, Y, Z) int32, ids of some scheme
    affine : (4, 4) float64, voxel to RAS+ mm
    """

    data: npt.NDArray[np.int32]
    affine: npt.NDArray[np.float64]


def spacing_of(affine: npt.NDArray[np.float64]) -> tuple[float, float, float]:
    """Length of the affine's columns in mm."""
    x, y, z = np.sqrt((np.asarray(affine, float)[:3, :3] ** 2).sum(axis=0))
    return float(x), float(y), float(z)


def sizes_in_words(sizes: Sequence[float] | npt.NDArray[np.float64]) -> str:
    """Such as `1 × 1 × 1.2`."""
    return " × ".join(f"{size:g}" for size in np.round(sizes, 3))


def voxels_sha256(scan: Scan) -> str:
    """What names a scan's grid and intensities, however its file is packed."""
    digest = hashlib.sha256(f"{scan.shape} {np.round(scan.affine, 3).tolist()}".encode())
    for plane in np.moveaxis(scan.data, 2, 0):
        digest.update(plane.tobytes(order="F"))
    return digest.hexdigest()
