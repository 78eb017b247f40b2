"""Domains and their labelled cases."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import numpy as np
import pytest

from normbank.entities import Role
from normbank.errors import NotFoundError
from tests.support.api import Api, as_form, labels, nifti, pair

FIELDS = {"id": "new", "name": "New scanner", "label_scheme": "freesurfer"}


def create(api: Api, files: Any = (), **fields: str) -> Any:
    parts = [*as_form({**FIELDS, **fields}), *files]
    return api.admin.post("/domains", files=parts)


def test_a_domain_is_created_with_its_cases(api: Api) -> None:
    match = {"Manufacturer": "Siemens"}
    answer = create(api, [*pair(0), *pair(1)], match=json.dumps(match))
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == "/domains/new"
    body = answer.json()
    assert body["case_count"] == 2
    assert body["status"] == "not_ready"
    assert body["active_version"] is None
    assert body["match"] == match
    shown = api.admin.get("/domains/new")
    assert shown.json() == body
    assert shown.headers["ETag"] == answer.headers["ETag"]
    cases = api.core.cases.of("new")
    assert [case.structures for case in cases] == [("hippocampus",), ("hippocampus",)]
    assert {case.scan_name for case in cases} == {"scan.nii.gz"}
    assert cases[0].shape == (40, 40, 40)
    assert all(api.services.core.blobs.exists(c.scan_sha256) for c in cases)
    assert api.spooled() == 0


def test_pairs_keep_the_order_they_were_sent_in(api: Api) -> None:
    """Scans and labels interleaved, or all scans first: the n-th belongs to the n-th."""
    first, second = pair(0, ids=(17, 53)), pair(1, ids=(10, 49))
    answer = create(api, [first[0], second[0], first[1], second[1]])
    assert answer.status_code == 201
    assert [case.structures for case in api.core.cases.of("new")] == [
        ("hippocampus",),
        ("thalamus",),
    ]


def test_a_domain_without_cases_may_be_created(api: Api) -> None:
    assert create(api).json()["case_count"] == 0


def test_given_structures_are_recorded_with_every_case(api: Api) -> None:
    answer = create(api, pair(0), structures="thalamus, hippocampus")
    assert answer.json()["structures"] == ["thalamus", "hippocampus"]
    assert api.core.cases.of("new")[0].structures == ("thalamus", "hippocampus")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"id": "New Scanner"}, "bad_domain_id"),
        ({"id": "x" * 64}, "bad_domain_id"),
        ({"id": "auto"}, "bad_domain_id"),
        ({"id": "import"}, "bad_domain_id"),
        ({"name": " "}, "bad_domain_name"),
        ({"label_scheme": "mine"}, "unknown_label_scheme"),
        ({"structures": "hippocampus,left-toe"}, "unknown_structure"),
        ({"structures": "background"}, "unknown_structure"),
        ({"match": "{"}, "bad_json"),
        ({"match": "[1]"}, "bad_json"),
        ({"match": '{"Manufacturer": {"regex": "("}}'}, "bad_match"),
        ({"match": '{"Manufacturer": "\\ud800"}'}, "bad_match"),
        ({"name": "a\x00b"}, "bad_text"),
        ({"structures": "hippo\x00campus"}, "bad_text"),
        ({"colour": "red"}, "unknown_field"),
    ],
)
def test_a_field_that_makes_no_sense_is_422(api: Api, fields: dict[str, str], code: str) -> None:
    answer = create(api, pair(0), **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    assert_nothing_stored(api)


@pytest.mark.parametrize("missing", FIELDS)
def test_a_missing_field_is_named(api: Api, missing: str) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != missing}
    answer = api.admin.post("/domains", files=as_form(fields))
    assert (answer.status_code, answer.json()["code"]) == (422, "missing_field")
    assert answer.json()["errors"][0]["field"] == missing


def assert_nothing_stored(api: Api) -> None:
    assert api.stored_blobs() == 0
    assert api.spooled() == 0
    with pytest.raises(NotFoundError):
        api.core.domains.get("new")


def other_grid() -> bytes:
    data = np.zeros((40, 40, 41), np.int16)
    data[10:20] = 17
    return nifti(data)


def elsewhere() -> bytes:
    data = np.zeros((40, 40, 40), np.int16)
    data[10:20] = 17
    affine = np.diag([2.0, 2, 2, 1])
    affine[0, 3] = 30
    return nifti(data, affine=affine)


def fractions() -> bytes:
    data = np.zeros((40, 40, 40), np.float32)
    data[10:20] = 17.5
    return nifti(data)


BAD_LABELS = {
    "another shape": (other_grid, "geometry_mismatch"),
    "another place": (elsewhere, "geometry_mismatch"),
    "unknown ids": (lambda: labels((17, 31_000)), "unknown_labels"),
    "fractions": (fractions, "labels_not_integer"),
    "text": (lambda: b"labels", "unknown_file_kind"),
    "no image in a gzip": (lambda: gzip.compress(bytes(200)), "unknown_file_kind"),
    "truncated": (lambda: labels()[:200], "truncated"),
    "nothing annotated": (lambda: nifti(np.zeros((40, 40, 40), np.int16)), "no_structures"),
}


@pytest.mark.parametrize("kind", BAD_LABELS)
def test_a_bad_pair_is_named_and_nothing_is_stored(api: Api, kind: str) -> None:
    make, code = BAD_LABELS[kind]
    bad = [pair(1)[0], ("labels", ("kowalski.nii.gz", make()))]
    answer = create(api, [*pair(0), *bad])
    assert answer.status_code == (415 if code == "unknown_file_kind" else 422), answer.text
    body = answer.json()
    assert (body["pair"], body["file"], body["code"]) == (1, "labels", code)
    assert "kowalski" not in answer.text
    assert_nothing_stored(api)


def test_a_bad_scan_in_a_pair_is_named(api: Api) -> None:
    files = [*pair(0), ("scans", ("b.nii.gz", b"text")), pair(1)[1]]
    answer = create(api, files)
    assert answer.status_code == 415
    assert (answer.json()["pair"], answer.json()["file"]) == (1, "scan")
    assert_nothing_stored(api)


def test_an_odd_number_of_files_is_no_pairs(api: Api) -> None:
    answer = create(api, [*pair(0), pair(1)[0]])
    assert (answer.status_code, answer.json()["code"]) == (422, "unpaired_cases")
    assert (answer.json()["scans"], answer.json()["labels"]) == (2, 1)
    assert_nothing_stored(api)


def test_the_same_scan_twice_is_409(api: Api) -> None:
    answer = create(api, [*pair(0), *pair(0)])
    assert (answer.status_code, answer.json()["code"]) == (409, "case_exists")
    assert_nothing_stored(api)


def test_an_id_stays_taken_even_when_archived(api: Api) -> None:
    tag = create(api).headers["ETag"]
    assert create(api).json()["code"] == "domain_exists"
    assert api.admin.delete("/domains/new", headers={"If-Match": tag}).status_code == 204
    answer = create(api, pair(0))
    assert (answer.status_code, answer.json()["code"]) == (409, "domain_exists")
    assert api.stored_blobs() == 0


def test_a_form_is_asked_for(api: Api) -> None:
    assert api.admin.post("/domains", json=FIELDS).status_code == 415
    assert api.admin.post("/domains", data=FIELDS).status_code == 415


def test_cases_are_added_all_or_none(api: Api) -> None:
    create(api, pair(0))
    answer = api.admin.post("/domains/new/cases", files=[*pair(1), *pair(2)])
    assert answer.status_code == 201
    assert len(answer.json()["items"]) == 2
    assert api.admin.get("/domains/new").json()["case_count"] == 3
    again = api.admin.post("/domains/new/cases", files=[*pair(3), *pair(1)])
    assert (again.status_code, again.json()["code"]) == (409, "case_exists")
    assert api.admin.get("/domains/new").json()["case_count"] == 3
    unknown = api.admin.post("/domains/none/cases", files=pair(4))
    assert (unknown.status_code, unknown.json()["code"]) == (404, "unknown_domain")
    empty = api.admin.post("/domains/new/cases", files=as_form({"structures": "thalamus"}))
    assert (empty.status_code, empty.json()["code"]) == (422, "no_cases")


def test_domains_are_listed_page_by_page(api: Api) -> None:
    for number in range(5):
        api.core.domains.create(f"d{number}", "x", {}, "normbank", ())
    first = api.admin.get("/domains", params={"limit": 2})
    found = [domain["id"] for domain in first.json()["items"]]
    link = first.links["next"]["url"]
    while link:
        page = api.admin.get(link)
        found += [domain["id"] for domain in page.json()["items"]]
        link = page.links.get("next", {}).get("url", "")
    assert found == ["d0", "d1", "d2", "d3", "d4"]
    assert page.json()["next_cursor"] is None
    assert api.admin.get("/domains", params={"cursor": "?!"}).json()["code"] == "bad_cursor"
    assert api.admin.get("/domains", params={"limit": 0}).json()["code"] == "validation"


def test_a_change_needs_the_current_etag(api: Api) -> None:
    old = create(api).headers["ETag"]
    path = "/domains/new"
    bare = api.admin.patch(path, json={"name": "a"})
    assert (bare.status_code, bare.json()["code"]) == (428, "precondition_required")
    changed = api.admin.patch(
        path,
        json={"name": "a", "match": {"Manufacturer": "GE"}, "structures": ["csf"]},
        headers={"If-Match": old},
    )
    assert changed.status_code == 200
    assert changed.json()["name"] == "a"
    assert changed.json()["structures"] == ["csf"]
    assert changed.headers["ETag"] != old
    stale = api.admin.patch(path, json={"name": "b"}, headers={"If-Match": old})
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_revision")
    assert api.admin.delete(path).status_code == 428
    assert api.admin.delete(path, headers={"If-Match": old}).status_code == 412
    assert api.admin.delete(path, headers={"If-Match": "*"}).status_code == 204
    assert api.admin.get(path).status_code == 404
    assert api.admin.get("/domains").json()["items"] == []


@pytest.mark.parametrize(
    "body",
    [{"name": ""}, {"id": "other"}, {"structures": ["toe"]}, {"match": {"a": {"b": 1}}}, [], "x"],
)
def test_a_senseless_change_is_422(api: Api, body: Any) -> None:
    tag = create(api).headers["ETag"]
    answer = api.admin.patch("/domains/new", json=body, headers={"If-Match": tag})
    assert answer.status_code == 422
    assert api.admin.get("/domains/new").headers["ETag"] == tag


def test_an_archived_domain_is_404_on_every_path(api: Api) -> None:
    api.add_domain("new")
    api.core.domains.archive("new", api.core.domains.get("new").revision)
    tag = {"If-Match": "*"}
    answers = [
        api.admin.get("/domains/new"),
        api.admin.patch("/domains/new", json={"name": "a"}, headers=tag),
        api.admin.delete("/domains/new", headers=tag),
        api.admin.post("/domains/new/cases", files=pair(0)),
        api.admin.post("/domains/new/adapt"),
        api.admin.get("/domains/new/metrics"),
        api.admin.get("/domains/new/versions"),
        api.admin.post("/domains/new/versions/1/promote", headers=tag),
        api.admin.get("/domains/new/versions/1/pack"),
    ]
    assert [answer.status_code for answer in answers] == [404] * len(answers)


def test_cases_that_cannot_be_recorded_leave_no_files(api: Api) -> None:
    assert create(api, [*pair(0), *pair(1)]).status_code == 201
    stored = api.stored_blobs()
    answer = api.admin.post("/domains/new/cases", files=[*pair(2), *pair(1)])
    assert (answer.status_code, answer.json()["code"]) == (409, "case_exists")
    assert api.stored_blobs() == stored
    assert all(
        api.services.core.blobs.exists(case.scan_sha256) for case in api.core.cases.of("new")
    )


@pytest.mark.parametrize("char", ["\\u0000", "\\ud800"])
def test_text_that_cannot_be_stored_is_422_wherever_it_stands(api: Api, char: str) -> None:
    api.add_domain(states=(1.0, 2.0))
    headers = {"If-Match": "*", "Content-Type": "application/json"}
    for body in ('{"name": "%s"}', '{"structures": ["%s"]}', '{"match": {"A": "%s"}}'):
        content = body.replace("%s", char)
        answer = api.admin.patch("/domains/drawn", content=content, headers=headers)
        assert answer.status_code == 422, (body, answer.text)
    path, content = "/domains/drawn/versions/1/promote", '{"reason": "%s"}'.replace("%s", char)
    assert api.admin.post(path, content=content, headers=headers).status_code == 422
    sidecar = '{"Manufacturer": "%s"}'.replace("%s", char)
    assert api.segment(fields={"sidecar": sidecar}).status_code == 200


@pytest.mark.parametrize("text", ["%00", "a%00b", "%ff", "%ed%a0%80"])
@pytest.mark.parametrize(
    "path",
    [
        "/domains/{}",
        "/domains/{}/versions",
        "/domains/{}/metrics",
        "/domains/{}/versions/1/pack",
        "/jobs/{}",
        "/segmentations/{}",
        "/segmentations/{}/labels",
        "/domains?cursor={}",
    ],
)
def test_a_path_that_cannot_be_asked_for_is_no_failure_of_ours(
    api: Api, path: str, text: str
) -> None:
    assert 400 <= api.admin.get(path.format(text)).status_code < 500


def flags_of(answer: httpx.Response) -> list[str]:
    return [flag["code"] for flag in answer.json()["flags"]]


@pytest.mark.parametrize(
    ("ids", "code"), [((17,), "one_sided"), ((53, 17), "sides_swapped"), ((24, 24), "labels")]
)
def test_labels_that_cannot_be_their_scans_are_refused_with_the_pair(
    api: Api, ids: tuple[int, ...], code: str
) -> None:
    files = [*pair(0), *pair(1, ids=ids)]
    if code == "labels":  # the scan is the label map itself
        files[2] = ("scans", ("s.nii.gz", labels((17, 53))))
        files[3] = ("labels", ("l.nii.gz", labels((17, 53))))
        code = "label_map_as_scan"
    answer = create(api, files)
    assert (answer.status_code, answer.json()["code"]) == (422, "doubtful_labels")
    assert (answer.json()["pair"], answer.json()["file"]) == (1, "labels")
    assert flags_of(answer) == [code]
    assert api.stored_blobs() == 0


def test_doubtful_labels_are_taken_when_that_is_asked_for(api: Api) -> None:
    files = pair(0, ids=(17,))
    answer = api.admin.post("/domains?accept=doubtful", data=FIELDS, files=files)
    assert answer.status_code == 201
    (case,) = api.client(Role.MONITOR).get("/domains/new/cases").json()["items"]
    assert [flag["code"] for flag in case["flags"]] == ["one_sided"]
    assert case["volumes_ml"]["hippocampus"] > 1


def test_a_case_is_shown_and_erased(api: Api) -> None:
    assert create(api, [*pair(0), *pair(1)]).status_code == 201
    first, second = api.admin.get("/domains/new/cases").json()["items"]
    assert api.admin.get(f"/domains/new/cases/{first['id']}").json() == first
    stored = api.stored_blobs()
    assert api.admin.delete(f"/domains/new/cases/{first['id']}").status_code == 204
    assert api.stored_blobs() == stored - 1  # both have the same labels
    assert api.admin.get("/domains/new/cases").json()["items"] == [second]
    for answer in (
        api.admin.get(f"/domains/new/cases/{first['id']}"),
        api.admin.delete(f"/domains/new/cases/{first['id']}"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (404, "unknown_case")


def test_the_same_voxels_in_another_packing_are_the_same_scan(api: Api) -> None:
    assert create(api, pair(0)).status_code == 201
    (_, (name, packed)), parts = pair(0)[0], pair(0)
    parts[0] = ("scans", (name, gzip.compress(gzip.decompress(packed), 9)))
    answer = api.admin.post("/domains/new/cases", files=parts)
    assert (answer.status_code, answer.json()["code"]) == (409, "case_exists")
