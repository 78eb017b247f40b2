"""Versions of a domain: promotion, rollback, metrics, packs."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import text

from models.packs import read_pack, write_pack
from normbank.entities import NewState, Signature
from tests.support.api import Api, new_state, nifti
from tests.support.fake_engine import BACKBONE


def promote(api: Api, number: int, tag: str | None) -> httpx.Response:
    headers = {"If-Match": tag} if tag else {}
    return api.admin.post(f"/domains/drawn/versions/{number}/promote", headers=headers)


def test_rolling_back_is_one_more_promotion(api: Api) -> None:
    api.add_domain(states=(1.0, 2.0))
    listed = api.admin.get("/domains/drawn/versions")
    assert [v["active"] for v in listed.json()["items"]] == [False, True]
    tag = listed.headers["ETag"]
    assert promote(api, 1, None).json()["code"] == "precondition_required"
    done = promote(api, 1, tag)
    assert done.status_code == 200
    assert done.json()["active_version"] == 1
    assert api.segment().headers["X-Normbank-Version"] == "1"
    stale = promote(api, 2, tag)
    assert (stale.status_code, stale.json()["code"]) == (412, "stale_revision")
    reason = {"reason": "better after all"}
    path = "/domains/drawn/versions/2/promote"
    again = api.admin.post(path, json=reason, headers={"If-Match": done.headers["ETag"]})
    assert again.json()["active_version"] == 2
    moves = api.core.versions.promotions("drawn")
    assert [move.to_version for move in moves] == [1, 2, 1, 2]
    second = api.admin.get("/domains/drawn/versions").json()["items"][1]
    assert [move["from_version"] for move in second["promotions"]] == [1, 1]
    assert second["promotions"][-1]["reason"] == "better after all"


def test_only_one_of_many_concurrent_promotions_passes(api: Api) -> None:
    api.add_domain(states=(1.0, 2.0, 3.0))
    tag = api.admin.get("/domains/drawn").headers["ETag"]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: promote(api, 1 + n % 2, tag), range(6)))
    assert sorted(answer.status_code for answer in answers) == [200] + [412] * 5


def test_every_answer_during_promotions_names_one_whole_version(api: Api) -> None:
    states = {state.number: state.sha256 for state in api.add_domain(states=(1.0, 2.0))}

    def segment(_: int) -> tuple[int, str]:
        answer = api.segment(headers={"Accept": "application/json"})
        if answer.status_code == 503:
            return 1, states[1]
        return answer.json()["version"], answer.json()["state_sha256"]

    with ThreadPoolExecutor(3) as pool:
        running = pool.map(segment, range(12))
        for number in (1, 2, 1, 2):
            assert promote(api, number, "*").status_code == 200
        found = list(running)
    assert all(states[version] == sha256 for version, sha256 in found)


@pytest.mark.parametrize("number", ["9", "0", "-1", "x", "99999999999"])
def test_a_version_that_is_not_there_cannot_be_promoted(api: Api, number: str) -> None:
    api.add_domain()
    path = f"/domains/drawn/versions/{number}/promote"
    answer = api.admin.post(path, headers={"If-Match": "*"})
    assert answer.status_code == (404 if number == "9" else 422)


def test_a_quarantined_version_cannot_be_promoted(api: Api) -> None:
    api.add_domain(states=(1.0, 2.0))
    api.core.versions.quarantine("drawn", 1, "rotten")
    answer = promote(api, 1, "*")
    assert (answer.status_code, answer.json()["code"]) == (409, "version_quarantined")


def test_metrics_show_scores_per_version_and_traffic(api: Api) -> None:
    first = api.add_domain()[0]
    scores = {
        "before": {"dice": {"hippocampus": {"mean": 0.7}}},
        "after": {"dice": {"hippocampus": {"mean": 0.8}}},
        "candidates": [{"state": first.ref, "score": 0.7}],
        "cases": ["c1"],
    }
    state = new_state(2.0)
    state = NewState(state.sha256, BACKBONE, first.ref, {"seed": 1}, scores, None, state.tensors)
    api.core.versions.publish("drawn", state=state, promote=True)
    api.segment()
    api.segment(nifti()[:200], fields={"domain": "drawn"})
    answer = api.admin.get("/domains/drawn/metrics")
    assert answer.status_code == 200
    body = answer.json()
    assert body["active_version"] == 2
    assert body["versions"][0]["before"] is None
    newest = body["versions"][1]
    assert newest["parent"] == "drawn@1"
    assert newest["before"] == scores["before"]
    assert newest["after"] == scores["after"]
    assert newest["candidates"] == scores["candidates"]
    assert newest["details"] == {"cases": ["c1"]}
    assert (body["traffic"]["count"], body["traffic"]["errors"]) == (1, 1)
    assert body["traffic"]["latency_p50_s"] > 0
    assert body["drift"]["state"] == "not_monitored"
    assert body["volumes_mm3"][0]["volumes_mm3"] == {"left-hippocampus": 64000.0}
    assert api.admin.get("/domains/drawn/metrics", params={"window_s": -1}).status_code == 422


def exported(api: Api) -> bytes:
    answer = api.admin.get("/domains/drawn/versions/1/pack")
    assert answer.status_code == 200
    assert answer.headers["ETag"] == f'"{api.core.versions.get("drawn", 1).sha256}"'
    return answer.content


def import_(api: Api, pack: bytes, name: str = "a.safetensors", **fields: str) -> httpx.Response:
    return api.admin.post("/domains/import", files={"pack": (name, pack)}, data=fields)


def test_a_pack_travels_to_another_domain_bit_by_bit(api: Api) -> None:
    original = api.add_domain()[0]
    answer = import_(api, exported(api), id="copy", match='{"Manufacturer": "GE"}')
    assert answer.status_code == 201, answer.text
    assert answer.headers["Location"] == "/domains/copy"
    assert answer.json()["active_version"] == 1
    assert answer.json()["match"] == {"Manufacturer": "GE"}
    copy = api.core.versions.active("copy")
    assert copy.sha256 == original.sha256
    assert api.core.versions.state_bytes(copy.sha256) == api.core.versions.state_bytes(
        original.sha256
    )
    assert api.segment(fields={"domain": "copy"}).headers["X-Normbank-Domain"] == "copy"


def test_a_pack_brings_along_what_its_scans_look_like(api: Api) -> None:
    signature = Signature("space", (0.5, -1.25), (0.1, 0.2), 4)
    api.core.domains.create("drawn", "drawn", {}, "normbank", ())
    signed = replace(new_state(1.0), metrics={"signature": signature.to_json()})
    api.core.versions.publish("drawn", state=signed, promote=True)
    assert import_(api, exported(api), id="copy").status_code == 201
    assert api.core.versions.active("copy").signature == signature


@pytest.mark.parametrize(
    "signature",
    ["no json", "[]", "{}", '{"space": "s", "mean": [1e999], "spread": [1], "cases": 4}',
     '{"space": "s", "mean": [1], "spread": [-1], "cases": 4}',
     '{"space": "s", "mean": [1, 2], "spread": [1], "cases": 4}',
     '{"space": "s", "mean": [1], "spread": [1], "cases": 0}'],
)  # fmt: skip
def test_a_pack_whose_signature_makes_no_sense_is_refused(api: Api, signature: str) -> None:
    api.add_domain()
    opened = read_pack(exported(api))
    facts = {**opened.facts, "signature": signature}
    answer = import_(api, write_pack(opened.tensors, facts), id="copy")
    assert (answer.status_code, answer.json()["code"]) == (422, "bad_pack")


def test_a_pack_keeps_its_id_where_that_is_free(api: Api) -> None:
    api.add_domain()
    pack = exported(api)
    taken = import_(api, pack)
    assert (taken.status_code, taken.json()["code"]) == (409, "domain_exists")


def flipped(pack: bytes) -> bytes:
    return pack[:-3] + bytes([pack[-3] ^ 1]) + pack[-2:]


BAD_PACKS = {
    "text": lambda pack: b"hello",
    "empty": lambda pack: b"",
    "cut": lambda pack: pack[:-20],
    "one bit": flipped,
    "long header": lambda pack: (2**60).to_bytes(8, "little") + pack[8:],
    "another backbone": lambda pack: pack.replace(BACKBONE.encode(), b"c" * 64),
}


@pytest.mark.parametrize("kind", BAD_PACKS)
def test_a_bad_pack_is_refused_and_nothing_is_stored(api: Api, kind: str) -> None:
    api.add_domain()
    answer = import_(api, BAD_PACKS[kind](exported(api)), id="copy")
    assert answer.status_code == 422, answer.text
    assert answer.json()["code"] in ("bad_pack", "other_backbone")
    assert api.admin.get("/domains/copy").status_code == 404


def test_a_pack_is_judged_by_its_content_and_not_by_its_name(api: Api) -> None:
    api.add_domain()
    refused = import_(api, b"PK", name="weights.pkl", id="copy")
    assert (refused.status_code, refused.json()["code"]) == (422, "bad_pack")
    assert import_(api, exported(api), name="pack (1)", id="copy").status_code == 201


def test_a_pack_with_a_label_scheme_nobody_knows_is_refused(api: Api) -> None:
    api.add_domain()
    pack = exported(api).replace(b'"label_scheme":"normbank"', b'"label_scheme":"normbanq"')
    answer = import_(api, pack, id="copy")
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_label_scheme")
    assert api.admin.get("/domains/copy").status_code == 404


def test_a_quarantined_version_is_not_exported(api: Api) -> None:
    api.add_domain(states=(1.0, 2.0))
    api.core.versions.quarantine("drawn", 1, "rotten")
    answer = api.admin.get("/domains/drawn/versions/1/pack")
    assert (answer.status_code, answer.json()["code"]) == (409, "version_quarantined")


@pytest.mark.parametrize("at", [0, 400])
def test_a_version_whose_bytes_have_changed_is_not_exported(api: Api, at: int) -> None:
    state = api.add_domain()[0]
    with api.core.domains._sessions.begin() as session:
        session.execute(
            text("UPDATE state SET tensors = set_byte(tensors, :at, 77) WHERE sha256 = :s"),
            {"s": state.sha256, "at": at},
        )
    answer = api.admin.get("/domains/drawn/versions/1/pack")
    assert (answer.status_code, answer.json()["code"]) == (409, "broken_state")


def test_an_import_that_cannot_be_served_makes_no_domain(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    api.add_domain()
    pack = exported(api)

    def fail(*_: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr("normbank.services.domains.move_active", fail)
        assert import_(api, pack, id="copy").status_code == 500
    assert api.admin.get("/domains/copy").status_code == 404
    assert import_(api, pack, id="copy").status_code == 201
