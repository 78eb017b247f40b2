"""Pixels of one file: as stored, whatever they are packed in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID, RLELossless

from normbank.dicom import tags
from normbank.dicom.codestream import rle_segments, size_of
from normbank.dicom.files import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, DicomFile
from normbank.errors import DicomError

Stored = npt.NDArray[np.integer[Any]]

_PIXEL_DATA = 0x7FE00010
_PLAIN = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED)
_JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91))
_RLE = str(RLELossless)
SYNTAXES = frozenset((*_PLAIN, EXPLICIT_BIG, *_JPEG, _RLE))
_OVERLAY_BITS = tuple((0x6000 + 2 * i) << 16 | 0x0102 for i in range(16))


@dataclass(frozen=True, slots=True)
class Layout:
    """How the pixels of one file are stored.

    Attributes
    ----------
    rows, columns, frames : of its image
    allocated, stored : bits of a pixel, and those of them that are used
    signed : whether they are two's complements
    inverted : whether the least value is white (MONOCHROME1)
    overlays : whether unused bits hold drawings
    """

    rows: int
    columns: int
    frames: int
    allocated: int
    stored: int
    signed: bool
    inverted: bool
    overlays: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(f"<{'i' if self.signed else 'u'}{self.allocated // 8}")

    @property
    def frame_bytes(self) -> int:
        return self.rows * self.columns * self.allocated // 8


def layout_of(file: DicomFile) -> Layout:
    """How a file's pixels are stored.

    Raises
    ------
    DicomError
        `no_pixels`, `unsupported_pixels` or `unsupported_transfer_syntax`, where they
        cannot be read; `broken_pixels` where they cannot be what the header says.
    """
    where = file.where
    if file.pixels is None:
        raise DicomError("An image has no pixels. Export the series again.", code="no_pixels")
    if file.syntax not in SYNTAXES:
        name = UID(file.syntax).name if UID(file.syntax).is_transfer_syntax else "unknown"
        raise DicomError(
            f"The images are compressed in a way that is not read here ({name}). Export them "
            "uncompressed, or as JPEG lossless, JPEG-LS, JPEG 2000 or RLE.",
            code="unsupported_transfer_syntax",
        )
    numbers = (tags.ROWS, tags.COLUMNS, tags.BITS_ALLOCATED, tags.BITS_STORED, tags.HIGH_BIT)
    rows, columns, allocated, stored, high = (where.whole(number) for number in numbers)
    if not rows or not columns or rows < 1 or columns < 1:
        raise DicomError(
            "An image does not say how many rows and columns it has. Export the series again.",
            code="broken_pixels",
        )
    stored = stored or allocated
    plain = file.pixels.tag == _PIXEL_DATA and where.find(tags.MODALITY_LUT) is None
    if not plain or allocated not in (8, 16, 32) or not stored or not 2 <= stored <= allocated:
        raise DicomError(
            "The pixels are not plain whole numbers of 8, 16 or 32 bits. Export the original "
            "images.",
            code="unsupported_pixels",
        )
    if high not in (None, stored - 1) or where.whole(tags.SIGNED) not in (None, 0, 1):
        raise DicomError(
            "The pixels are stored in bits that are not the lowest ones. Export the series again.",
            code="unsupported_pixels",
        )
    return Layout(
        rows, columns, where.whole(tags.FRAMES) or 1, allocated, stored,
        where.whole(tags.SIGNED) == 1,
        where.text(tags.PHOTOMETRIC) == "MONOCHROME1",
        any(where.whole(number) for number in _OVERLAY_BITS if number in file.elements),
    )  # fmt: skip


def check_length(file: DicomFile, layout: Layout) -> None:
    """Refuse, before pixels are read, a file whose pixels are not as many as its header says.

    Raises
    ------
    DicomError
        `broken_pixels`.
    """
    assert file.pixels is not None
    if file.syntax in (*_PLAIN, EXPLICIT_BIG):
        needed = layout.frame_bytes * layout.frames
        fits = file.pixels.length in (needed, needed + needed % 2)
        if not fits or (file.syntax != DEFLATED and file.pixels_end > file.bytes_):
            raise _broken("the pixels are not as many as the header says")
    elif file.pixels.length is not None:
        raise _broken("the compressed pixels are not in fragments")


def stored_frames(file: DicomFile, layout: Layout, indices: Sequence[int]) -> Iterator[Stored]:
    """Frames as whole numbers, (rows, columns) each, in the order of `indices`.

    Bits that are not used are cleared, MONOCHROME1 is turned round.

    Raises
    ------
    DicomError
        `broken_pixels` if they cannot be read.
    """
    assert file.pixels is not None
    if file.syntax in _JPEG or file.syntax == _RLE:
        frames = _decoded(file, layout, indices)
    elif file.syntax == EXPLICIT_BIG:
        frames = _swapped(file, layout, indices)
    else:
        frames = _plain(file, layout, indices)
    for frame in frames:
        yield _settled(frame, layout)


def _plain(file: DicomFile, layout: Layout, indices: Sequence[int]) -> Iterator[Stored]:
    assert file.pixels is not None
    if file.syntax == DEFLATED:
        data = file.read()
        for index in indices:
            at = file.pixels.at + index * layout.frame_bytes
            yield _shaped(data[at : at + layout.frame_bytes], layout)
        return
    with file.path.open("rb") as stream:
        for index in indices:
            stream.seek(file.pixels.at + index * layout.frame_bytes)
            yield _shaped(stream.read(layout.frame_bytes), layout)


def _shaped(data: bytes, layout: Layout) -> Stored:
    if len(data) < layout.frame_bytes:
        raise _broken("the file ends before its last pixel")
    return np.frombuffer(data, layout.dtype).reshape(layout.rows, layout.columns)


def _swapped(file: DicomFile, layout: Layout, indices: Sequence[int]) -> Iterator[Stored]:
    """Big endian; bytes of 8 bits are swapped too where they are written as words."""
    assert file.pixels is not None
    data = file.read()[file.pixels.at : file.pixels_end]
    if layout.allocated == 8 and file.pixels.vr == "OW":
        data = np.frombuffer(data, ">u2").astype("<u2").tobytes()
    big = layout.dtype.newbyteorder(">")
    for index in indices:
        frame = data[index * layout.frame_bytes :][: layout.frame_bytes]
        if len(frame) < layout.frame_bytes:
            raise _broken("the file ends before its last pixel")
        yield np.frombuffer(frame, big).reshape(layout.rows, layout.columns).astype(layout.dtype)


def _decoded(file: DicomFile, layout: Layout, indices: Sequence[int]) -> Iterator[Stored]:
    """Compressed frames, decoded one by one by the libraries that pydicom knows."""
    assert file.pixels is not None
    try:
        streams = list(
            generate_frames(file.read()[file.pixels.at :], number_of_frames=layout.frames)
        )
    except Exception as error:
        raise _broken("the compressed pixels are not in whole fragments") from error
    if len(streams) != layout.frames:
        raise _broken("there are fewer or more compressed frames than the header says")
    for index in indices:
        yield _decode(streams[index], file.syntax, layout)


def _decode(stream: bytes, syntax: str, layout: Layout) -> Stored:
    if syntax == _RLE:
        plausible = rle_segments(stream) == layout.allocated // 8
    else:
        plausible = size_of(stream) == (layout.rows, layout.columns)
    if not plausible:
        raise _broken("a compressed image has another size than the header says")
    options: Any = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": "MONOCHROME1" if layout.inverted else "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    try:
        decoded, _ = get_decoder(UID(syntax)).as_array(encapsulate([stream]), raw=True, **options)
    except Exception as error:  # decoders raise whatever they like
        raise _broken("a compressed image cannot be decoded") from error
    if decoded.shape != (layout.rows, layout.columns):
        raise _broken("a compressed image has another size than the header says")
    frame: Stored = decoded.astype(layout.dtype, copy=False)
    return frame


def _settled(frame: Stored, layout: Layout) -> Stored:
    """Only the bits that are used, and white as the greatest value."""
    unused = layout.allocated - layout.stored
    if unused and layout.overlays:
        frame = (frame << unused) >> unused  # keeps the sign of signed ones
    elif unused and layout.signed:
        widest = frame.max(), frame.min()
        half = 1 << (layout.stored - 1)
        if widest[0] >= half and widest[1] >= 0 and widest[0] < 2 * half:
            frame = (frame << unused) >> unused  # the sign stands in the highest used bit
        elif widest[0] >= half or widest[1] < -half:
            raise _broken("values need more bits than the header says are stored")
    elif unused and frame.max() >> layout.stored:
        raise _broken("values need more bits than the header says are stored")
    if layout.inverted:
        frame = ~frame if layout.signed else frame.dtype.type((1 << layout.stored) - 1) - frame
    return frame


def _broken(why: str) -> DicomError:
    return DicomError(
        f"The pixels of an image are damaged: {why}. Export the series again.",
        code="broken_pixels",
    )
