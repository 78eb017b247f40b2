"""How the pixels of a file are stored, as far as its header says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.uid import UID

from normbank.dicom import tags
from normbank.dicom.files import DEFLATED, EXPLICIT_BIG, EXPLICIT_LITTLE, IMPLICIT_LITTLE, DicomFile
from normbank.errors import DicomError

PLAIN = (EXPLICIT_LITTLE, IMPLICIT_LITTLE, DEFLATED)
JPEG = tuple(f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70, 80, 81, 90, 91))
RLE = "1.2.840.10008.1.2.5"
SYNTAXES = frozenset((*PLAIN, EXPLICIT_BIG, *JPEG, RLE))
_PIXEL_DATA = 0x7FE00010
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
    if file.syntax in (*PLAIN, EXPLICIT_BIG):
        needed = layout.frame_bytes * layout.frames
        fits = file.pixels.length in (needed, needed + needed % 2)
        if not fits or (file.syntax != DEFLATED and file.pixels_end > file.bytes_):
            raise broken_pixels("the pixels are not as many as the header says")
    elif file.pixels.length is not None:
        raise broken_pixels("the compressed pixels are not in fragments")


def broken_pixels(why: str) -> DicomError:
    """The pixels of an image are not what its header says."""
    return DicomError(
        f"The pixels of an image are damaged: {why}. Export the series again.",
        code="broken_pixels",
    )
