"""`POST /segment` and what it leaves behind."""

from __future__ import annotations

import gzip
import socket
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import redis
from sqlalchemy import text

from models.state import State
from normbank.config import Settings
from normbank.entities import JobState, NewState, Role
from normbank.logs import JsonLines
from tests.support.api import Api, labels, nifti, queued_messages, read_nifti, serve, wait_until
from tests.support.fake_engine import BACKBONE, SPEC, FakeEngine

JSON = {"Accept": "application/json"}
ASYNC = {"Prefer": "respond-async"}


def device_of(api: Api) -> FakeEngine:
    device = api.parts.segmenter._device
    assert isinstance(device, FakeEngine)
    return device


def test_labels_come_back_on_the_scans_own_grid(api: Api) -> None:
    api.add_domain(states=(1.0, 2.0))
    affine = np.array([[0, -2.0, 0, 5], [2.0, 0, 0, -3], [0, 0, 2.5, 1], [0, 0, 0, 1]])
    data = np.zeros((40, 44, 48), np.float32)
    data[10:20, 10:20, 10:20] = 7
    answer = api.segment(nifti(data, affine=affine), fields={"domain": "drawn"})
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/gzip"
    assert answer.headers["X-Normbank-Domain"] == "drawn"
    assert answer.headers["X-Normbank-Version"] == "2"
    assert answer.headers["X-Normbank-Backbone"] == BACKBONE
    found = read_nifti(answer.content)
    assert found.shape == (40, 44, 48)
    np.testing.assert_allclose(found.affine, affine)
    np.testing.assert_array_equal(np.asarray(found.dataobj) == 17, data > 0)


def test_json_holds_volumes_and_a_link_to_the_labels(api: Api) -> None:
    state = api.add_domain()[0]
    answer = api.segment(fields={"domain": "drawn"}, headers=JSON)
    assert answer.status_code == 200
    body = answer.json()
    assert body["domain"] == "drawn"
    assert body["version"] == 1
    assert body["backbone"] == BACKBONE
    assert body["state_sha256"] == state.sha256
    assert body["volumes_mm3"] == {"left-hippocampus": 64000.0}
    assert {"read", "network", "write", "total"} <= set(body["timings_s"])
    assert body["quality"] == {"missing": []}
    assert datetime.fromisoformat(body["expires_at"]) > datetime.now(UTC)
    fetched = api.client(Role.SEGMENT).get(body["labels"])
    assert fetched.status_code == 200
    assert fetched.headers["X-Normbank-Version"] == "1"
    assert read_nifti(fetched.content).shape == (40, 40, 40)
    again = api.admin.get(f"/segmentations/{body['id']}")
    assert again.json() == body
    assert again.headers["X-Normbank-Domain"] == "drawn"


def test_accept_decides_by_quality(api: Api) -> None:
    api.add_domain()
    mixed = {"Accept": "application/gzip;q=0.1, application/json;q=0.5"}
    assert "volumes_mm3" in api.segment(headers=mixed).json()
    refused = api.segment(headers={"Accept": "application/dicom"})
    assert refused.status_code == 406
    assert refused.json()["offered"] == ["application/gzip", "application/json"]


def test_an_mgz_scan_is_segmented(api: Api) -> None:
    api.add_domain()
    data = np.zeros((40, 40, 40), np.float32)
    data[10:30] = 5
    scan = gzip.compress(nib.MGHImage(data, np.diag([2.0, 2, 2, 1])).to_bytes())
    assert api.segment(scan, name="scan.MGZ").status_code == 200


def test_a_volume_with_a_fourth_axis_of_one_is_segmented(api: Api) -> None:
    api.add_domain()
    data = np.zeros((40, 40, 40, 1), np.float32)
    data[10:30] = 5
    answer = api.segment(nifti(data))
    assert answer.status_code == 200
    assert read_nifti(answer.content).shape[:3] == (40, 40, 40)


def test_respond_async_answers_with_a_job(api: Api, broker: redis.Redis) -> None:
    api.add_domain()
    answer = api.segment(headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    job = api.admin.get(answer.headers["Location"])
    assert job.json() == answer.json()
    assert job.json()["kind"] == "segment"
    assert job.json()["state"] == "queued"
    row = api.parts.jobs.job(job.json()["id"])
    assert row.state is JobState.QUEUED
    assert row.payload["domain"] == "drawn"
    assert row.payload["version"] == 1
    assert row.payload["certify"] is False
    assert api.parts.blobs.exists(row.payload["scan_sha256"])
    assert row.id in queued_messages(broker)


def test_certify_travels_with_the_job(api: Api) -> None:
    api.add_domain()
    answer = api.segment(headers=ASYNC, params={"certify": "true"})
    assert api.parts.jobs.job(answer.json()["id"]).payload["certify"] is True


def test_no_accepted_job_lacks_its_file(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that fails with the same file deletes it between putting and recording."""
    api.add_domain()
    put_file, put = api.parts.blobs.put_file, []

    def put_and_lose(path: Path) -> str:
        put.append(put_file(path))
        if len(put) == 1:
            assert api.registry.discard_blobs(put) == 1
        return put[-1]

    monkeypatch.setattr(type(api.parts.blobs), "put_file", lambda _, path: put_and_lose(path))
    job = api.parts.jobs.job(api.segment(headers=ASYNC).json()["id"])
    assert len(put) == 2
    assert api.parts.blobs.exists(job.payload["scan_sha256"])


def test_a_full_table_of_jobs_takes_no_more_and_keeps_no_file(own_settings: Settings) -> None:
    with serve(own_settings.model_copy(update={"queue_jobs": 1})) as api:
        api.make_keys()
        api.add_domain()
        assert api.segment(headers=ASYNC).status_code == 202
        assert api.stored_blobs() == 1
        refused = api.segment(nifti(np.random.default_rng(0).random((40,) * 3)), headers=ASYNC)
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")
        assert refused.headers["Retry-After"]
        assert api.stored_blobs() == 1
        assert api.segment().status_code == 200


def test_an_answer_that_cannot_be_recorded_leaves_no_file(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.add_domain()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(type(api.registry), "record_segmentation", fail)
        answer = api.segment(fields={"domain": "drawn"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert api.stored_blobs() == 0
    assert api.registry.traffic("drawn").errors == 1


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
def test_a_version_of_another_backbone_is_kept_and_not_served(
    api: Api, headers: dict[str, str]
) -> None:
    api.registry.create_domain("older", "older", {}, "normbank", ())
    state = State(State.initial(SPEC, "c" * 64).rows, "c" * 64)
    older = NewState(state.sha256, "c" * 64, None, {}, {}, None, state.to_bytes())
    api.registry.publish("older", state=older, promote=True)
    answer = api.segment(fields={"domain": "older"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "other_backbone")
    api.parts.segmenter.preload()
    assert api.registry.active_state("older").quarantined is None


def test_an_async_request_is_refused_where_the_job_would_fail(api: Api) -> None:
    api.add_domain()
    answer = api.segment(b"no scan", headers={"Prefer": "respond-async"})
    assert answer.status_code == 422
    assert api.parts.jobs.counts() == {}
    assert api.stored_blobs() == 0


@pytest.mark.parametrize("fields", [{"domain": "nowhere"}, {"domain": "../etc"}])
def test_an_unknown_domain_is_404(api: Api, fields: dict[str, str]) -> None:
    answer = api.segment(fields=fields)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_domain")


def test_a_domain_without_a_version_is_409(api: Api) -> None:
    api.registry.create_domain("new", "new", {}, "normbank", ())
    answer = api.segment(fields={"domain": "new"})
    assert (answer.status_code, answer.json()["code"]) == (409, "domain_not_ready")


def test_an_archived_domain_is_404(api: Api) -> None:
    api.add_domain()
    api.registry.archive_domain("drawn", api.registry.domain("drawn").revision)
    assert api.segment(fields={"domain": "drawn"}).status_code == 404


def test_auto_goes_by_the_rules_on_the_sidecar(api: Api) -> None:
    api.add_domain("siemens", match={"Manufacturer": "Siemens"})
    field = {"MagneticFieldStrength": {"min": 2.5}}
    api.add_domain("siemens-3t", match={"Manufacturer": "Siemens", **field}, states=(2.0,))
    api.add_domain("philips", match={"Manufacturer": "Philips"}, states=(3.0,))
    sidecar = '{"Manufacturer": "SIEMENS", "MagneticFieldStrength": 3}'
    answer = api.segment(fields={"domain": "auto", "sidecar": sidecar})
    assert answer.headers["X-Normbank-Domain"] == "siemens-3t"
    files = [
        ("scan", ("a.nii.gz", nifti())),
        ("sidecar", ("a.json", b'{"Manufacturer": "Philips"}')),
    ]
    answer = api.admin.post("/segment", files=files)
    assert answer.headers["X-Normbank-Domain"] == "philips"


def test_auto_takes_the_only_domain_there_is(api: Api) -> None:
    api.add_domain()
    api.registry.create_domain("not-ready", "not ready", {}, "normbank", ())
    assert api.segment().headers["X-Normbank-Domain"] == "drawn"


def test_auto_without_a_match_answers_the_ranking(api: Api) -> None:
    api.add_domain("plain")
    rules = {"Manufacturer": "Siemens", "MagneticFieldStrength": 3}
    api.add_domain("siemens", match=rules, states=(2.0,))
    answer = api.segment(fields={"sidecar": '{"Manufacturer": "Siemens"}'})
    assert (answer.status_code, answer.json()["code"]) == (422, "no_close_domain")
    ranking = answer.json()["ranking"]
    assert [row["domain"] for row in ranking] == ["siemens", "plain"]
    assert ranking[0]["failed_rules"] == ["MagneticFieldStrength"]


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
    "text": (lambda: b"Dear radiologist,\n" * 100, 422),
    "empty file": (lambda: b"", 422),
    "truncated gzip": (lambda: nifti(np.random.default_rng(0).random((40,) * 3))[:-5000], 422),
    "header bomb": (bomb, 413),
    "four dimensions": (lambda: nifti(np.ones((40, 40, 40, 2), np.float32)), 422),
    "NaN affine": (nan_affine, 422),
    "zero affine": (zero_affine, 422),
    "all zero": (lambda: nifti(np.zeros((40, 40, 40), np.float32)), 422),
    "two voxels thick": (lambda: nifti(np.random.default_rng(0).random((40, 40, 2))), 422),
    "gzip bomb": (lambda: gzip.compress(bytes(40_000_000)), 422),
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
    assert api.registry.traffic("drawn").count == 0
    assert api.registry.traffic("drawn").errors == 1


@pytest.mark.parametrize("name", ["scan.dcm", "series.zip", "scan.nrrd", "scan", "scan.json"])
def test_an_unknown_file_kind_is_415(api: Api, name: str) -> None:
    api.add_domain()
    answer = api.segment(name=name)
    assert (answer.status_code, answer.json()["code"]) == (415, "unknown_file_kind")


def test_a_file_over_the_limit_is_413(api: Api) -> None:
    api.add_domain()
    answer = api.segment(np.random.default_rng(0).bytes(5 * 1024 * 1024))
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


@pytest.mark.parametrize(("whole_s", "idle_s"), [(0.3, 60.0), (600.0, 0.3)])
def test_an_upload_that_stalls_is_given_up_and_its_place_is_free(
    own_settings: Settings, monkeypatch: pytest.MonkeyPatch, whole_s: float, idle_s: float
) -> None:
    monkeypatch.setattr("app.uploads.IDLE_S", idle_s)
    with serve(own_settings.model_copy(update={"receive_timeout_s": whole_s})) as api:
        api.make_keys()
        with raw_request(api, api.keys[Role.SEGMENT], 1_000_000) as connection:
            wait_until(lambda: device_of(api).waiting == 1)
            connection.settimeout(30)
            answer = connection.recv(65536).decode()
            while "upload_timeout" not in answer:
                more = connection.recv(65536).decode()
                assert more, answer
                answer += more
        assert "HTTP/1.1 408" in answer
        assert "connection: close" in answer.lower()
        assert device_of(api).waiting == 0
        assert api.spooled() == 0


def test_labels_can_be_fetched_until_their_retention_ends(own_settings: Settings) -> None:
    settings = own_settings.model_copy(update={"retention_days": 0.5 / 86_400})
    with serve(settings) as api:
        api.make_keys()
        api.add_domain()
        body = api.segment(headers=JSON).json()
        labels_path = f"/segmentations/{body['id']}/labels"
        wait_until(lambda: api.admin.get(labels_path).status_code == 410)
        assert api.admin.get(labels_path).json()["code"] == "labels_expired"
        assert api.registry.expire_segmentations() == 1
        assert api.stored_blobs() == 0
        assert api.admin.get(labels_path).status_code == 410
        later = api.admin.get(f"/segmentations/{body['id']}").json()
        assert later["labels"] is None
        assert later["volumes_mm3"] == body["volumes_mm3"]


def test_an_unknown_segmentation_is_404(api: Api) -> None:
    for path in ("/segmentations/none", "/segmentations/none/labels"):
        answer = api.admin.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_segmentation")


def test_a_corrupt_state_is_refused_and_the_version_before_is_served(api: Api) -> None:
    first, second = api.add_domain(states=(4.0, 5.0))
    with api.registry._sessions.begin() as session:
        session.execute(
            text("UPDATE state SET tensors = set_byte(tensors, 400, 77) WHERE sha256 = :s"),
            {"s": second.sha256},
        )
    answer = api.segment(fields={"domain": "drawn"})
    assert answer.status_code == 200
    assert answer.headers["X-Normbank-Version"] == str(first.number)
    versions = api.admin.get("/domains/drawn/versions").json()["items"]
    assert [version["active"] for version in versions] == [True, False]
    assert versions[1]["quarantined"]
    assert "normbank_states_rejected_total 1.0" in api.admin.get("/metrics").text


def test_no_name_of_a_patient_is_kept_anywhere(
    api: Api, broker: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "Kanarienvogel^Doe"
    api.add_domain()
    caplog.set_level("DEBUG")
    scan = nib.Nifti1Image.from_bytes(gzip.decompress(nifti()))
    scan.header["descrip"] = canary
    packed = gzip.compress(scan.to_bytes())
    headers = {"X-Request-Id": canary}
    for prefer in ("respond-async", ""):
        sent = {**headers, "Prefer": prefer}
        sidecar = f'{{"PatientName": "{canary}"}}'
        answer = api.segment(
            packed, name=f"{canary}.nii.gz", fields={"sidecar": sidecar}, headers=sent
        )
        assert answer.status_code in (200, 202)
        assert canary not in answer.text + str(answer.headers)
    api.segment(b"broken", name=f"{canary}.nii", headers=headers)
    api.admin.get(f"/segmentations/{canary}")
    tables = ("job", "segmentation", "request_error", "audit_event", "idempotency_key")
    with api.registry._sessions() as session:
        rows = [str(session.execute(text(f"SELECT * FROM {t}")).all()) for t in tables]
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    lines = "\n".join(JsonLines().format(record) for record in ours)
    assert '"route": "/segment"' in lines
    for place in (*rows, queued_messages(broker), lines, api.admin.get("/metrics").text):
        assert "Kanarienvogel" not in place


def test_two_scans_are_required_to_be_one(api: Api) -> None:
    api.add_domain()
    files = [("scan", ("a.nii.gz", nifti())), ("scan", ("b.nii.gz", nifti()))]
    answer = api.admin.post("/segment", files=files)
    assert (answer.status_code, answer.json()["code"]) == (422, "repeated_field")
    answer = api.admin.post("/segment", files=[("domain", (None, b"drawn"))])
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_field")
    answer = api.admin.post("/segment", files=[("labels", ("a.nii.gz", labels()))])
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_field")
