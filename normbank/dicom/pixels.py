"""Pixels as stored, whatever they are packed in."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.encaps import encapsulate, generate_frames
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from normbank.dicom.codestream import rle_segments
from normbank.dicom.decoding import decode
from normbank.dicom.files import DEFLATED, EXPLICIT_BIG, DicomFile
from normbank.dicom.layout import JPEG, RLE, Layout, broken_pixels

Stored = npt.NDArray[np.integer[Any]]


class Wanted(NamedTuple):
    """A frame of a file."""

    file: DicomFile
    layout: Layout
    frame: int  # from 0


def stored_frames(wanted: Sequence[Wanted]) -> Iterator[Stored]:
    """Frames as whole numbers, (rows, columns) each, in the order in which they are wanted.

    Bits that are not used are cleared, MONOCHROME1 is turned round.

    Raises
    ------
    DicomError
        `broken_pixels` if they cannot be read.
    """
    opened = _Opened()
    decoded = _decoded([one for one in wanted if one.file.syntax in JPEG], opened)
    for one in wanted:
        frame = next(decoded) if one.file.syntax in JPEG else opened.frame(one)
        yield _settled(frame, one.layout)


class _Opened:
    """The file that was read last, of those that are read as a whole."""

    def __init__(self) -> None:
        self._file: DicomFile | None = None
        self._data = b""
        self._streams: list[bytes] = []

    def frame(self, wanted: Wanted) -> Stored:
        """A frame that is not compressed by a codec of the JPEG family."""
        file, layout, frame = wanted
        if file.syntax == RLE:
            return _rle(self.streams(wanted)[frame], layout)
        assert file.pixels is not None
        at = file.pixels.at + frame * layout.frame_bytes
        if file.syntax in (DEFLATED, EXPLICIT_BIG):
            self._read(file)
            data = self._data[at : at + layout.frame_bytes]
        else:
            with file.path.open("rb") as stream:
                stream.seek(at)
                data = stream.read(layout.frame_bytes)
        if len(data) < layout.frame_bytes:
            raise broken_pixels("the file ends before its last pixel")
        big = file.syntax == EXPLICIT_BIG
        if big and layout.allocated == 8 and file.pixels.vr == "OW":  # swapped as words
            return self._bytes_of_words(wanted)
        dtype = layout.dtype.newbyteorder(">") if big else layout.dtype
        pixels = np.frombuffer(data, dtype).reshape(layout.rows, layout.columns)
        return pixels.astype(layout.dtype, copy=False)

    def streams(self, wanted: Wanted) -> list[bytes]:
        """The compressed frames of a file."""
        file, layout, _ = wanted
        self._read(file)
        if not self._streams:
            assert file.pixels is not None
            try:
                pixels = self._data[file.pixels.at :]
                self._streams = list(generate_frames(pixels, number_of_frames=layout.frames))
            except Exception as error:  # of many kinds
                raise broken_pixels("the compressed pixels are not in fragments") from error
            if len(self._streams) != layout.frames:
                raise broken_pixels("there are fewer or more frames than the header says")
        return self._streams

    def _read(self, file: DicomFile) -> None:
        if self._file is not file:
            self._file, self._data, self._streams = file, file.read(), []

    def _bytes_of_words(self, wanted: Wanted) -> Stored:
        file, layout, frame = wanted
        assert file.pixels is not None
        words = np.frombuffer(self._data[file.pixels.at : file.pixels_end], ">u2")
        pixels = words.astype("<u2").view(layout.dtype)[frame * layout.frame_bytes :]
        return pixels[: layout.frame_bytes].reshape(layout.rows, layout.columns)


def _decoded(wanted: Sequence[Wanted], opened: _Opened) -> Iterator[Stored]:
    """Frames of the JPEG family; those of one layout and transfer syntax are decoded together."""
    groups: dict[tuple[str, Layout], list[int]] = defaultdict(list)
    streams = []
    for place, one in enumerate(wanted):
        streams.append(opened.streams(one)[one.frame])
        groups[one.file.syntax, one.layout].append(place)
    frames: dict[int, Stored] = {}
    for (syntax, layout), places in groups.items():
        done = decode([streams[place] for place in places], syntax, layout)
        frames.update(zip(places, done, strict=True))
    return iter([frames[place] for place in range(len(wanted))])


def _rle(stream: bytes, layout: Layout) -> Stored:
    """One RLE frame, decoded by pydicom."""
    if rle_segments(stream) != layout.allocated // 8:
        raise broken_pixels("a compressed image has another size than the header says")
    options: Any = {
        "rows": layout.rows,
        "columns": layout.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "photometric_interpretation": "MONOCHROME2",
        "pixel_keyword": "PixelData",
    }
    try:
        decoded, _ = get_decoder(UID(RLE)).as_array(encapsulate([stream]), raw=True, **options)
    except Exception as error:  # decoders raise whatever they like
        raise broken_pixels("a compressed image cannot be decoded") from error
    if decoded.shape != (layout.rows, layout.columns):
        raise broken_pixels("a compressed image has another size than the header says")
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
            raise broken_pixels("values need more bits than the header says are stored")
    elif unused and frame.max() >> layout.stored:
        raise broken_pixels("values need more bits than the header says are stored")
    if layout.inverted:
        frame = ~frame if layout.signed else frame.dtype.type((1 << layout.stored) - 1) - frame
    return frame
