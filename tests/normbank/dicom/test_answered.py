"""Answers in DICOM for series whose headers lack what an image should have, or get it wrong."""

from __future__ import annotations

import io
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from normbank.config import Settings
from normbank.dicom.provenance import AnswerOrigin
from normbank.dicom.report import write_report
from normbank.dicom.seg import to_bytes, write_seg
from normbank.dicom.series import DicomSeries, open_series
from normbank.errors import DicomError
from normbank.imaging.scan import Limits
from normbank.imaging.volumes import volumes_mm3
from tests.support.dicom import Phantom, turned, write_series

LIMITS = Limits.of(Settings(min_thickness_mm=1.0))
ORIGIN = AnswerOrigin("ward-7", 2, "b" * 64, "5" * 64, key="answer-1")
ANONYMOUS = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "AccessionNumber"),
    *("StudyID", "StudyDate", "StudyTime", "SeriesNumber", "SliceThickness"),
)
JAPANESE = "Yamada^Tarou=山田^太郎"


def answered(series: DicomSeries) -> tuple[Dataset, Dataset]:
    """SEG and report of two boxes, written and read again."""
    ids = np.zeros(series.shape, np.int16)
    ids[2:7, 3:9, 1:4], ids[12:20, 5:8, 6:12] = 17, 53
    seg = write_seg(series, ids, ORIGIN)
    report = write_report(series, seg, volumes_mm3(ids, series.affine), ORIGIN)
    first, second = (pydicom.dcmread(io.BytesIO(to_bytes(one))) for one in (seg, report))
    return first, second


def with_value(keyword: str, vr: str, value: bytes) -> list[Dataset]:
    """Images that hold these bytes, which pydicom would not write by itself."""
    images = Phantom().images()
    for image in images:
        tag = Tag(keyword)
        image._dict[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True, True)
    return images


def test_a_series_made_anonymous_is_answered(tmp_path: Path) -> None:
    images = Phantom().images()
    for image in images:
        for keyword in ANONYMOUS:
            delattr(image, keyword)
    for answer in answered(open_series(write_series(images, tmp_path), LIMITS)):
        assert answer.StudyInstanceUID == images[0].StudyInstanceUID
        assert answer.PatientName == answer.PatientBirthDate == answer.StudyDate == ""


@pytest.mark.parametrize(
    ("keyword", "vr", "value", "written"),
    [
        ("PatientBirthDate", "DA", b"unknown ", ""),
        ("StudyDate", "DA", b"20201345", ""),
        ("StudyTime", "TM", b"25:99 ", ""),
        ("PatientSex", "CS", b"f ", "F"),
        ("PatientSex", "CS", b"male", ""),
        ("SeriesNumber", "IS", b"-7000 ", 5000),
        ("SeriesNumber", "IS", b"abc ", 5000),
        ("SliceThickness", "DS", b"thin", None),
    ],
)
def test_values_that_no_answer_may_have_are_left_empty(
    keyword: str, vr: str, value: bytes, written: Any, tmp_path: Path
) -> None:
    images = with_value(keyword, vr, value)
    seg, _ = answered(open_series(write_series(images, tmp_path), LIMITS))
    assert seg.get(keyword) == written


@pytest.mark.parametrize("terms", [["", "ISO 2022 IR 87"], ["ISO 2022 IR 6", "ISO 2022 IR 87"]])
def test_names_in_several_character_sets_stay_the_same(terms: list[str], tmp_path: Path) -> None:
    images = Phantom().images()
    for image in images:
        image.SpecificCharacterSet, image.PatientName = terms, JAPANESE
    series = open_series(write_series(images, tmp_path), LIMITS)
    assert [answer.PatientName for answer in answered(series)] == [JAPANESE, JAPANESE]
    assert series.headers[0].SpecificCharacterSet == terms  # the header is left as it came


def test_directions_that_differ_in_their_last_digits_are_one(tmp_path: Path) -> None:
    phantom = Phantom.placed("sagittal", (1, -1, 1), (5, 6, 7))
    images = phantom.images()
    for number, image in enumerate(images):
        little = turned((0.005 * (number % 3), 0.01 * (number % 2), 0))
        directions = np.concatenate([little @ phantom.row, little @ phantom.column])
        image.ImageOrientationPatient = [float(f"{one:.8g}") for one in directions]
    assert answered(open_series(write_series(images, tmp_path), LIMITS))


@pytest.mark.parametrize("shared", ["without planes", "missing"])
def test_frames_that_share_no_plane_are_answered(shared: str, tmp_path: Path) -> None:
    image = Phantom.placed("coronal", (1, -1, 1), (3, 4, 5)).enhanced([*range(7, 16), *range(7)])
    common = image.SharedFunctionalGroupsSequence[0]
    for groups in image.PerFrameFunctionalGroupsSequence:
        groups.PlaneOrientationSequence = deepcopy(common.PlaneOrientationSequence)
        groups.PixelMeasuresSequence = deepcopy(common.PixelMeasuresSequence)
    del common.PlaneOrientationSequence, common.PixelMeasuresSequence
    if shared == "missing":
        del image.SharedFunctionalGroupsSequence
    assert answered(open_series(write_series([image], tmp_path), LIMITS))


@pytest.mark.parametrize(
    ("keyword", "code"),
    [("FrameOfReferenceUID", "no_frame_of_reference"), ("StudyInstanceUID", "no_study_uid")],
)
def test_what_has_no_place_is_refused_in_dicom_alone(
    keyword: str, code: str, tmp_path: Path
) -> None:
    images = Phantom().images()
    for image in images:
        delattr(image, keyword)
    series = open_series(write_series(images, tmp_path), LIMITS)
    assert series.read().shape == series.shape
    with pytest.raises(DicomError) as caught:
        answered(series)
    assert caught.value.code == code
