"""NIfTI and FreeSurfer volumes, read with suspicion and written exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt
from isal import igzip

from normbank.errors import (
    GeometryMismatchError,
    InvalidError,
    TooLargeError,
    UnreadableScanError,
)
from normbank.imaging.finish import finished
from normbank.imaging.headers import DAMAGED, START_BYTES, FileHeader, kind_of, read_header
from normbank.imaging.scan import LabelVolume, Limits, Scan, spacing_of

__all__ = [
    "LabelVolume",
    "Limits",
    "Scan",
    "check_same_grid",
    "check_same_shape",
    "peek_header",
    "read_labels",
    "read_scan",
    "write_labels",
    "write_scan",
]

_CHUNK_VOXELS = 1 << 20  # read and converted at a time
_MAX_TRAILER = 16 * 1024 * 1024  # bytes a file may hold behind its voxels
_MAX_SHIFT = 0.1  # of the smallest spacing: how far two grids may lie apart
_GZIP_LEVEL = 2  # of ISA-L, whose greatest is 3
_MAX_FRACTION = 1e-3  # how far a stored label may lie from a whole number
_MAX_ROUNDING = 0.1  # likewise, where the header's own slope is that coarse
_NIFTI1: Any = nib.Nifti1Header  # nibabel has no types for it
_FREE_TEXT = ("descrip", "aux_file", "intent_name", "db_name", "data_type")


def read_scan(path: Path, limits: Limits) -> Scan:
    """Read one volume; the header is checked before a voxel is read.

    Parameters
    ----------
    path : the file, whatever it is called; its first bytes say NIfTI or MGH,
        gzipped or not

    Returns
    -------
    float32 in the file's order, scaled as the header says, air at 0 (see
    `normbank.imaging.air`); voxels that are not finite count as air

    Raises
    ------
    UnknownFileKindError
        If it is neither NIfTI nor MGH.
    UnreadableScanError
        If the bytes are no such file; code `truncated` when they end early.
    TooLargeError
        If the file, its bytes once decompressed or its voxels are too many.
    GeometryError
        If no head can lie on the grid.
    EmptyScanError
        If the voxels are all alike or none is finite.
    """
    header, data = _read(path, limits, np.float32, _scaled)
    return finished(data, header.affine, header.raw, header.flags)


def read_labels(path: Path, limits: Limits) -> LabelVolume:
    """Read a label map, whatever its data type, as whole numbers.

    Scaling leaves labels a hair off: what lies within 1e-3 of a whole number is
    taken for it, or within half a step of a header that scales integers (nibabel
    stores float labels so), where that is at most 0.1.

    Parameters, errors : as for `read_scan`

    Returns
    -------
    int32 in the file's order

    Raises
    ------
    InvalidError
        `labels_not_integer` if a value is no whole number of 32 bits; the
        message names the worst one.
    """
    rounding = _Rounding()
    header, labels = _read(path, limits, np.int32, rounding.take)
    rounding.check(_fraction_of(header))
    return LabelVolume(labels, header.affine)


class _Rounding:
    """Labels as whole numbers, and how far any of them was from one."""

    def __init__(self) -> None:
        self._low, self._high = 0.0, 0.0
        self._worst, self._worst_off = 0.0, 0.0

    def take(self, stored: npt.NDArray[Any], header: FileHeader) -> npt.NDArray[Any]:
        """Some voxels as they were stored, (V,), scaled and rounded."""
        whole = stored.dtype.kind in "iu" and header.slope in (None, 1.0) and not header.intercept
        values = stored if whole else _scaled(stored.astype(np.float64), header)
        self._low = np.minimum(self._low, values.min())  # both hand on what is no number
        self._high = np.maximum(self._high, values.max())
        if whole:
            return values
        rounded: npt.NDArray[Any] = np.rint(values)
        off = np.abs(values - rounded)
        if off.max() > self._worst_off:
            self._worst, self._worst_off = float(values[off.argmax()]), float(off.max())
        return rounded

    def check(self, fraction: float) -> None:
        """InvalidError where a label was not a whole number of 32 bits, but for a fraction."""
        bounds = np.iinfo(np.int32)
        if not (bounds.min <= self._low and self._high <= bounds.max):
            worst = self._high if not self._high <= bounds.max else self._low
            raise InvalidError(
                f"A label is not a number of 32 bits: {worst:g}.", code="labels_not_integer"
            )
        if self._worst_off > fraction:
            raise InvalidError(
                f"The labels are not whole numbers: one of them is {self._worst:.9g}.",
                code="labels_not_integer",
            )


def _fraction_of(header: FileHeader) -> float:
    """How far from a whole number the header's scaling may have left a label."""
    half_step = 0.51 * abs(header.slope or 0.0) if header.dtype.kind in "iu" else 0.0
    return half_step if _MAX_FRACTION < half_step <= _MAX_ROUNDING else _MAX_FRACTION


def check_same_shape(scan: tuple[int, ...], labels: tuple[int, ...]) -> None:
    """GeometryMismatchError where labels have another shape than their scan."""
    if scan != labels:
        raise GeometryMismatchError(
            "The labels have another shape than their scan.",
            facts={"scan_shape": list(scan), "labels_shape": list(labels)},
        )


def check_same_grid(scan: Scan, labels: LabelVolume) -> None:
    """Make sure that each label belongs to the voxel of the same index.

    Raises
    ------
    GeometryMismatchError
        If the shapes differ, or a corner of the volume lies more than a tenth
        of a voxel from the other's.
    """
    check_same_shape(scan.data.shape, labels.data.shape)
    last = np.array(scan.data.shape) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * last
    shift = corners @ (scan.affine - labels.affine)[:3, :3].T
    shift += (scan.affine - labels.affine)[:3, 3]
    distance = float(np.sqrt((shift**2).sum(axis=1)).max())
    if distance > _MAX_SHIFT * min(scan.spacing_mm):
        raise GeometryMismatchError(
            "The labels lie elsewhere than their scan.", facts={"distance_mm": round(distance, 3)}
        )


def write_labels(data: npt.NDArray[np.integer[Any]], like: Scan) -> bytes:
    """Labels as `.nii.gz` on the grid of their scan.

    A NIfTI scan's spatial header is kept bit for bit (zooms, both forms and
    their codes, units); free text and extensions, where names of people may
    hide, are left out. The same labels always give the same bytes.

    Parameters
    ----------
    data : (X, Y, Z), ids; stored as uint8, int16 or int32, the least that holds them
    like : the scan they belong to

    Returns
    -------
    the gzipped file
    """
    if data.shape != like.data.shape:
        raise ValueError("labels and scan differ in shape")
    low, high = (int(data.min()), int(data.max())) if data.size else (0, 0)
    fits = (np.iinfo(t).min <= low and high <= np.iinfo(t).max for t in (np.uint8, np.int16))
    dtype = np.dtype(next((t for t, f in zip(("<u1", "<i2"), fits, strict=True) if f), "<i4"))
    return _pack(_spatial_header(like), data, dtype)


def write_scan(scan: Scan) -> bytes:
    """A scan as float32 `.nii.gz` on its own grid; see `write_labels`."""
    return _pack(_spatial_header(scan), scan.data, np.dtype("<f4"))


def peek_header(path: Path, limits: Limits) -> FileHeader:
    """The checked header of a file, without a voxel; errors as for `read_scan`."""
    with _opened(path, limits) as (header, _):
        return header


@contextmanager
def _opened(path: Path, limits: Limits) -> Iterator[tuple[FileHeader, BinaryIO]]:
    """The checked header, and the decompressed bytes behind it."""
    if path.stat().st_size > limits.max_file_bytes:
        raise TooLargeError("The file has more bytes than the service takes.")
    with path.open("rb") as file:
        kind = kind_of(file.read(START_BYTES))
        file.seek(0)
        stream = kind.decompressed(file)
        try:
            yield read_header(stream, kind, limits), stream
        except EOFError as error:
            raise _truncated() from error
        except DAMAGED as error:
            raise UnreadableScanError("The compressed file is damaged.") from error


def _read(
    path: Path,
    limits: Limits,
    dtype: type,
    convert: Callable[[npt.NDArray[Any], FileHeader], npt.NDArray[Any]],
) -> tuple[FileHeader, npt.NDArray[Any]]:
    """The checked header and the voxels, (X, Y, Z) in the file's order, converted in chunks.

    Parameters
    ----------
    dtype : of the voxels that are returned
    convert : some voxels as they are stored, (V,), to what they stand for
    """
    with _opened(path, limits) as (header, stream):
        gap = header.voxels_at - stream.tell()
        if gap > 0 and len(stream.read(gap)) < gap:
            raise _truncated()
        voxels: npt.NDArray[Any] = np.empty(math.prod(header.shape), dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            for start in range(0, len(voxels), _CHUNK_VOXELS):
                part = voxels[start : start + _CHUNK_VOXELS]
                part[:] = convert(_take(stream, len(part), header.dtype), header)
        rest = 0
        while chunk := stream.read(_CHUNK_VOXELS):  # to the end: gzip checks its sum there
            rest += len(chunk)
            if rest > _MAX_TRAILER:
                raise TooLargeError("The file goes on behind its voxels.")
    return header, voxels.reshape(header.shape, order="F")


def _take(stream: BinaryIO, count: int, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The next voxels as they are stored, (count,)."""
    buffer = np.empty(count * dtype.itemsize, np.uint8)
    view, filled = memoryview(buffer), 0  # type: ignore[arg-type]  # numpy arrays are buffers
    while filled < len(view):
        read = stream.readinto(view[filled:])  # type: ignore[attr-defined]
        if not read:
            raise _truncated()
        filled += read
    return buffer.view(dtype)


def _truncated() -> UnreadableScanError:
    return UnreadableScanError("The file ends before its last voxel.", code="truncated")


def _scaled(stored: npt.NDArray[Any], header: FileHeader) -> npt.NDArray[Any]:
    """Stored voxels times slope plus intercept; the voxels themselves where these do nothing."""
    if header.slope is None or (header.slope == 1.0 and not header.intercept):
        return stored
    scaled: npt.NDArray[Any] = stored * np.float64(header.slope) + (header.intercept or 0.0)
    return scaled


def _spatial_header(like: Scan) -> Any:
    """A little-endian NIfTI header with the scan's place in the world alone."""
    source: Any = like.header
    header: Any
    if isinstance(source, nib.Nifti1Header):
        header = source.as_byteswapped("<")  # type: ignore[no-untyped-call]
        pixdim = np.array(header["pixdim"])
        header.set_data_shape(like.data.shape)
        header["pixdim"] = pixdim
    else:
        header = _NIFTI1(endianness="<")
        header.set_data_shape(like.data.shape)
        header.set_sform(like.affine, code="scanner")
        header.set_qform(like.affine, code="scanner")
        header.set_xyzt_units("mm")
        header["pixdim"][1:4] = spacing_of(like.affine) if source is None else source["delta"]
    for field in _FREE_TEXT:
        if field in header:
            header[field] = b""
    header["cal_min"] = header["cal_max"] = 0
    header["intent_code"] = 0
    return header


def _pack(header: Any, data: npt.NDArray[Any], dtype: np.dtype[Any]) -> bytes:
    """Header, no extensions, voxels as `dtype`; gzipped without a time stamp."""
    header.set_data_dtype(dtype)
    header["scl_slope"], header["scl_inter"] = 1, 0
    start = header.sizeof_hdr + 4
    header["vox_offset"] = start
    second = isinstance(header, nib.Nifti2Header)
    header["magic"] = b"n+2" if second else b"n+1"
    file = bytearray(start + data.size * dtype.itemsize)
    file[: header.sizeof_hdr] = header.binaryblock
    np.frombuffer(file, dtype, offset=start).reshape(data.shape, order="F")[:] = data
    return igzip.compress(file, _GZIP_LEVEL, mtime=0)
