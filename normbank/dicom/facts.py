"""What a header says of the scanner and its protocol, in the words and units of BIDS."""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Iterable, Iterator
from typing import Any

import pydicom

FREE_TEXT = ("SeriesDescription", "ProtocolName")
"""Facts that people have typed."""

_TEXT_LIMIT = 200
_HASH_DIGITS = 16
_GAUSS_FROM = 100.0  # a field above this is no tesla; GE has written 15000

_NAMES = {"ManufacturerModelName": ("ManufacturersModelName", "ManufacturerModelName")}
_TEXTS = (
    "ManufacturerModelName",
    "SoftwareVersions",
    "ScanningSequence",
    "SequenceVariant",
    "ScanOptions",
    "SequenceName",
    "MRAcquisitionType",
    "ReceiveCoilName",
    "Modality",
    "BodyPartExamined",
    "ProtocolName",
    "SeriesDescription",
)
_NUMBERS = (
    "FlipAngle",
    "PixelBandwidth",
    "SliceThickness",
    "SpacingBetweenSlices",
    "EchoTrainLength",
    "NumberOfAverages",
)
_MILLISECONDS = ("RepetitionTime", "EchoTime", "InversionTime")
_ENHANCED = {  # what enhanced images call it
    "EchoTime": "EffectiveEchoTime",
    "InversionTime": "InversionTimes",
    "ScanningSequence": "EchoPulseSequence",
    "SequenceName": "PulseSequenceName",
}
_MAKERS = {  # as dcm2niix writes them into sidecars
    "siemens": "Siemens",
    "ge ": "GE",
    "ge_": "GE",
    "philips": "Philips",
    "toshiba": "Toshiba",
    "canon": "Canon",
    "uih": "UIH",
    "united imaging": "UIH",
    "hitachi": "Hitachi",
    "bruker": "Bruker",
}


def facts_of(header: pydicom.Dataset, salt: bytes) -> dict[str, Any]:
    """Facts of the scanner for the rules of domains; nothing of the patient.

    `SeriesDescription` and `ProtocolName` (`FREE_TEXT`) are typed by people, who type names
    of patients there too: let rules read them, but never store or log them.

    Parameters
    ----------
    header : of one image of the series, classic or enhanced
    salt : of the hash that stands for the serial number; left out where it is empty,
        since numbers that short can be found from a hash without salt

    Returns
    -------
    names of BIDS sidecars (and DICOM's `ManufacturerModelName`) -> text, number or list;
    times in s, field in T, angle in degrees, lengths in mm. What the header does not say,
    or what makes no sense, is left out. `Manufacturer` is written as dcm2niix does,
    `DeviceSerialNumber` is 16 hexadecimal digits of HMAC-SHA-256
    """
    sets = list(_sets(header))
    facts: dict[str, Any] = {}
    maker = _words(_find(sets, "Manufacturer"))
    if maker:
        facts["Manufacturer"] = _maker(maker[0])
    for keyword in _TEXTS:
        words = _words(_find(sets, keyword))
        for name in _NAMES.get(keyword, (keyword,)) if words else ():
            facts[name] = words if len(words) > 1 else words[0]
    types = _words(_find(sets, "ImageType"))
    if types:
        facts["ImageType"] = types
    for keyword in (*_NUMBERS, *_MILLISECONDS):
        numbers = _finite(_find(sets, keyword))
        if numbers and (keyword == "FlipAngle" or numbers[0] > 0):
            facts[keyword] = numbers[0] / 1000 if keyword in _MILLISECONDS else numbers[0]
    field = _finite(_find(sets, "MagneticFieldStrength"))
    if field and field[0] > 0:
        facts["MagneticFieldStrength"] = field[0] / 1e4 if field[0] > _GAUSS_FROM else field[0]
    spacing = _finite(_find(sets, "PixelSpacing"))
    if len(spacing) == 2:
        facts["PixelSpacing"] = spacing
    return facts | _serial(_words(_find(sets, "DeviceSerialNumber")), salt)


def _serial(words: list[str], salt: bytes) -> dict[str, str]:
    if not words or not salt:
        return {}
    digest = hmac.new(salt, words[0].encode(), hashlib.sha256).hexdigest()
    return {"DeviceSerialNumber": digest[:_HASH_DIGITS]}


def _sets(header: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    """The header, then the functional groups of its first frame."""
    yield header
    for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        for group in _items(header, keyword):
            for element in list(group.keys()):
                yield from _items(group, element)


def _items(dataset: pydicom.Dataset, key: Any) -> list[pydicom.Dataset]:
    """The first item of a sequence, in a list."""
    try:
        element = dataset[key]
        return list(element.value[:1]) if element.VR == "SQ" and element.value else []
    except Exception:  # pydicom raises whatever a damaged element makes it raise
        return []


def _find(sets: Iterable[pydicom.Dataset], keyword: str) -> Any:
    for word in (keyword, _ENHANCED.get(keyword)):
        for dataset in sets:
            try:
                value = dataset.get(word) if word else None
            except Exception:  # as above
                continue
            if value not in (None, "", b""):
                return value
    return None


def _listed(value: Any) -> list[Any]:
    if value is None:
        return []
    return [value] if isinstance(value, (str, bytes, int, float)) else list(value)


def _words(value: Any) -> list[str]:
    words = (
        "".join(c for c in str(part) if c.isprintable()).strip()[:_TEXT_LIMIT]
        for part in _listed(value)
        if not isinstance(part, bytes)
    )
    return [word for word in words if word]


def _finite(value: Any) -> list[float]:
    try:
        numbers = [float(part) for part in _listed(value)]
    except (TypeError, ValueError):
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _maker(name: str) -> str:
    folded = f"{name.casefold()} "
    return next((short for start, short in _MAKERS.items() if folded.startswith(start)), name)
