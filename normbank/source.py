"""A scan as it came, whatever its kind: its grid and scanner first, its voxels when asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from normbank.dicom.files import is_dicom
from normbank.dicom.package import is_zip
from normbank.dicom.series import open_series
from normbank.errors import UnknownFileKindError
from normbank.imaging.headers import START_BYTES, kind_of
from normbank.imaging.nifti import peek_header, read_scan
from normbank.imaging.scan import Limits, Scan

DICOM, ZIP = ".dcm", ".zip"


class ScanSource(Protocol):
    """A scan whose header was checked and whose voxels nobody has read.

    Attributes
    ----------
    shape, affine : its grid, see `normbank.imaging.scan.Grid`
    facts : what its own header says of the scanner, in BIDS' words; empty where it cannot
    """

    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def affine(self) -> npt.NDArray[np.float64]: ...
    @property
    def facts(self) -> Mapping[str, Any]: ...

    def read(self) -> Scan:
        """The voxels; see `normbank.imaging.nifti.read_scan` and `DicomSeries.read`."""


@dataclass(frozen=True, slots=True, eq=False)
class VolumeFile:
    """A NIfTI or MGH file."""

    path: Path
    limits: Limits
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, limits: Limits) -> VolumeFile:
        """Check the header; errors as of `read_scan`."""
        header = peek_header(path, limits)
        return cls(path, limits, header.shape, header.affine)

    def read(self) -> Scan:
        return read_scan(self.path, self.limits)


def open_source(path: Path, limits: Limits, *, salt: str = "") -> ScanSource:
    """Open a volume's file, a DICOM image or the folder of a DICOM series.

    Parameters
    ----------
    path : told by content
    salt : of the hash of the scanner's serial number; empty: the number is left out

    Raises
    ------
    NormbankError
        Whatever is wrong with it: see `read_scan` and `open_series`.
    """
    if path.is_dir() or _ending_of_file(path) == DICOM:
        return open_series(path, limits, salt=salt.encode())
    return VolumeFile.open(path, limits)


def ending_of(start: bytes) -> str:
    """The usual ending of a scan's file, by its first bytes: of a volume, `.dcm` or `.zip`.

    Parameters
    ----------
    start : the first `START_BYTES` bytes, or all there are

    Raises
    ------
    UnknownFileKindError
        If it is nothing of that; other errors as of `kind_of`.
    """
    if is_zip(start):
        return ZIP
    try:
        return kind_of(start).ending
    except UnknownFileKindError:
        if is_dicom(start):
            return DICOM
        raise


def _ending_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return ending_of(file.read(START_BYTES))
