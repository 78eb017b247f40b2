"""Values of single elements, read with suspicion.

A value that is not what its element may hold is an error that names the element, not
the value: values may be about a patient.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from struct import calcsize, unpack
from typing import NamedTuple

from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataelem import RawDataElement

from normbank.dicom.elements import Elements, broken

_FORMATS = {"US": "H", "SS": "h", "UL": "L", "SL": "l", "FL": "f", "FD": "d", "UV": "Q", "SV": "q"}
_LONGEST = 4096  # bytes of numbers in words; an element of ours holds a few


class NotANumberError(ValueError):
    """The bytes are no numbers."""


class Where(NamedTuple):
    """Data sets in which an element may stand, the nearest first.

    Of a classic image it is its only one; of a frame of a multi-frame image its own
    functional groups, those that all frames share, and the image's.
    """

    sets: tuple[Elements, ...]

    def find(self, tag: int) -> RawDataElement | None:
        """The element, from the nearest data set that gives it a value."""
        for elements in self.sets:
            element = elements.get(tag)
            if element is not None and element.value:
                return element
        return None

    def text(self, tag: int) -> str | None:
        """The value as it stands, without padding; None where there is none."""
        element = self.find(tag)
        return None if element is None else _text(element.value) or None

    def texts(self, tag: int) -> tuple[str, ...]:
        """All values of a text, stripped."""
        value = self.text(tag)
        return tuple(part.strip() for part in value.split("\\")) if value else ()

    def numbers(self, tag: int) -> tuple[float, ...]:
        """All values of a number, finite; none where the element is missing.

        Raises
        ------
        DicomError
            `broken_dicom` if they are no numbers.
        """
        element = self.find(tag)
        if element is None:
            return ()
        vr = element.VR if element.VR not in (None, "UN") else vr_of(tag)
        try:
            return _numbers(vr, element.is_little_endian, element.value)
        except NotANumberError:
            raise broken(f"its {keyword_for_tag(tag) or 'element'} is no number") from None

    def number(self, tag: int) -> float | None:
        """The first value of a number."""
        values = self.numbers(tag)
        return values[0] if values else None

    def whole(self, tag: int) -> int | None:
        """The first value of a whole number.

        Raises
        ------
        DicomError
            `broken_dicom` if it is none.
        """
        value = self.number(tag)
        if value is None:
            return None
        if not value.is_integer():
            raise broken(f"its {keyword_for_tag(tag) or 'element'} is no whole number")
        return int(value)

    def vector(self, tag: int, count: int) -> tuple[float, ...] | None:
        """A known count of numbers; None where there are more or fewer."""
        values = self.numbers(tag)
        return values if len(values) == count else None


def vr_of(tag: int) -> str:
    """What the dictionary says that an element holds."""
    try:
        return str(dictionary_VR(tag)).split(" ")[0]  # `US or SS`: told apart by nobody of ours
    except KeyError:
        return "UN"


def _text(value: bytes | None) -> str:
    return (value or b"").decode("latin-1").strip(" \0\t\r\n")


@lru_cache(maxsize=8192)  # most are the same in every slice
def _numbers(vr: str, little: bool, value: bytes) -> tuple[float, ...]:
    if vr in _FORMATS:
        kind = _FORMATS[vr]
        count, rest = divmod(len(value), calcsize(f"<{kind}"))
        if rest:
            raise NotANumberError
        numbers: Sequence[float] = unpack(f"{'<' if little else '>'}{count}{kind}", value)
    elif vr in ("DS", "IS") and len(value) <= _LONGEST:
        words = _text(value).split("\\")
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            raise NotANumberError from None
    else:
        raise NotANumberError
    if not all(math.isfinite(number) for number in numbers):
        raise NotANumberError
    return tuple(float(number) for number in numbers)
