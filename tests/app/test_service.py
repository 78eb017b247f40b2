"""The paths about the service itself, and what every answer has."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator

import pytest

from app.engine.device import Device
from normbank.config import Settings
from normbank.entities import Role
from tests.support.api import Api, as_form, nifti, serve, wait_until
from tests.support.fake_engine import FakeEngine
from tests.support.services import scan_job


def test_a_service_with_everything_is_ready(api: Api) -> None:
    wait_until(lambda: api.client(None).get("/readyz").status_code == 200)
    checks = api.client(None).get("/readyz").json()["checks"]
    assert {check["name"] for check in checks if check["ok"]} == {
        "database",
        "broker",
        "migrations",
        "backbone",
        "engine",
        "disk",
    }


def failing(settings: Settings) -> list[str]:
    with serve(settings) as api:
        answer = api.client(None).get("/readyz")
        assert answer.status_code == 503
        assert answer.headers["Retry-After"]
        return [check["name"] for check in answer.json()["checks"] if not check["ok"]]


def test_a_service_is_not_ready_before_the_schema_is_at_head(
    own_settings: Settings, unmigrated_url: str
) -> None:
    settings = own_settings.model_copy(update={"database_url": unmigrated_url})
    assert failing(settings) == ["migrations"]


def test_a_service_without_a_database_lives_and_says_what_is_missing(
    own_settings: Settings,
) -> None:
    nowhere = "postgresql+psycopg://nobody@127.0.0.1:1/none"
    settings = own_settings.model_copy(update={"database_url": nowhere})
    with serve(settings) as api:
        bare = api.client(None)
        assert bare.get("/livez").status_code == 200
        checks = {check["name"]: check["ok"] for check in bare.get("/readyz").json()["checks"]}
        assert checks == {
            "database": False,
            "broker": True,
            "migrations": False,
            "backbone": True,
            "engine": True,
            "disk": True,
        }
        answer = bare.get("/domains", headers={"X-API-Key": "nb_abc_def"})
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert answer.headers["Retry-After"]


class SlowStart(FakeEngine):
    """Loads its backbone until `gate` is set."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.gate.clear()

    def start(self) -> None:
        self.gate.wait(30)
        self.ready = True


def test_a_starting_service_lives_and_is_not_ready(own_settings: Settings) -> None:
    made: list[SlowStart] = []

    def make(settings: Settings) -> Device:
        made.append(SlowStart(settings))
        return made[0]

    with serve(own_settings, make) as api:
        api.make_keys()
        bare = api.client(None)
        assert bare.get("/livez").json() == {"status": "alive"}
        assert bare.get("/readyz").status_code == 503
        starting = api.admin.get("/backbone")
        assert (starting.status_code, starting.json()["code"]) == (503, "starting")
        assert starting.headers["Retry-After"]
        assert "normbank_engine_ready 0.0" in api.admin.get("/metrics").text
        made[0].gate.set()
        wait_until(lambda: bare.get("/readyz").status_code == 200)
        assert api.admin.get("/backbone").status_code == 200


class BrokenStart(FakeEngine):
    def start(self) -> None:
        raise ValueError("the backbone's content hash does not match its metadata")


def test_a_broken_backbone_keeps_the_service_from_being_ready(own_settings: Settings) -> None:
    with serve(own_settings, BrokenStart) as api:
        checks = api.client(None).get("/readyz").json()["checks"]
        assert [check["name"] for check in checks if not check["ok"]] == ["engine"]


class BrokenDevice(FakeEngine):
    def segment(self, *_: object, **__: object) -> None:  # type: ignore[override]
        raise RuntimeError("secret path /data/patients/doe.nii")


def test_an_internal_error_is_500_without_details(
    own_settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with serve(own_settings, BrokenDevice) as api:
        api.make_keys()
        api.add_domain()
        answer = api.segment()
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert "doe" not in answer.text
        assert answer.json()["instance"].endswith(answer.headers["X-Request-Id"])
        assert api.spooled() == 0
        assert api.segment().status_code == 500
    assert "doe" not in caplog.text


def test_metrics_are_for_prometheus(api: Api) -> None:
    api.add_domain()
    api.segment()
    api.services.core.jobs.submit_segment(scan_job())
    answer = api.client(Role.MONITOR).get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    for line in (
        'normbank_requests_total{method="POST",route="/segment",status="200"}',
        'normbank_segmentation_seconds_count{stage="network"}',
        'normbank_jobs{kind="segment",state="queued"} 1.0',
        "normbank_queue_depth 0.0",
        "normbank_bank_domains ",
        "normbank_states_rejected_total",
    ):
        assert line in answer.text


def test_the_backbone_says_what_it_is(api: Api) -> None:
    body = api.admin.get("/backbone").json()
    assert body["sha256"] == "b" * 64
    table = {row["structure"]: (row["left"], row["right"]) for row in body["labels"]}
    assert len(table) == len(body["classes"]) - 1
    assert table["hippocampus"] == (17, 53)
    assert any("mid-sagittal" in note for note in body["notes"])


def test_every_answer_carries_a_request_id(api: Api) -> None:
    given = str(uuid.uuid4())
    kept = api.admin.get("/domains", headers={"X-Request-Id": given})
    assert kept.headers["X-Request-Id"] == given
    replaced = api.admin.get("/domains", headers={"X-Request-Id": "John Doe"})
    assert uuid.UUID(replaced.headers["X-Request-Id"])
    for answer in (
        api.client(None).get("/livez"),
        api.client(None).get("/domains"),
        api.admin.get("/none"),
    ):
        assert answer.headers["X-Request-Id"]


def test_unknown_paths_and_methods_are_problems(api: Api) -> None:
    missing = api.admin.get("/no/such/path")
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_path")
    wrong = api.admin.put("/domains/x")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert set(wrong.headers["Allow"].split(", ")) == {"GET", "PATCH", "DELETE"}
    for answer in (missing, wrong):
        assert answer.headers["Content-Type"] == "application/problem+json"


BROKEN_FORMS = {
    "no boundary": ("multipart/form-data", b"", 400),
    "cut off": ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-d", 400),
    "no end": (
        "multipart/form-data; boundary=b",
        b'--b\r\nContent-Disposition: form-data; name="match"\r\n\r\nx',
        400,
    ),
    "no name": ("multipart/form-data; boundary=b", b"--b\r\nA: b\r\n\r\nx\r\n--b--\r\n", 400),
    "garbage": ("multipart/form-data; boundary=b", b"garbage" * 100, 400),
    "json": ("application/json", b"{}", 415),
    "nothing": ("", b"", 415),
}


@pytest.mark.parametrize("kind", BROKEN_FORMS)
def test_a_broken_form_is_the_clients_fault(api: Api, kind: str) -> None:
    content_type, body, status = BROKEN_FORMS[kind]
    headers = {"Content-Type": content_type} if content_type else {}
    for path in ("/domains", "/domains/import"):
        answer = api.admin.post(path, content=body, headers=headers)
        assert answer.status_code == status, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
    assert api.spooled() == 0


def test_a_field_that_is_too_long_is_413(api: Api) -> None:
    answer = api.admin.post("/segment", files=as_form({"domain": "x" * 300_000}))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_file_name_cannot_leave_the_spool(api: Api) -> None:
    api.add_domain()
    for name in ("../../../../tmp/evil.nii.gz", "/etc/passwd.nii.gz", "a\x00b.nii.gz", "..nii.gz"):
        answer = api.segment(nifti(), name=name)
        assert answer.status_code in (200, 400)
    assert api.spooled() == 0


def test_an_upload_that_stops_halfway_leaves_nothing(api: Api) -> None:
    def half() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="scan"; filename="a.nii"\r\n\r\n'
        yield bytes(100_000)
        raise ConnectionError

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    with pytest.raises(ConnectionError):
        api.admin.post("/segment", content=half(), headers=headers)
    wait_until(lambda: api.spooled() == 0)


def test_livez_answers_while_uploads_and_segmentations_go_on(api: Api) -> None:
    api.add_domain()
    device = api.services.segmenter._device
    assert isinstance(device, FakeEngine)
    device.gate.clear()
    busy = [threading.Thread(target=api.segment) for _ in range(device.places)]
    for thread in busy:
        thread.start()
    try:
        wait_until(lambda: device.waiting == device.places)
        started = time.monotonic()
        assert api.client(None).get("/livez").status_code == 200
        assert time.monotonic() - started < 5
    finally:
        device.gate.set()
        for thread in busy:
            thread.join(30)
