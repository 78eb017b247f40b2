"""`POST /identify`, and what `domain=auto` says of its choice."""

from __future__ import annotations

import json
from typing import Any

import httpx
import numpy as np

from normbank.entities import Role
from tests.app.test_dicom import series_files, zipped
from tests.support.api import Api, as_form, nifti

DRAWN = {"Manufacturer": "Drawn Systems", "MagneticFieldStrength": {"min": 2.5, "max": 3.5}}


def identify(api: Api, scan: bytes, sidecar: dict[str, Any] | None = None) -> httpx.Response:
    files = [("scan", ("s", scan)), *as_form({"sidecar": json.dumps(sidecar or {})})]
    return api.client(Role.SEGMENT).post("/identify", files=files)


def test_header_rules_go_first_and_are_told(api: Api) -> None:
    api.add_domain("plain")
    api.add_domain("siemens", match={"Manufacturer": "Siemens"}, states=(2.0,))
    answer = identify(api, nifti(), {"Manufacturer": "SIEMENS"})
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert (body["domain"], body["reason"], body["margin"]) == ("siemens", "rules", None)
    assert {row["domain"]: row["failed_rules"] for row in body["ranking"]} == {
        "siemens": [],
        "plain": [],
    }
    assert (api.stored_blobs(), api.spooled()) == (0, 0)


def test_the_header_of_a_series_needs_no_sidecar(api: Api) -> None:
    api.add_domain("plain")
    api.add_domain("drawn", match=DRAWN, states=(2.0,))
    answer = identify(api, zipped(series_files()))
    assert (answer.json()["domain"], answer.json()["reason"]) == ("drawn", "rules")
    segmented = api.admin.post(
        "/segment",
        files=[("scan", ("s", zipped(series_files())))],
        headers={"Accept": "application/json"},
    )
    assert segmented.status_code == 200, segmented.text
    body = segmented.json()
    assert (body["domain"], body["identification"]["reason"]) == ("drawn", "rules")
    kept = api.admin.get(f"/segmentations/{body['id']}").json()
    assert kept["identification"] == body["identification"]


def test_nothing_near_is_an_answer_of_identify_and_an_error_of_segment(api: Api) -> None:
    api.add_domain("one")
    api.add_domain("two", states=(2.0,))
    answer = identify(api, nifti())
    assert (answer.status_code, answer.json()["domain"]) == (200, None)
    assert answer.json()["reason"] == "abstained"
    refused = api.segment()
    assert (refused.status_code, refused.json()["code"]) == (422, "no_close_domain")


def test_air_with_something_in_a_corner_is_no_brain(api: Api) -> None:
    api.add_domain("one")
    voxels = np.zeros((60, 60, 60), np.float32)
    voxels[:4, :4, :4] = 100
    answer = identify(api, nifti(voxels))
    assert (answer.json()["domain"], answer.json()["reason"]) == (None, "abstained")
    refused = api.segment(nifti(voxels))
    assert (refused.status_code, refused.json()["code"]) == (422, "not_a_brain_mr")


def test_a_named_domain_needs_no_reason(api: Api) -> None:
    api.add_domain()
    answer = api.segment(fields={"domain": "drawn"}, headers={"Accept": "application/json"})
    assert answer.json()["identification"] is None


def test_a_job_says_why_too(api: Api) -> None:
    api.add_domain("drawn", match=DRAWN)
    answer = api.segment(
        fields={
            "sidecar": json.dumps({"Manufacturer": "Drawn Systems", "MagneticFieldStrength": 3})
        },
        headers={"Prefer": "respond-async"},
    )
    assert answer.status_code == 202, answer.text
    payload = api.core.jobs.get(answer.json()["id"]).payload
    assert payload["identification"]["reason"] == "rules"


def test_rules_that_meet_another_domains_are_told_where_they_are_registered(api: Api) -> None:
    fields = {"name": "x", "label_scheme": "freesurfer"}
    first = {"Manufacturer": "Siemens", "MagneticFieldStrength": 3}
    for domain_id, rules in (("first", first), ("second", {"Manufacturer": "siemens"})):
        form = as_form({"id": domain_id, "match": json.dumps(rules), **fields})
        made = api.admin.post("/domains", files=form)
        assert made.status_code == 201, made.text
    (conflict,) = made.json()["rule_conflicts"]
    assert conflict == {"domain": "first", "other": "second", "kind": "implied"}
    assert api.admin.get("/domains/first").json()["rule_conflicts"] == [conflict]
