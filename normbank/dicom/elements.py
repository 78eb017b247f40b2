"""Data elements of a DICOM file, cut out quickly and understood later.

pydicom understands every element while it reads; of a series of 170 files that is
half of the time that reading it may take. Here the elements are only cut out, as the
raw elements that pydicom itself makes, so that a `pydicom.Dataset` over them
understands each one when it is asked for it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import cache
from struct import Struct
from typing import Any, NamedTuple

import pydicom
from pydicom.dataelem import RawDataElement, empty_value_for_VR
from pydicom.tag import BaseTag

from normbank.errors import DicomError

# pydicom warns about values by quoting them, and values may be names of patients.
pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL)

Elements = dict[int, RawDataElement]
"""What a data set holds, uninterpreted."""

PIXEL_GROUP = 0x7FE00000
END_OF_META = 0x00030000
_UNDEFINED = 0xFFFFFFFF
_ITEM, _END_OF_ITEM, _END_OF_SEQUENCE = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_LONG = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_SHORT = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_VRS = {vr: vr.decode() for vr in _LONG | _SHORT}
_MAX_DEPTH = 24  # sequences within sequences
_MAX_ELEMENTS = 100_000  # of one data set, those of its sequences not counted


class EndsEarlyError(Exception):
    """A value ends behind the bytes at hand; perhaps the file has more."""


@dataclass(frozen=True, slots=True)
class Coding:
    """How a data set writes its elements."""

    implicit: bool
    little: bool

    @property
    def order(self) -> str:
        return "<" if self.little else ">"


EXPLICIT = Coding(implicit=False, little=True)
IMPLICIT = Coding(implicit=True, little=True)
BIG = Coding(implicit=False, little=False)
IMPLICIT_BIG = Coding(implicit=True, little=False)  # of no file; items of UN in big endian


class _Start(NamedTuple):
    """An element up to its value."""

    tag: int
    vr: str | None
    length: int
    at: int


class _Reader:
    """Element starts of one coding."""

    def __init__(self, coding: Coding) -> None:
        self.coding = coding
        self.explicit = Struct(f"{coding.order}HH2sH").unpack_from
        self.implicit = Struct(f"{coding.order}HHL").unpack_from
        self.long = Struct(f"{coding.order}L").unpack_from

    def start(self, data: bytes, at: int, end: int) -> _Start:
        if at + 8 > end:
            raise EndsEarlyError
        if not self.coding.implicit:
            group, number, vr, length = self.explicit(data, at)
            if vr in _SHORT:
                return _Start(group << 16 | number, _VRS[vr], length, at + 8)
            if vr in _LONG:
                if at + 12 > end:
                    raise EndsEarlyError
                return _Start(group << 16 | number, _VRS[vr], self.long(data, at + 8)[0], at + 12)
            if b"AA" <= vr <= b"ZZ" and vr.isalpha():
                return _Start(group << 16 | number, vr.decode("latin-1"), length, at + 8)
        group, number, length = self.implicit(data, at)  # items, and writers that switch over
        return _Start(group << 16 | number, None, length, at + 8)


@cache
def _reader(coding: Coding) -> _Reader:
    return _Reader(coding)


@cache
def _empty(vr: str | None) -> Any:
    return empty_value_for_VR(vr, raw=True)


_new = tuple.__new__  # of a named tuple: half the time of its own constructor
_TAGS: dict[int, BaseTag] = {}  # making one costs more than finding it; private ones are few


def _base(tag: int) -> BaseTag:
    found = _TAGS.get(tag)
    if found is None:
        found = BaseTag(tag)
        if len(_TAGS) < _MAX_ELEMENTS:
            _TAGS[tag] = found
    return found


class Cut(NamedTuple):
    """The elements of a data set, and where the walk has ended."""

    elements: Elements
    at: int


def cut(data: bytes, at: int, end: int, coding: Coding, stop: int = PIXEL_GROUP) -> Cut:
    """Cut a data set into its elements.

    Parameters
    ----------
    data : bytes of a file
    at, end : where its elements begin and end
    coding : how they are written
    stop : ends before the first tag that is not below it

    Raises
    ------
    EndsEarlyError
        If an element reaches beyond `end`.
    DicomError
        `broken_dicom` if that is no DICOM at all.
    """
    elements: Elements = {}
    reader, implicit, little = _reader(coding), coding.implicit, coding.little
    explicit = reader.explicit
    vr: str | None
    while at < end:
        if not implicit and at + 8 <= end and (vr_bytes := data[at + 4 : at + 6]) in _SHORT:
            group, number, _, length = explicit(data, at)  # most elements; the rest costs more
            tag, vr, begin = group << 16 | number, _VRS[vr_bytes], at + 8
        else:
            tag, vr, length, begin = reader.start(data, at, end)
        if tag >= stop:
            break
        value_end = begin + length
        at = value_end
        if length == _UNDEFINED:
            value_end = _end_of_items(data, begin, end, _inner(coding, vr), 1)
            at = value_end + 8
            length = value_end - begin
        if at > end:
            raise EndsEarlyError
        value = data[begin:value_end] if length else _empty(vr)
        key = _TAGS.get(tag) or _base(tag)
        elements[key] = _new(
            RawDataElement, (key, vr, length, value, begin, implicit, little, True, False)
        )
        if len(elements) > _MAX_ELEMENTS:
            raise broken("it has more elements than any image")
    return Cut(elements, at)


def _inner(coding: Coding, vr: str | None) -> Coding:
    """How the items of a sequence are written: those of an unknown one always implicitly."""
    return Coding(True, coding.little) if vr == "UN" else coding


def _end_of_items(data: bytes, at: int, end: int, coding: Coding, depth: int) -> int:
    """Where the value of a sequence of undefined length ends, before its delimiter."""
    if depth > _MAX_DEPTH:
        raise broken("its sequences are nested too deeply")
    items = _reader(coding).implicit
    while at + 8 <= end:
        group, number, length = items(data, at)
        tag = group << 16 | number
        if tag == _END_OF_SEQUENCE:
            return at
        if tag != _ITEM:
            raise broken("a sequence holds something else than items")
        at = (
            at + 8 + length
            if length != _UNDEFINED
            else _end_of_item(data, at + 8, end, coding, depth)
        )
    raise EndsEarlyError


def _end_of_item(data: bytes, at: int, end: int, coding: Coding, depth: int) -> int:
    """The byte behind the delimiter of an item of undefined length."""
    start = _reader(coding).start
    while True:
        tag, vr, length, begin = start(data, at, end)
        if tag == _END_OF_ITEM:
            return begin
        if length == _UNDEFINED:
            at = _end_of_items(data, begin, end, _inner(coding, vr), depth + 1) + 8
        else:
            at = begin + length


def items_of(element: RawDataElement | None) -> list[Elements]:
    """The data sets of a sequence; none where it is missing.

    Raises
    ------
    DicomError
        `broken_dicom` if they cannot be told apart.
    """
    data = element.value if element is not None else None
    if not data:
        return []
    assert element is not None
    outer = Coding(element.is_implicit_VR, element.is_little_endian)
    coding, at, found = _inner(outer, element.VR), 0, []
    try:
        while at + 8 <= len(data):
            group, number, length = _reader(coding).implicit(data, at)
            if group << 16 | number != _ITEM:
                break
            at += 8
            if length != _UNDEFINED and at + length > len(data):
                raise EndsEarlyError
            if length == _UNDEFINED:
                behind = _end_of_item(data, at, len(data), coding, 1)
                found.append(cut(data, at, behind - 8, coding, _ITEM).elements)
                at = behind
            else:
                found.append(cut(data, at, at + length, coding, _ITEM).elements)
                at += length
    except EndsEarlyError as error:
        raise broken("a sequence ends inside an item") from error
    return found


def broken(why: str) -> DicomError:
    """A file is damaged."""
    return DicomError(
        f"A DICOM file is damaged: {why}. Export the series again.", code="broken_dicom"
    )
