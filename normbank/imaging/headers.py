"""Headers of NIfTI and FreeSurfer files, checked before a voxel is read."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal, cast

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip, isal_zlib
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
from normbank.imaging.scan import Limits, sizes_in_words, spacing_of

MAX_EXTENT_MM = 1000.0
MAX_ANISOTROPY = 50.0  # of a voxel; slices of 0.25 × 0.25 × 10 mm have 40
MAX_DIMENSION = 32767  # what NIfTI-1 can hold
MAX_OFFSET = 16 * 1024 * 1024
START_BYTES = 128 * 1024  # tell a file's kind: more than a gzip header with a long name in it
_GZIP_MAGIC = b"\x1f\x8b"
_NIFTI_SIZES = (348, 540)  # sizeof_hdr, the first number of NIfTI-1 and NIfTI-2
_MGH_VERSION = 1
_MGH_HEADER_BYTES = 284
_NOT_PLACED = severe(
    "orientation_unknown",
    "The header says that it does not know how the volume lies (goodRASFlag 0): nobody can say "
    "which side is left. FreeSurfer's coronal order was taken.",
)
# Neither library has types for these.
DAMAGED: Any = (igzip.BadGzipFile, isal_zlib.error)
_GzipFile: Any = igzip.IGzipFile
_Nifti1: Any = nib.Nifti1Header
_Nifti2: Any = nib.Nifti2Header
_Mgh: Any = nib.freesurfer.mghformat.MGHHeader

ByteOrder = Literal["little", "big"]


@dataclass(frozen=True, slots=True)
class FileKind:
    """What an image file is, by its content.

    Attributes
    ----------
    format : `nifti` or `mgh`
    gzipped : whether it is compressed
    """

    format: Literal["nifti", "mgh"]
    gzipped: bool

    @property
    def ending(self) -> str:
        """The usual ending of such a file's name."""
        if self.format == "nifti":
            return ".nii.gz" if self.gzipped else ".nii"
        return ".mgz" if self.gzipped else ".mgh"

    def decompressed(self, file: BinaryIO) -> BinaryIO:
        """The stream of the file's own bytes, from its beginning."""
        return _gunzipped(file) if self.gzipped else file


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


def kind_of(start: bytes) -> FileKind:
    """What kind of image file begins like this; nobody's file name is asked.

    Parameters
    ----------
    start : the first `START_BYTES` bytes, or all there are

    Raises
    ------
    UnknownFileKindError
        If it begins neither as NIfTI nor as MGH.
    UnreadableScanError
        If it is damaged before that shows; code `truncated` when it ends there.

    Examples
    --------
    >>> kind_of((348).to_bytes(4, "big") + bytes(344)).ending
    '.nii'
    """
    gzipped = start.startswith(_GZIP_MAGIC)
    first = _first_unzipped(start) if gzipped else start[:4]
    if not first:
        raise UnreadableScanError("The file is empty.", code="truncated")
    if _nifti_byte_order(first) is not None:
        return FileKind("nifti", gzipped)
    if first == _MGH_VERSION.to_bytes(4, "big"):
        return FileKind("mgh", gzipped)
    raise UnknownFileKindError(
        "The file is neither NIfTI nor MGH nor DICOM, by its first bytes.",
        facts={"offered": [".nii.gz", ".nii", ".mgz", ".mgh", ".dcm", ".zip"]},
    )


def _gunzipped(file: BinaryIO) -> BinaryIO:
    return cast(BinaryIO, _GzipFile(fileobj=file))


def _first_unzipped(start: bytes) -> bytes:
    """Four bytes of a gzipped file, of which `start` is the beginning."""
    try:
        return _gunzipped(io.BytesIO(start)).read(4)
    except EOFError as error:
        raise UnreadableScanError("The compressed file is cut off.", code="truncated") from error
    except DAMAGED as error:
        raise UnreadableScanError("The compressed file is damaged.") from error


def _nifti_byte_order(first: bytes) -> ByteOrder | None:
    """The byte order of a NIfTI file with these first four bytes; None: it is none."""
    orders: tuple[ByteOrder, ...] = ("little", "big")
    for order in orders:
        if len(first) == 4 and int.from_bytes(first, order) in _NIFTI_SIZES:
            return order
    return None


def read_header(stream: BinaryIO, kind: FileKind, limits: Limits) -> FileHeader:
    """Read and check a header; the stream is left behind its last byte.

    Parameters
    ----------
    stream : decompressed bytes
    kind : what `kind_of` says of the file

    Raises
    ------
    UnreadableScanError, GeometryError, TooLargeError
        As soon as something is wrong; no voxel has been read then.
    """
    header = _read_nifti(stream) if kind.format == "nifti" else _read_mgh(stream)
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
        `bad_affine`, `too_anisotropic`, `too_thin` or `too_wide`.
    """
    if fault := fault_of(affine, shape):
        raise GeometryError(f"The affine cannot be used: {fault}.", code="bad_affine")
    spacing = spacing_of(affine)
    if not all(1e-3 < s < MAX_EXTENT_MM for s in spacing):
        raise GeometryError(
            f"A voxel of {sizes_in_words(spacing)} mm is not plausible.", code="bad_affine"
        )
    if max(spacing) > MAX_ANISOTROPY * min(spacing):
        raise GeometryError(
            f"A voxel of {sizes_in_words(spacing)} mm is more than {MAX_ANISOTROPY:g} times as "
            "long as it is wide; no scan of a head has such voxels.",
            code="too_anisotropic",
        )
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


def _checked_dtype(raw: Any) -> np.dtype[Any]:
    """The data type of a nibabel header's voxels."""
    try:
        dtype: np.dtype[Any] = raw.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise UnreadableScanError(
            "The header names a data type that is not known.", code="unsupported_dtype"
        ) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise UnreadableScanError(
            "The voxels are not plain numbers of at most 64 bits.", code="unsupported_dtype"
        )
    return dtype


def _read_nifti(stream: BinaryIO) -> FileHeader:
    start = _take(stream, 4)
    order = _nifti_byte_order(start)
    if order is None:
        raise UnreadableScanError("The file does not begin with a NIfTI header.")
    size = int.from_bytes(start, order)
    block = start + _take(stream, size - 4)
    cls = _Nifti1 if size == 348 else _Nifti2
    raw = cls(block, endianness=order, check=False)
    dims = _nifti_dims(raw)
    dtype = _checked_dtype(raw)
    if bytes(raw["magic"].tobytes())[:3] not in (b"n+1", b"n+2"):
        raise UnreadableScanError("The file is not a single-file NIfTI image.")
    voxels_at = float(raw["vox_offset"])
    if not math.isfinite(voxels_at) or voxels_at < size:
        raise UnreadableScanError("The NIfTI header gives no place for its voxels.")
    slope, intercept = _nifti_scaling(raw)
    shape = _volume_shape(dims)
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
    if int.from_bytes(block[:4], "big") != _MGH_VERSION:
        raise UnreadableScanError("The file does not begin with an MGH header.")
    try:
        raw = _Mgh(block, check=False)
    except (HeaderDataError, KeyError) as error:
        raise UnreadableScanError("The MGH header makes no sense.") from error
    dtype = _checked_dtype(raw)
    shape = _volume_shape([int(n) for n in raw["dims"]])
    delta = np.asarray(raw["delta"], float)
    if int(raw["goodRASFlag"]) > 0 and not (np.isfinite(delta).all() and (delta > 0).all()):
        raise GeometryError("The voxel spacing is not a positive number.", code="bad_affine")
    with np.errstate(all="ignore"):
        affine = np.asarray(raw.get_affine(), np.float64)
    flags = () if int(raw["goodRASFlag"]) > 0 else (_NOT_PLACED,)
    big = dtype.newbyteorder(">")
    return FileHeader(raw, shape, affine, big, _MGH_HEADER_BYTES, None, None, flags)
