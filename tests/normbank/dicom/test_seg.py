"""SEG and SR: every structure where its label is, on the right side, on the right slices."""

from __future__ import annotations

import io
import shutil
import subprocess
from itertools import product
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from normbank.config import Settings
from normbank.dicom.centroids import MisplacedSegmentError, check_centroids
from normbank.dicom.codes import LATERALITY, answered_structures
from normbank.dicom.provenance import AnswerOrigin
from normbank.dicom.report import write_report
from normbank.dicom.seg import to_bytes, write_seg
from normbank.dicom.series import DicomSeries, open_series
from normbank.errors import EmptyScanError
from normbank.imaging.scan import Limits
from normbank.imaging.volumes import volumes_mm3
from tests.support.dicom import CANARY, PLANES, SIGNS, Phantom, as_bytes, drawn_voxels, write_series

LIMITS = Limits.of(Settings(min_thickness_mm=1.0))
ORIGIN = AnswerOrigin("ward-7", 2, "b" * 64, "5" * 64, key="answer-1")
OBLIQUE = (11.0, -7.0, 23.0)
LABELS = {"left-hippocampus": 17, "right-hippocampus": 53, "brain-stem": 16}
SPACINGS = {"even": (2.5, 2.0, 3.0), "gaps": (2.0, 2.0, 7.5)}


def opened(phantom: Phantom, folder: Path) -> DicomSeries:
    return open_series(write_series(phantom.images(), folder), LIMITS)


def drawn_ids(shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
    """Three boxes of three sizes where no flip or swap of axes would hide."""
    ids = np.zeros(shape, np.int16)
    ids[2:7, 3:9, 1:4] = 17
    ids[12:20, 5:8, 6:12] = 53
    ids[8:11, 12:18, 9:15] = 16
    return ids


def centroid_ras(ids: npt.NDArray[Any], number: int, affine: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.argwhere(ids == number).mean(axis=0) @ affine[:3, :3].T + affine[:3, 3]


def read_back(data: bytes) -> tuple[npt.NDArray[Any], npt.NDArray[Any], dict[str, int]]:
    """Segment numbers (I, J, K), voxel to RAS+, and numbers by tracking id, as highdicom has it."""
    seg = hd.seg.segread(io.BytesIO(data))
    volume = seg.get_volume(combine_segments=True)
    to_ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    numbers = {d.TrackingID: d.SegmentNumber for d in seg.SegmentSequence if d.SegmentNumber}
    return volume.array, to_ras, numbers


@pytest.mark.parametrize("gaps", SPACINGS)
@pytest.mark.parametrize("degrees", [(0.0, 0.0, 0.0), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("plane", PLANES)
def test_every_structure_lies_where_its_label_does(
    plane: str, degrees: tuple[float, float, float], gaps: str, tmp_path: Path
) -> None:
    for number, signs in enumerate(SIGNS):
        phantom = Phantom.placed(plane, signs, degrees, spacing=SPACINGS[gaps])
        series = opened(phantom, tmp_path / str(number))
        ids = drawn_ids(series.shape)
        data = to_bytes(write_seg(series, ids, ORIGIN, kind="labelmap" if number % 2 else "binary"))
        drawn, to_ras, numbers = read_back(data)
        assert set(numbers) == set(LABELS)
        for name, label in LABELS.items():
            here = centroid_ras(ids, label, series.affine)
            there = centroid_ras(drawn, numbers[name], to_ras)
            assert np.linalg.norm(here - there) < 0.1, (plane, signs, name)
            assert (drawn == numbers[name]).sum() == (ids == label).sum()


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
def test_each_source_image_carries_its_own_slice(kind: Any, tmp_path: Path) -> None:
    series = opened(Phantom.placed("sagittal", (1, -1, -1), OBLIQUE), tmp_path)
    ids = drawn_ids(series.shape)
    seg = hd.seg.segread(io.BytesIO(to_bytes(write_seg(series, ids, ORIGIN, kind=kind))))
    sources = [header.SOPInstanceUID for header in series.headers]
    assert {uid for _, _, uid in seg.get_source_image_uids()} == set(sources)
    assert seg.FrameOfReferenceUID == series.frame_of_reference_uid
    names = {d.SegmentNumber: d.TrackingID for d in seg.SegmentSequence if d.SegmentNumber}
    drawn = seg.get_pixels_by_source_instance(sources, combine_segments=True)
    for number, name in names.items():
        label = next(n for n, s in answered_structures().items() if s.name == name)
        np.testing.assert_array_equal(drawn == number, ids.transpose(2, 1, 0) == label)


def test_frames_of_an_enhanced_image_keep_their_slices_whatever_their_order(tmp_path: Path) -> None:
    phantom = Phantom.placed("coronal", (1, 1, 1), OBLIQUE)
    count = phantom.voxels.shape[2]
    order = np.random.default_rng(3).permutation(count)
    series = open_series(write_series([phantom.enhanced(order)], tmp_path), LIMITS)
    ids = drawn_ids(series.shape)
    drawn, to_ras, numbers = read_back(to_bytes(write_seg(series, ids, ORIGIN)))
    here = centroid_ras(ids, 53, series.affine)
    there = centroid_ras(drawn, numbers["right-hippocampus"], to_ras)
    assert np.linalg.norm(here - there) < 0.1


def test_a_segment_says_what_it_is_in_codes_and_colours(tmp_path: Path) -> None:
    series = opened(Phantom(), tmp_path)
    seg = write_seg(series, drawn_ids(series.shape), ORIGIN)
    left = next(d for d in seg.SegmentSequence if d.SegmentLabel == "Left Hippocampus")
    kind = left.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("5366008", "SCT")
    side = kind.SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")
    assert left.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    rgb = hd.color.CIELabColor.from_dicom_value(left.RecommendedDisplayCIELabValue).to_rgb()
    assert np.abs(np.array(rgb) - (220, 216, 20)).max() <= 2
    algorithm = left.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "normbank"
    assert "ward-7@2" in algorithm.AlgorithmParameters
    assert "research use" in seg.SeriesDescription
    assert "normbank" in {made.Manufacturer for made in seg.ContributingEquipmentSequence}
    assert (seg.PatientName, seg.StudyInstanceUID) == (CANARY, series.study_uid)


def test_every_answered_structure_has_codes_of_its_own() -> None:
    structures = answered_structures().values()
    assert len({(s.concept.value, s.side) for s in structures}) == len(structures)
    assert {s.side for s in structures} == {None, *LATERALITY}


def test_the_same_answer_has_the_same_uids_and_another_has_others(tmp_path: Path) -> None:
    series = opened(Phantom(), tmp_path)
    ids = drawn_ids(series.shape)
    once, again = (write_seg(series, ids, ORIGIN) for _ in range(2))
    other = write_seg(series, ids, AnswerOrigin("ward-7", 2, "b" * 64, "5" * 64))
    assert once.SOPInstanceUID == again.SOPInstanceUID
    assert once.SOPInstanceUID != other.SOPInstanceUID
    assert all(uid.is_valid for uid in (once.SOPInstanceUID, other.SeriesInstanceUID))


@pytest.mark.parametrize(
    "change",
    [
        lambda ids: ids[::-1],
        lambda ids: ids[:, ::-1],
        lambda ids: ids[:, :, ::-1],
        lambda ids: np.roll(ids, 1, axis=2),
        lambda ids: np.where(ids == 17, 53, np.where(ids == 53, 17, ids)),
        lambda ids: np.where(ids == 17, 0, ids),
    ],
    ids=["mirrored", "rows", "slices", "shifted", "sides", "missing"],
)
def test_what_does_not_lie_where_its_label_does_is_never_written(
    change: Any, tmp_path: Path
) -> None:
    series = opened(Phantom(), tmp_path)
    ids = drawn_ids(series.shape)
    seg = write_seg(series, ids, ORIGIN)
    numbers = {16: 1, 17: 2, 53: 3}
    check_centroids(seg, ids, series.affine, numbers)
    with pytest.raises(MisplacedSegmentError):
        check_centroids(seg, np.ascontiguousarray(change(ids)), series.affine, numbers)


def test_a_frame_placed_elsewhere_is_found(tmp_path: Path) -> None:
    series = opened(Phantom(), tmp_path)
    ids = drawn_ids(series.shape)
    seg = write_seg(series, ids, ORIGIN)
    for groups in seg.PerFrameFunctionalGroupsSequence:
        place = groups.PlanePositionSequence[0]
        place.ImagePositionPatient = [v + 0.2 for v in place.ImagePositionPatient]
    with pytest.raises(MisplacedSegmentError, match=r"lies 0\.35 mm"):
        check_centroids(seg, ids, series.affine, {16: 1, 17: 2, 53: 3})


@pytest.mark.parametrize("shape", [(91, 109, 6), (31, 7, 5), (64, 64, 5)], ids=str)
def test_images_of_any_size_are_compressed(shape: tuple[int, int, int], tmp_path: Path) -> None:
    series = opened(Phantom(voxels=drawn_voxels(shape)), tmp_path)
    ids = np.where(np.indices(shape).sum(0) % 3 == 0, 17, 53).astype(np.int16)
    drawn, _, numbers = read_back(to_bytes(write_seg(series, ids, ORIGIN)))
    assert (drawn == numbers["left-hippocampus"]).sum() == (ids == 17).sum()


def test_no_structure_is_no_segmentation(tmp_path: Path) -> None:
    series = opened(Phantom(), tmp_path)
    with pytest.raises(EmptyScanError):
        write_seg(series, np.zeros(series.shape, np.int16), ORIGIN)


def test_a_report_gives_the_volume_of_each_segment_and_refers_to_it(tmp_path: Path) -> None:
    series = opened(Phantom(), tmp_path)
    ids = drawn_ids(series.shape)
    seg, volumes = write_seg(series, ids, ORIGIN), volumes_mm3(ids, series.affine)
    data = to_bytes(write_report(series, seg, volumes, ORIGIN))
    report = hd.sr.srread(io.BytesIO(data)).content
    groups = report.get_volumetric_roi_measurement_groups()
    said = {g.tracking_identifier: g.get_measurements()[0].value for g in groups}
    assert said == {name: pytest.approx(mm3, abs=0.1) for name, mm3 in volumes.items() if mm3}
    for group in groups:
        image = next(item for item in group.referenced_segment if item.ValueType == "IMAGE")
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == seg.SOPInstanceUID


def test_a_label_map_of_a_whole_head_is_small(tmp_path: Path) -> None:
    voxels = np.zeros((256, 256, 60), np.uint16)
    voxels[20:230, 20:230, 2:58] = np.random.default_rng(0).integers(1, 900, (210, 210, 56))
    series = opened(Phantom(voxels=voxels, spacing=(1, 1, 3)), tmp_path)
    ids = np.zeros(voxels.shape, np.int16)
    cells = product(range(30, 210, 45), range(30, 210, 45), range(5, 55, 25))
    for number, (x, y, z) in zip(answered_structures(), cells, strict=False):
        ids[x : x + 40, y : y + 40, z : z + 20] = number
    assert len(to_bytes(write_seg(series, ids, ORIGIN))) < 1_000_000


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs dciodvfy (apt: dicom3tools)")
def test_a_validator_of_the_standard_finds_no_error(tmp_path: Path) -> None:
    series = opened(Phantom.placed("sagittal", (1, 1, 1), OBLIQUE), tmp_path / "series")
    ids = drawn_ids(series.shape)
    seg = write_seg(series, ids, ORIGIN, kind="binary")
    report = write_report(series, seg, volumes_mm3(ids, series.affine), ORIGIN)
    for name, dataset in (("seg", seg), ("report", report)):
        path = tmp_path / f"{name}.dcm"
        path.write_bytes(to_bytes(dataset))
        ran = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)
        said = [line for line in ran.stderr.splitlines() if line.startswith("Error")]
        assert said == [], said


def test_nothing_that_libraries_warn_of_can_quote_a_header(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    images = Phantom().images()
    for image in images:
        image.PatientName = "canaryname"  # of a shape that highdicom warns about
    series = open_series(write_series(images, tmp_path), LIMITS)
    write_seg(series, drawn_ids(series.shape), ORIGIN)
    said = capfd.readouterr()
    assert "canary" not in said.out + said.err
    assert pydicom.dcmread(io.BytesIO(as_bytes(images[0]))).PatientName == "canaryname"
