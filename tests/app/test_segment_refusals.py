"""What `POST /segment` refuses, and that nothing of it is kept."""

from __future__ import annotations

import gzip
import socket
import threading
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from normbank.entities import Role
from tests.support.api import Api, labels, nifti, wait_until
from tests.support.fake_engine import FakeEngine


def device_of(api: Api) -> FakeEngine:
    device = api.services.segmenter._device
    assert isinstance(device, FakeEngine)
    return device


@pytest.mark.parametrize("fields", [{"domain": "nowhere"}, {"domain": "../etc"}])
def test_an_unknown_domain_is_404(api: Api, fields: dict[str, str]) -> None:
    answer = api.segment(fields=fields)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_domain")


def test_a_domain_without_a_version_is_409(api: Api) -> None:
    api.core.domains.create("new", "new", {}, "normbank", ())
    answer = api.segment(fields={"domain": "new"})
    assert (answer.status_code, answer.json()["code"]) == (409, "domain_not_ready")


def test_an_archived_domain_is_404(api: Api) -> None:
    api.add_domain()
    api.core.domains.archive("drawn", api.core.domains.get("drawn").revision)
    assert api.segment(fields={"domain": "drawn"}).status_code == 404


def bomb() -> bytes:
    """A header of 2000³ doubles with nothing behind it."""
    header = nib.Nifti1Header()
    header.set_data_shape((2000, 2000, 2000))
    header.set_data_dtype(np.float64)
    header["vox_offset"] = 352
    header["magic"] = b"n+1"
    return gzip.compress(header.binaryblock + bytes(4))


def with_header(**values: Any) -> bytes:
    raw = bytearray(gzip.decompress(nifti()))
    header = nib.Nifti1Header(bytes(raw[:348]))
    for name, value in values.items():
        header[name] = value
    raw[:348] = header.binaryblock
    return gzip.compress(bytes(raw))


def nan_affine() -> bytes:
    return with_header(srow_x=np.full(4, np.nan), sform_code=1)


def zero_affine() -> bytes:
    zero = np.zeros(4)
    return with_header(srow_x=zero, srow_y=zero, srow_z=zero, sform_code=1)


BAD_SCANS = {
    "truncated gzip": (lambda: nifti(np.random.default_rng(0).random((40,) * 3))[:-5000], 422),
    "header bomb": (bomb, 413),
    "four dimensions": (lambda: nifti(np.ones((40, 40, 40, 2), np.float32)), 422),
    "NaN affine": (nan_affine, 422),
    "zero affine": (zero_affine, 422),
    "all zero": (lambda: nifti(np.zeros((40, 40, 40), np.float32)), 422),
    "two voxels thick": (lambda: nifti(np.random.default_rng(0).random((40, 40, 2))), 422),
    "unknown data type": (lambda: with_header(datatype=77), 422),
    "eight dimensions": (lambda: with_header(dim=[8] + [1] * 7), 422),
}

NO_IMAGES = {
    "text": b"Dear radiologist,\n" * 100,
    "gzip bomb": gzip.compress(bytes(40_000_000)),
    "rar": b"Rar!\x1a\x07" + bytes(500),
    "nrrd": b"NRRD0004\n" * 100,
}


@pytest.mark.parametrize("kind", BAD_SCANS)
def test_a_bad_scan_is_refused_with_its_reason_and_nothing_is_stored(api: Api, kind: str) -> None:
    api.add_domain()
    make, status = BAD_SCANS[kind]
    answer = api.segment(make(), fields={"domain": "drawn"})
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "instance", "code"} <= set(body)
    assert body["status"] == status
    assert body["instance"].endswith(answer.headers["X-Request-Id"])
    assert "/tmp" not in answer.text
    assert api.stored_blobs() == 0
    assert api.spooled() == 0
    assert api.core.segmentations.traffic("drawn").count == 0
    assert api.core.segmentations.traffic("drawn").errors == 1


@pytest.mark.parametrize("kind", NO_IMAGES)
def test_what_begins_like_no_image_is_415_whatever_it_is_called(api: Api, kind: str) -> None:
    api.add_domain()
    answer = api.segment(NO_IMAGES[kind], name="scan.nii.gz")
    assert (answer.status_code, answer.json()["code"]) == (415, "unknown_file_kind")
    assert answer.json()["field"] == "scan"
    assert api.stored_blobs() == 0
    assert api.spooled() == 0


def test_an_empty_file_is_422(api: Api) -> None:
    api.add_domain()
    answer = api.segment(b"")
    assert (answer.status_code, answer.json()["code"]) == (422, "truncated")


def test_what_is_no_image_is_refused_before_the_rest_has_come(api: Api) -> None:
    api.add_domain()
    form = (
        b'--b\r\nContent-Disposition: form-data; name="scan"; filename="scan.nii.gz"\r\n\r\n'
        + b"Dear radiologist,\n" * 10_000
    )
    with raw_request(api, api.keys[Role.SEGMENT], 10_000_000) as connection:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100")
        connection.sendall(form)
        answer = connection.recv(65536).decode()
    assert answer.startswith("HTTP/1.1 415")


def test_a_file_over_the_limit_is_413(api: Api) -> None:
    api.add_domain()
    noise = np.random.default_rng(0).bytes(5 * 1024 * 1024)
    answer = api.segment((348).to_bytes(4, "little") + noise)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert api.spooled() == 0


def test_a_request_over_the_limit_is_413_before_it_is_read(api: Api) -> None:
    answer = api.segment(bytes(17 * 1024 * 1024))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def raw_request(api: Api, secret: str, length: int) -> socket.socket:
    """Send the head of a POST /segment and nothing of its body."""
    host, _, port = api.url.removeprefix("http://").partition(":")
    connection = socket.create_connection((host, int(port)), timeout=10)
    connection.sendall(
        f"POST /segment HTTP/1.1\r\nHost: x\r\nX-API-Key: {secret}\r\n"
        f"Content-Type: multipart/form-data; boundary=b\r\nExpect: 100-continue\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
    )
    return connection


def test_a_full_queue_answers_503_before_the_upload_is_read(api: Api) -> None:
    api.add_domain()
    device = device_of(api)
    device.gate.clear()
    waiting = [threading.Thread(target=api.segment) for _ in range(device.places)]
    for thread in waiting:
        thread.start()
    try:
        wait_until(lambda: device.waiting == device.places)
        with raw_request(api, api.keys[Role.SEGMENT], 1_000_000) as connection:
            head = connection.recv(65536).decode()
        assert head.startswith("HTTP/1.1 503")
        assert "retry-after: 7" in head.lower()
        refused = api.segment()
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert api.client(None).get("/livez").status_code == 200
    finally:
        device.gate.set()
        for thread in waiting:
            thread.join(30)
    assert api.segment().status_code == 200


def test_two_scans_are_required_to_be_one(api: Api) -> None:
    api.add_domain()
    files = [("scan", ("a.nii.gz", nifti())), ("scan", ("b.nii.gz", nifti()))]
    answer = api.admin.post("/segment", files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "repeated_field")
    answer = api.admin.post("/segment", files=[("domain", (None, b"drawn"))])
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_field")
    answer = api.admin.post("/segment", files=[("labels", ("a.nii.gz", labels()))])
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field")
