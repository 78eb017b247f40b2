"""DICOM through the API: zip and parts in, labels, SEG and SR out; no patient is kept."""

from __future__ import annotations

import email
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pydicom
import pytest

from app.http.forms import Upload
from app.http.series import unpacked
from normbank.config import Settings
from normbank.dicom.codes import answered_structures
from normbank.dicom.provenance import AnswerOrigin
from normbank.dicom.seg import to_bytes, write_seg
from normbank.dicom.series import open_series
from normbank.errors import InvalidError
from normbank.imaging.nifti import write_labels
from normbank.imaging.scan import Limits, Scan
from tests.support.api import Api, as_form, labels, nifti, read_nifti
from tests.support.dicom import CANARY, Phantom, as_bytes, write_series

DICOM = "application/dicom"
RELATED = 'multipart/related; type="application/dicom"'
LICENCE = b"You may copy this.\n"


def phantom(**changes: Any) -> Phantom:
    """A bright box in 96 mm of dark, sagittal and oblique."""
    voxels = np.zeros((32, 30, 34), np.uint16)
    voxels[8:22, 9:20, 10:30] = 900
    placed = Phantom.placed("sagittal", (1, -1, 1), (4.0, 0.0, -9.0), voxels=voxels, **changes)
    placed.spacing = (3.0, 3.0, 3.0)
    return placed


def series_files(**changes: Any) -> list[bytes]:
    return [as_bytes(image) for image in phantom(**changes).images()]


def zipped(files: Sequence[bytes], **noise: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, file in enumerate(files):
            archive.writestr(f"study/{CANARY}/{number}.dcm", file)
        for name, content in noise.items():
            archive.writestr(f"study/{name}", content)
    return buffer.getvalue()


def send(api: Api, parts: Sequence[bytes], accept: str = "", **request: Any) -> httpx.Response:
    files = [("scan", (f"{CANARY}-{n}", part)) for n, part in enumerate(parts)]
    headers = {**({"Accept": accept} if accept else {}), **request.pop("headers", {})}
    return api.admin.post(
        "/segment", files=files, data={"domain": "drawn"}, headers=headers, **request
    )


def test_zip_and_parts_are_answered_alike_on_the_series_grid(api: Api) -> None:
    api.add_domain()
    files = series_files()
    by_zip = send(api, [zipped(files, LICENSE=LICENCE)])
    by_parts = send(api, [LICENCE, *files[::-1]])
    assert by_zip.status_code == by_parts.status_code == 200, by_zip.text + by_parts.text
    labels = read_nifti(by_zip.content)
    np.testing.assert_array_equal(labels.get_fdata(), read_nifti(by_parts.content).get_fdata())
    np.testing.assert_allclose(labels.affine, phantom().affine, atol=1e-4)
    bright = phantom().voxels > 0
    assert ((labels.get_fdata() > 0) == bright).mean() > 0.97
    assert api.spooled() == 0


@pytest.mark.parametrize("kind", ["labelmap", "binary"])
def test_a_seg_says_what_the_nifti_says_slice_by_slice(api: Api, kind: str) -> None:
    api.add_domain()
    files = series_files()
    labels = read_nifti(send(api, files).content).get_fdata()
    answer = send(api, files, DICOM, params={"seg": kind})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"] == DICOM
    assert answer.headers["x-normbank-domain"] == "drawn"
    seg = pydicom.dcmread(io.BytesIO(answer.content))
    assert seg.SegmentationType == kind.upper()
    drawn, frames = np.zeros_like(labels), seg.pixel_array
    ids = {s.label: n for n, s in answered_structures().items()}
    numbers = {d.SegmentNumber: ids[d.SegmentLabel] for d in seg.SegmentSequence if d.SegmentNumber}
    origin, normal = np.array(phantom().origin), phantom().normal
    shared = seg.SharedFunctionalGroupsSequence[0]
    for frame, groups in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        position = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        k = round(float((position - origin) @ normal) / 3.0)
        if kind == "labelmap":
            for number, label in numbers.items():
                drawn[:, :, k][number == frame.T] = label
        else:
            named = groups if "SegmentIdentificationSequence" in groups else shared
            number = named.SegmentIdentificationSequence[0].ReferencedSegmentNumber
            drawn[:, :, k][frame.T > 0] = numbers[number]
    np.testing.assert_array_equal(drawn, labels)


def test_seg_and_report_come_together(api: Api) -> None:
    api.add_domain()
    answer = send(api, series_files(), RELATED)
    assert answer.status_code == 200, answer.text
    head = f"Content-Type: {answer.headers['content-type']}\r\n\r\n".encode()
    parts = email.message_from_bytes(head + answer.content).get_payload()
    seg, report = (pydicom.dcmread(io.BytesIO(part.get_payload(decode=True))) for part in parts)
    assert (seg.Modality, report.Modality) == ("SEG", "SR")
    assert seg.StudyInstanceUID == report.StudyInstanceUID == phantom().images()[0].StudyInstanceUID
    assert seg.PatientName == CANARY


def test_volumes_are_answered_for_dicom_too(api: Api) -> None:
    api.add_domain()
    answer = send(api, [zipped(series_files())], "application/json")
    assert answer.status_code == 200
    assert sum(answer.json()["volumes_mm3"].values()) > 0


def test_only_dicom_can_be_answered_in_dicom(api: Api) -> None:
    api.add_domain()
    answer = send(api, [nifti()], DICOM)
    assert (answer.status_code, answer.json()["code"]) == (406, "not_acceptable")


def test_a_job_keeps_a_copy_without_the_patient(api: Api) -> None:
    api.add_domain()
    answer = send(api, series_files(), headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    (kept,) = kept_files(api)
    copy = read_nifti(kept)
    np.testing.assert_allclose(copy.affine, phantom().affine, atol=1e-4)
    np.testing.assert_array_equal(copy.get_fdata(), phantom().voxels)


def test_dicom_is_answered_at_once_even_where_a_job_is_preferred(api: Api) -> None:
    api.add_domain()
    answer = send(api, series_files(), DICOM, headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.headers["content-type"]) == (200, DICOM)


def test_two_volumes_or_a_volume_beside_images_are_refused(api: Api) -> None:
    api.add_domain()
    for parts in ([nifti(), nifti()], [nifti(), *series_files()], [*series_files(), nifti()]):
        answer = send(api, parts)
        assert (answer.status_code, answer.json()["code"]) == (422, "repeated_field")
        assert api.spooled() == 0


def test_folder_noise_alone_is_no_scan(api: Api) -> None:
    api.add_domain()
    answer = send(api, [LICENCE, LICENCE])
    assert (answer.status_code, answer.json()["code"]) == (415, "unknown_file_kind")


BAD = {
    "no zip at all": (lambda: [b"PK\x03\x04" + bytes(500)], "damaged_zip"),
    "zip of a zip": (lambda: [zipped([zipped(series_files())])], "nested_archive"),
    "zip that leads out": (lambda: [_named("../../etc/cron.d/x")], "unsafe_zip"),
    "two series": (lambda: series_files() + series_files(series="2"), "several_series"),
    "a slice is missing": (lambda: series_files()[:12] + series_files()[13:], "missing_slices"),
    "a slice twice": (lambda: [*series_files(), series_files()[4]], "duplicate_instances"),
    "one slice": (lambda: series_files()[:1], "too_few_slices"),
}


def _named(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, series_files()[0])
    return buffer.getvalue()


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_whole_series_is_refused_and_nothing_is_kept(api: Api, case: str) -> None:
    api.add_domain()
    make, code = BAD[case]
    answer = send(api, make())
    assert (answer.status_code, answer.json()["code"]) == (422, code), answer.text
    assert CANARY.split("^")[0] not in answer.text
    assert (api.stored_blobs(), api.spooled()) == (0, 0)


def drawn_ids(affine: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[np.int16]:
    """A hippocampus on each side of the middle of the bright box, left of which is left."""
    ids = np.zeros(shape, np.int16)
    ids[10:14, 11:18, 12:28] = 17
    x = np.einsum("i,i...->...", affine[0, :3], np.indices(shape))
    inside = ids > 0
    ids[inside & (x > x[inside].mean())] = 53
    return ids


def case_seg(folder: Path, **changes: Any) -> bytes:
    series = open_series(write_series(phantom().images(), folder), Limits.of(Settings()))
    ids = drawn_ids(series.affine, series.shape)
    seg = write_seg(series, ids, AnswerOrigin("by-hand", 1, "b" * 64, "5" * 64))
    for segment in seg.SegmentSequence[1:]:
        for name, value in changes.items():
            setattr(segment, name, f"{value} {segment.SegmentNumber}")
            del segment.SegmentedPropertyTypeCodeSequence[0].CodeValue
    return to_bytes(seg)


def add_case(api: Api, scan: bytes, reference: bytes, **fields: str) -> httpx.Response:
    given = {"id": "new", "name": "New scanner", "label_scheme": "freesurfer", **fields}
    files = [("scans", ("s", scan)), ("labels", ("l", reference))]
    parameters = {"accept": "doubtful"}  # a box is no head
    return api.admin.post("/domains", files=[*as_form(given), *files], params=parameters)


def kept_files(api: Api) -> list[bytes]:
    blobs = api.core.settings.data_dir / "blobs" / "sha256"
    return [path.read_bytes() for path in blobs.rglob("*") if path.is_file()]


def test_a_case_of_a_series_and_its_seg_is_kept_as_nifti(api: Api, tmp_path: Path) -> None:
    answer = add_case(api, zipped(series_files()), case_seg(tmp_path))
    assert answer.status_code == 201, answer.text
    (case,) = api.core.cases.of("new")
    assert case.structures == ("hippocampus",)
    kept = [read_nifti(file) for file in kept_files(api)]
    stored = next(image for image in kept if np.issubdtype(image.get_data_dtype(), np.integer))
    np.testing.assert_array_equal(
        stored.get_fdata(), drawn_ids(phantom().affine, stored.get_fdata().shape)
    )
    for image in kept:
        np.testing.assert_allclose(image.affine, phantom().affine, atol=1e-4)


def test_labels_of_a_converter_with_an_order_of_its_own_are_put_onto_the_series(
    api: Api,
) -> None:
    affine, shape = phantom().affine, phantom().voxels.shape
    ids = drawn_ids(affine, shape)
    turned = np.ascontiguousarray(ids.transpose(2, 0, 1)[:, :, ::-1])
    moved = affine[:, [2, 0, 1, 3]].copy()
    moved[:, 3] += moved[:, 2] * (shape[1] - 1)
    moved[:, 2] *= -1
    reference = write_labels(turned, Scan(turned.astype(np.float32), moved))
    answer = add_case(api, zipped(series_files()), reference)
    assert answer.status_code == 201, answer.text
    kept = [read_nifti(file).get_fdata() for file in kept_files(api)]
    assert any(np.array_equal(data, ids) for data in kept)


def test_what_a_zip_of_a_case_held_is_gone_with_the_case(tmp_path: Path) -> None:
    (tmp_path / "3").write_bytes(zipped(series_files()))
    upload = Upload(tmp_path / "3", "scans.zip", "0" * 64, 1)
    limits = Limits(1 << 24, 1 << 26, 1 << 20, 1.0)
    with unpacked(upload, limits) as folder:
        assert len(list(folder.iterdir())) == 34
    (tmp_path / "3").write_bytes(zipped([zipped(series_files())]))
    with pytest.raises(InvalidError), unpacked(upload, limits):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_segments_that_say_nothing_need_a_mapping(api: Api, tmp_path: Path) -> None:
    seg = case_seg(tmp_path, SegmentLabel="thing")
    refused = add_case(api, zipped(series_files()), seg)
    assert (refused.status_code, refused.json()["code"]) == (422, "unknown_segments")
    assert (refused.json()["pair"], refused.json()["file"]) == (0, "labels")
    mapped = add_case(api, zipped(series_files()), seg, label_mapping='{"1": 17, "2": 53}')
    assert mapped.status_code == 201, mapped.text


@pytest.mark.parametrize("mapping", ['{"1": "17"}', '{"1": 0}', '{"1": true}', '{"1": 1.5}'])
def test_a_mapping_gives_ids(api: Api, tmp_path: Path, mapping: str) -> None:
    seg = case_seg(tmp_path)
    answer = add_case(api, zipped(series_files()), seg, label_mapping=mapping)
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_label_mapping")


def test_a_seg_needs_its_series_and_comes_unpacked(api: Api, tmp_path: Path) -> None:
    seg = case_seg(tmp_path)
    alone = add_case(api, nifti(), seg)
    assert (alone.status_code, alone.json()["code"]) == (422, "seg_without_series")
    packed = add_case(api, zipped(series_files()), zipped([seg]))
    assert (packed.status_code, packed.json()["code"]) == (422, "zipped_labels")
    other = add_case(api, zipped(series_files()), labels())
    assert (other.status_code, other.json()["code"]) == (422, "geometry_mismatch")
    assert api.stored_blobs() == 0
