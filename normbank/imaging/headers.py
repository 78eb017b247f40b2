"""Headers of NIfTI and FreeSurfer files, checked before a voxel is read."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.spatialimages import HeaderDataError

from normbank.entities import Flag
from normbank.entities.flags import severe
from normbank.errors import (
    GeometryError,
    TooLargeError,
    UnknownFileKindError,
    UnreadableScanError,
)
from normbank.imaging.nifti_forms import fault_of, place
from normbank.imaging.scan import Limits, spacing_of

MAX_EXTENT_MM = 1000.0
MAX_DIMENSION = 32767  # what NIfTI-1 can hold
MAX_OFFSET = 16 * 1024 * 1024
_MGH_HEADER_BYTES = 284
# nibabel has no types for these
_NOT_PLACED = severe(
    "orientation_unknown",
    "The header says that it does not know how the volume lies (goodRASFlag 0): nobody can say "
    "which side is left. FreeSurfer's coronal order was taken.",
)
_Nifti1: Any = nib.Nifti1Header
_Nifti2: Any = nib.Nifti2Header
_Mgh: Any = nib.freesurfer.mghformat.MGHHeader
_KINDS = {".nii": "nifti", ".nii.gz": "nifti", ".mgh": "mgh", ".mgz": "mgh", ".mgh.gz": "mgh"}


@dataclass(frozen=True, slots=True)
class FileHeader:
    """What the header promises; nothing of it has been read yet.

    Attributes
    ----------
    raw : the nibabel header
    shape : voxels (X, Y, Z)
    affine : (4, 4), voxel to RAS+ mm
    dtype : of the stored voxels, with byte order
    voxels_at : byte at which the voxels begin
    slope, intercept : stored * slope + intercept; None: as stored
    flags : what is doubtful about the grid's place and size
    """

    raw: Any
    shape: tuple[int, int, int]
    affine: npt.NDArray[np.float64]
    dtype: np.dtype[Any]
    voxels_at: int
    slope: float | None
    intercept: float | None
    flags: tuple[Flag, ...] = ()

    @property
    def voxel_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def kind_of(name: str) -> str:
    """`nifti` or `mgh`, by the client's file name.

    Raises
    ------
    UnknownFileKindError
        If the name ends in none of the known ways.
    """
    lowered = name.lower()
    for ending, kind in _KINDS.items():
        if lowered.endswith(ending):
            return kind
    raise UnknownFileKindError("The file is none of .nii, .nii.gz, .mgz or .mgh.")


def read_header(stream: BinaryIO, kind: str, limits: Limits) -> FileHeader:
    """Read and check a header; the stream is left behind its last byte.

    Parameters
    ----------
    stream : decompressed bytes
    kind : `nifti` or `mgh`

    Raises
    ------
    UnreadableScanError, GeometryError, TooLargeError
        As soon as something is wrong; no voxel has been read then.
    """
    header = _read_nifti(stream) if kind == "nifti" else _read_mgh(stream)
    voxels = math.prod(header.shape)
    if voxels > limits.max_voxels or max(header.shape) > MAX_DIMENSION:
        raise TooLargeError("The volume has more voxels than the service takes.")
    if header.voxels_at > MAX_OFFSET:
        raise TooLargeError("The file's header is larger than the service takes.")
    if header.voxels_at + header.voxel_bytes > limits.max_volume_bytes:
        raise TooLargeError("The volume has more bytes than the service takes.")
    check_affine(header.affine, header.shape, limits)
    return header


def check_affine(
    affine: npt.NDArray[np.float64], shape: tuple[int, int, int], limits: Limits
) -> None:
    """Refuse a grid on which no head can lie.

    Raises
    ------
    GeometryError
        `bad_affine`, `too_thin` or `too_wide`.
    """
    if fault := fault_of(affine, shape):
        raise GeometryError(f"The affine cannot be used: {fault}.", code="bad_affine")
    spacing = spacing_of(affine)
    if not all(1e-3 < s < MAX_EXTENT_MM for s in spacing):
        sizes = " × ".join(f"{s:g}" for s in spacing)
        raise GeometryError(f"A voxel of {sizes} mm is not plausible.", code="bad_affine")
    extent = [n * s for n, s in zip(shape, spacing, strict=True)]
    if min(extent) < limits.min_thickness_mm:
        raise GeometryError(
            f"The volume is {min(extent):.1f} mm thick; a head needs "
            f"{limits.min_thickness_mm:g} mm along each axis.",
            code="too_thin",
        )
    if max(extent) > MAX_EXTENT_MM or math.prod(extent) > limits.max_voxels:
        raise GeometryError("The volume is wider than any scanner.", code="too_wide")


def _take(stream: BinaryIO, count: int) -> bytes:
    data = stream.read(count)
    if len(data) < count:
        raise UnreadableScanError("The file ends inside its header.", code="truncated")
    return data


def _volume_shape(dims: list[int]) -> tuple[int, int, int]:
    """Three dimensions of one volume; trailing ones of a fourth are dropped."""
    if any(n < 1 for n in dims):
        raise GeometryError("A dimension is not positive.")
    if len(dims) < 3:
        raise GeometryError("The image has fewer than three dimensions.", code="not_one_volume")
    if math.prod(dims[3:]) != 1:
        raise GeometryError("The file holds more than one volume.", code="not_one_volume")
    return dims[0], dims[1], dims[2]


def _checked_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UnreadableScanError(
            "The voxels are not plain numbers of at most 64 bits.", code="unsupported_dtype"
        )
    return dtype


def _read_nifti(stream: BinaryIO) -> FileHeader:
    start = _take(stream, 4)
    size = int.from_bytes(start, "little")
    if size not in (348, 540):
        size = int.from_bytes(start, "big")
    if size not in (348, 540):
        raise UnreadableScanError("The file does not begin with a NIfTI header.")
    block = start + _take(stream, size - 4)
    cls = _Nifti1 if size == 348 else _Nifti2
    try:
        raw = cls.from_fileobj(io.BytesIO(block), check=False)
        dtype = _checked_dtype(raw.get_data_dtype())
    except HeaderDataError as error:
        raise UnreadableScanError("The NIfTI header makes no sense.") from error
    if bytes(raw["magic"].tobytes())[:3] not in (b"n+1", b"n+2"):
        raise UnreadableScanError("The file is not a single-file NIfTI image.")
    voxels_at = float(raw["vox_offset"])
    if not math.isfinite(voxels_at) or voxels_at < size:
        raise UnreadableScanError("The NIfTI header gives no place for its voxels.")
    slope, intercept = _nifti_scaling(raw)
    shape = _volume_shape(_nifti_dims(raw))
    placed = place(raw, shape)
    return FileHeader(
        raw, shape, placed.affine, dtype, int(voxels_at), slope, intercept, placed.flags
    )


def _nifti_dims(raw: Any) -> list[int]:
    count = int(raw["dim"][0])
    if not 1 <= count <= 7:
        raise UnreadableScanError("The NIfTI header gives no dimensions.")
    return [int(n) for n in raw["dim"][1 : count + 1]]


def _nifti_scaling(raw: Any) -> tuple[float | None, float | None]:
    try:
        slope, intercept = raw.get_slope_inter()
    except HeaderDataError as error:
        raise UnreadableScanError("The NIfTI scaling makes no sense.") from error
    return slope, intercept


def _read_mgh(stream: BinaryIO) -> FileHeader:
    block = _take(stream, _MGH_HEADER_BYTES)
    if int.from_bytes(block[:4], "big") != 1:
        raise UnreadableScanError("The file does not begin with an MGH header.")
    try:
        raw = _Mgh(block, check=False)
        dtype = _checked_dtype(raw.get_data_dtype())
    except (HeaderDataError, KeyError) as error:
        raise UnreadableScanError("The MGH header makes no sense.") from error
    shape = _volume_shape([int(n) for n in raw["dims"]])
    delta = np.asarray(raw["delta"], float)
    if int(raw["goodRASFlag"]) > 0 and not (np.isfinite(delta).all() and (delta > 0).all()):
        raise GeometryError("The voxel spacing is not a positive number.", code="bad_affine")
    with np.errstate(all="ignore"):
        affine = np.asarray(raw.get_affine(), np.float64)
    flags = () if int(raw["goodRASFlag"]) > 0 else (_NOT_PLACED,)
    big = dtype.newbyteorder(">")
    return FileHeader(raw, shape, affine, big, _MGH_HEADER_BYTES, None, None, flags)
