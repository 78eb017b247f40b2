"""`POST /segment` and what it leaves behind."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime

import nibabel as nib
import numpy as np
import pytest
import redis
from sqlalchemy import text

from models.state import State
from normbank.config import Settings
from normbank.entities import DomainState, NewState, Role
from normbank.logs import JsonLines
from tests.support.api import Api, nifti, queued_messages, read_nifti, serve, wait_until
from tests.support.fake_engine import BACKBONE, SPEC

JSON = {"Accept": "application/json"}


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


def test_an_answer_that_cannot_be_recorded_leaves_no_file(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.add_domain()

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(type(api.core.segmentations), "record", fail)
        answer = api.segment(fields={"domain": "drawn"})
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
    assert api.stored_blobs() == 0
    assert api.core.segmentations.traffic("drawn").errors == 1


@pytest.mark.parametrize("headers", [{}, {"Prefer": "respond-async"}])
def test_a_version_of_another_backbone_is_kept_and_not_served(
    api: Api, headers: dict[str, str]
) -> None:
    api.core.domains.create("older", "older", {}, "normbank", ())
    state = State(State.initial(SPEC, "c" * 64).rows, "c" * 64)
    older = NewState(state.sha256, "c" * 64, None, {}, {}, None, state.to_bytes())
    api.core.versions.publish("older", state=older, promote=True)
    answer = api.segment(fields={"domain": "older"}, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "other_backbone")
    api.services.segmenter.preload_all()
    assert api.core.versions.active("older").quarantined is None


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
    api.core.domains.create("not-ready", "not ready", {}, "normbank", ())
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


def test_labels_can_be_fetched_until_their_retention_ends(own_settings: Settings) -> None:
    settings = own_settings.model_copy(update={"retention_days": 0.5 / 86_400})
    with serve(settings) as api:
        api.make_keys()
        api.add_domain()
        body = api.segment(headers=JSON).json()
        labels_path = f"/segmentations/{body['id']}/labels"
        wait_until(lambda: api.admin.get(labels_path).status_code == 410)
        assert api.admin.get(labels_path).json()["code"] == "labels_expired"
        assert api.core.segmentations.expire() == 1
        assert api.stored_blobs() == 0
        assert api.admin.get(labels_path).status_code == 410
        later = api.admin.get(f"/segmentations/{body['id']}").json()
        assert later["labels"] is None
        assert later["volumes_mm3"] == body["volumes_mm3"]


def test_an_unknown_segmentation_is_404(api: Api) -> None:
    for path in ("/segmentations/none", "/segmentations/none/labels"):
        answer = api.admin.get(path)
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_segmentation")


def rejected_states(api: Api) -> float:
    """The counter, which also has what other tests have left behind."""
    lines = api.admin.get("/metrics").text.splitlines()
    return float(
        next(ln for ln in lines if ln.startswith("normbank_states_rejected_total")).split()[1]
    )


def spoil(api: Api, state: DomainState) -> None:
    """Change one byte of a stored state."""
    with api.core.domains._sessions.begin() as session:
        session.execute(
            text("UPDATE state SET tensors = set_byte(tensors, 400, 77) WHERE sha256 = :s"),
            {"s": state.sha256},
        )


def test_a_corrupt_state_is_refused_and_the_version_before_is_served(api: Api) -> None:
    first, second = api.add_domain(states=(4.0, 5.0))
    spoil(api, second)
    before = rejected_states(api)
    answer = api.segment(fields={"domain": "drawn"})
    assert answer.status_code == 200
    assert answer.headers["X-Normbank-Version"] == str(first.number)
    versions = api.admin.get("/domains/drawn/versions").json()["items"]
    assert [version["active"] for version in versions] == [True, False]
    assert versions[1]["quarantined"]
    assert rejected_states(api) == before + 1


def test_preloading_refuses_a_corrupt_state_and_takes_the_one_before(api: Api) -> None:
    first, second = api.add_domain(states=(4.0, 5.0))
    spoil(api, second)
    api.services.segmenter.preload_all()
    assert api.core.versions.get("drawn", second.number).quarantined
    assert api.core.versions.active("drawn").number == first.number


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
    with api.core.domains._sessions() as session:
        rows = [str(session.execute(text(f"SELECT * FROM {t}")).all()) for t in tables]
    ours = [record for record in caplog.records if not record.name.startswith("http")]
    lines = "\n".join(JsonLines().format(record) for record in ours)
    assert '"route": "/segment"' in lines
    for place in (*rows, queued_messages(broker), lines, api.admin.get("/metrics").text):
        assert "Kanarienvogel" not in place
