"""Headers of a series in the form that answers in DICOM are made of.

Series that were made anonymous, old ones, and those of other scripts than Latin lack
elements that every image should have, or hold what the standard forbids. highdicom takes
neither. Here what an answer has to have is there, empty where nobody knows it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import highdicom as hd
from pydicom import Dataset
from pydicom.valuerep import DA, TM

from normbank.dicom.series import DicomSeries
from normbank.errors import DicomError
from normbank.imaging.scan import spacing_of

_UTF8 = "ISO_IR 192"
_ONE_SET = {one.value for one in hd.enum.SpecificCharacterSetValues if one.value.startswith("ISO_")}
_TEXTS = ("PatientName", "PatientID", "AccessionNumber", "StudyID")
_MAX_SERIES_NUMBER = 2**31 - 1


def headers_for_answers(series: DicomSeries) -> list[Dataset]:
    """Copies of the headers of a series, the first one with all that answers take from it.

    Raises
    ------
    DicomError
        `no_frame_of_reference` or `no_study_uid`, without which nobody could say where an
        answer in DICOM belongs.
    """
    _check_has_place(series)
    first = _copied(series.headers[0])
    _complete_patient(first)
    if series.enhanced:
        _share_geometry(first, series.slices[0].frame)
        return [first]
    if not _is_thickness(_value(first, "SliceThickness")):
        first.SliceThickness = round(spacing_of(series.affine)[2], 6)
    return [first, *(_turned_like(first, header) for header in series.headers[1:])]


def series_number(series: DicomSeries, offset: int) -> int:
    """The number of an answer's series: that of the images, moved; a positive one."""
    try:
        number = int(_value(series.headers[0], "SeriesNumber") or 0)
    except (TypeError, ValueError):
        number = 0
    return max(number, 0) + offset if number <= _MAX_SERIES_NUMBER - offset else offset


def _check_has_place(series: DicomSeries) -> None:
    for uid, code, name in (
        (series.frame_of_reference_uid, "no_frame_of_reference", "FrameOfReferenceUID"),
        (series.study_uid, "no_study_uid", "StudyInstanceUID"),
    ):
        if not uid:
            raise DicomError(
                f"The images have no {name}, so an answer in DICOM could not say where it "
                "belongs. Ask for NIfTI or JSON, or export the series again.",
                code=code,
            )


def _complete_patient(header: Dataset) -> None:
    """What says whose images and of which study they are, there and understood, or empty."""
    for keyword in _TEXTS:
        header.setdefault(keyword, "")
    for keyword, understand in (("PatientBirthDate", DA), ("StudyDate", DA), ("StudyTime", TM)):
        if not _is_understood(header, keyword, understand):
            setattr(header, keyword, "")
    sex = str(_value(header, "PatientSex") or "").strip().upper()
    header.PatientSex = sex if sex in ("M", "F", "O") else ""
    terms = _value(header, "SpecificCharacterSet")
    if terms and (not isinstance(terms, str) or terms not in _ONE_SET):
        header.SpecificCharacterSet = _UTF8


def _share_geometry(header: Dataset, frame: int) -> None:
    """Let all frames share what the first slice says of its plane, as some scanners do not."""
    said = header.get("SharedFunctionalGroupsSequence")
    shared = _copied(said[0]) if said else Dataset()
    for keyword in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        groups = header.PerFrameFunctionalGroupsSequence[frame]
        if keyword not in shared and keyword in groups:
            setattr(shared, keyword, groups[keyword].value)
    header.SharedFunctionalGroupsSequence = [shared]


def _turned_like(first: Dataset, header: Dataset) -> Dataset:
    """A header with the orientation of the first, where they differ in their last digits."""
    if header.ImageOrientationPatient == first.ImageOrientationPatient:
        return header
    turned = _copied(header)
    turned.ImageOrientationPatient = first.ImageOrientationPatient
    return turned


def _copied(header: Dataset) -> Dataset:
    """The same elements, not understood yet; changes of the copy leave the header alone."""
    copy = Dataset()
    copy.update(header)
    if hasattr(header, "file_meta"):
        copy.file_meta = header.file_meta
    implicit, little = header.original_encoding
    copy.set_original_encoding(implicit, little, header.original_character_set)
    return copy


def _value(header: Dataset, keyword: str) -> Any:
    """A value; None where it is missing or cannot be understood."""
    try:
        return header.get(keyword)
    except Exception:  # pydicom raises whatever a wrong value leads to
        return None


def _is_understood(header: Dataset, keyword: str, understand: Callable[[str], object]) -> bool:
    value = _value(header, keyword)
    try:
        return isinstance(value, str) and (not value or understand(value) is not None)
    except ValueError:
        return False


def _is_thickness(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and value > 0
