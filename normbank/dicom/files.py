"""One DICOM file: its header, and where its pixels lie."""

from __future__ import annotations

import warnings
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import pydicom
from pydicom.charset import convert_encodings
from pydicom.dataset import FileMetaDataset

from normbank.dicom.elements import (
    BIG,
    END_OF_META,
    EXPLICIT,
    IMPLICIT,
    Coding,
    Elements,
    EndsEarlyError,
    broken,
    cut,
)
from normbank.dicom.values import Where
from normbank.errors import TooLargeError
from normbank.imaging.scan import Limits

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_PREAMBLE = 128
_START = 132
_META_GROUP, _FIRST_GROUP = 0x0002, 0x0008
_FIRST_READ = 64 * 1024  # most headers; the whole file follows where it is not
_MAX_HEADER = 64 * 1024 * 1024  # of a multi-frame image with a thousand frames: a few
_TRANSFER_SYNTAX = 0x00020010
_CHARACTER_SET = 0x00080005
_PIXEL_TAGS = (0x7FE00010, 0x7FE00008, 0x7FE00009)


class Pixels(NamedTuple):
    """The element of the pixels: where its value begins, and how long it is."""

    tag: int
    vr: str | None
    at: int
    length: int | None  # None: in fragments, up to a delimiter


@dataclass(frozen=True, slots=True, eq=False)
class DicomFile:
    """A file whose pixels nobody has read.

    Attributes
    ----------
    path : of the file
    bytes_ : its size
    elements : of its data set, before the pixels
    meta : of its file meta information; empty where it has none
    syntax : its transfer syntax
    coding : how its elements are written
    pixels : None where it has none
    """

    path: Path
    bytes_: int
    elements: Elements = field(repr=False)
    meta: Elements = field(repr=False)
    syntax: str
    coding: Coding
    pixels: Pixels | None

    @property
    def where(self) -> Where:
        return Where((self.elements,))

    def dataset(self) -> pydicom.Dataset:
        """A data set of pydicom without pixels, with `file_meta`; it understands as it is asked."""
        dataset = pydicom.Dataset(cast(Any, dict(self.elements)))
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta._dict.update(cast(Any, self.meta))
        dataset.set_original_encoding(
            self.coding.implicit,
            self.coding.little,
            character_encoding=_encodings(self.where.texts(_CHARACTER_SET)),
        )
        return dataset

    def read(self) -> bytes:
        """The file; of a deflated one what it is without, up to the end of its pixels."""
        data = self.path.read_bytes()
        if self.syntax == DEFLATED and len(data) == self.bytes_:
            return _inflated(data, _meta_end(data), self.pixels_end)[0]
        return data

    @property
    def pixels_end(self) -> int:
        """The byte behind the pixels, where their length is known; else the file's."""
        if self.pixels is None or self.pixels.length is None:
            return self.bytes_
        return self.pixels.at + self.pixels.length


def is_dicom(start: bytes) -> bool:
    """Whether a file is DICOM, by its first bytes.

    Parameters
    ----------
    start : the first 132 bytes, or more, or all there are

    Examples
    --------
    >>> is_dicom(bytes(128) + b"DICM"), is_dicom(b"PK" + bytes(200))
    (True, False)
    """
    return start[_PREAMBLE:_START] == b"DICM" or _bare_coding(start) is not None


def _bare_coding(start: bytes) -> Coding | None:
    """How a data set without a preamble is written, where these bytes begin one."""
    if len(start) < 8:
        return None
    for coding in (EXPLICIT, BIG, IMPLICIT):
        order = "little" if coding.little else "big"
        group = int.from_bytes(start[:2], order)  # type: ignore[arg-type]  # a literal
        number = int.from_bytes(start[2:4], order)  # type: ignore[arg-type]
        if group not in (_META_GROUP, _FIRST_GROUP) or number > 0x2000:
            continue
        vr = start[4:6]
        if vr in (b"UL", b"CS", b"UI", b"DA", b"TM", b"SH", b"LO", b"OB", b"SQ"):
            return coding if not coding.implicit else None
        if coding.implicit and int.from_bytes(start[4:8], "little") <= 256:
            return coding
    return None


def read_file(path: Path, limits: Limits) -> DicomFile | None:
    """The header of a file; None where it is no DICOM.

    Raises
    ------
    DicomError
        `broken_dicom` if it is damaged.
    TooLargeError
        If the file or its header is larger than allowed.
    """
    with path.open("rb") as file:
        start = file.read(_FIRST_READ)
        if not is_dicom(start):
            return None
        size = path.stat().st_size
        if size > limits.max_file_bytes:
            raise TooLargeError("A file has more bytes than the service takes.")
        for most in (_FIRST_READ, _MAX_HEADER):
            start += file.read(most - len(start))
            whole = len(start) >= size
            try:
                data, whole = _beginning(start, whole, most)
                return _parsed(path, size, data, whole)
            except EndsEarlyError:
                if whole:
                    raise broken("it ends inside its header") from None
    raise TooLargeError("A header has more bytes than the service takes.")


def _beginning(start: bytes, whole: bool, most: int) -> tuple[bytes, bool]:
    """A file's first bytes, inflated if they are deflated, and whether these are all of it."""
    meta, _ = _meta(start)
    if Where((meta,)).text(_TRANSFER_SYNTAX) != DEFLATED:
        return start, whole
    inflated, ended = _inflated(start, _meta_end(start), most)
    return inflated, ended or (whole and len(inflated) < most)


def _parsed(path: Path, size: int, data: bytes, whole: bool) -> DicomFile:
    meta, at = _meta(data)
    syntax = Where((meta,)).text(_TRANSFER_SYNTAX)
    coding = _coding(data, at, syntax)
    elements, at = cut(data, at, len(data), coding)
    pixels = _pixels(data, at, coding) if at < len(data) or not whole else None
    named = syntax or _named(coding)
    return DicomFile(path, size, elements, meta, named, coding, pixels)


def _meta(data: bytes) -> tuple[Elements, int]:
    """The file meta information, always in explicit little endian, and where it ends."""
    at = _START if data[_PREAMBLE:_START] == b"DICM" else 0
    if int.from_bytes(data[at : at + 2], "little") != _META_GROUP:
        return {}, at
    meta, end = cut(data, at, len(data), EXPLICIT, END_OF_META)
    if Where((meta,)).text(_TRANSFER_SYNTAX) == DEFLATED:  # no tag ends it
        end = _meta_end(data)
        meta = cut(data, at, end, EXPLICIT, END_OF_META).elements
    return meta, end


def _meta_end(data: bytes) -> int:
    """Where the file meta information ends, by its own length."""
    at = _START if data[_PREAMBLE:_START] == b"DICM" else 0
    first = data[at : at + 12]
    if first[:8] != b"\x02\x00\x00\x00UL\x04\x00" or len(first) < 12:
        raise broken("its file meta information does not say how long it is")
    end = at + 12 + int.from_bytes(first[8:], "little")
    if end > len(data):
        raise EndsEarlyError
    return end


def _inflated(data: bytes, at: int, most: int) -> tuple[bytes, bool]:
    """A deflated file as if it were not, up to `most` inflated bytes, and whether that is all."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = stream.decompress(data[at:], most)
    except zlib.error as error:
        raise broken("its deflated part cannot be inflated") from error
    return data[:at] + inflated, stream.eof


def _coding(data: bytes, at: int, syntax: str | None) -> Coding:
    """How the data set is written; files that lie about it are believed less than their bytes."""
    if syntax is None:
        return _bare_coding(data[at : at + 8]) or IMPLICIT
    if syntax == EXPLICIT_BIG:
        return BIG
    vr = data[at + 4 : at + 6]
    return EXPLICIT if vr.isalpha() and vr.isupper() else IMPLICIT


def _named(coding: Coding) -> str:
    if not coding.little:
        return EXPLICIT_BIG
    return IMPLICIT_LITTLE if coding.implicit else EXPLICIT_LITTLE


def _pixels(data: bytes, at: int, coding: Coding) -> Pixels | None:
    """The pixels' element, if it is what begins here."""
    rest = data[at : at + 12]
    if len(rest) < 8:
        raise EndsEarlyError
    order = "little" if coding.little else "big"
    group = int.from_bytes(rest[:2], order)  # type: ignore[arg-type]  # a literal
    tag = group << 16 | int.from_bytes(rest[2:4], order)  # type: ignore[arg-type]
    if tag not in _PIXEL_TAGS:
        return None
    if coding.implicit:
        length, begin, vr = int.from_bytes(rest[4:8], "little"), at + 8, None
    else:
        if len(rest) < 12:
            raise EndsEarlyError
        vr = rest[4:6].decode("latin-1")
        length, begin = int.from_bytes(rest[8:12], order), at + 12  # type: ignore[arg-type]
    return Pixels(tag, vr, begin, None if length == 0xFFFFFFFF else length)


@lru_cache(maxsize=64)
def _encodings(terms: tuple[str, ...]) -> list[str]:
    """Python's names of a header's character sets; Latin-1 where there is no such set."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return convert_encodings(list(terms)) if terms else ["iso8859"]
    except Exception:  # of many kinds; text that nobody here reads is no reason to refuse
        return ["iso8859"]
