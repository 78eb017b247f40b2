"""`POST /segment` with the name of a series that a PACS has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from normbank.config import Settings
from normbank.entities import JobKind, Role
from tests.support.api import Api, serve

ORDER = {"pacs": "main", "study": "1.2.3", "series": "1.2.3.4", "domain": "drawn"}
FILE = '[[pacs]]\nname = "main"\ndicomweb_url = "http://127.0.0.1:9/dicom-web"\n'


@pytest.fixture
def pacs_api(own_settings: Settings, tmp_path: Path) -> Iterator[Api]:
    path = tmp_path / "pacs.toml"
    path.write_text(FILE)
    with serve(own_settings.model_copy(update={"pacs_file": path})) as api:
        api.make_keys()
        yield api


def test_an_order_is_a_job(pacs_api: Api) -> None:
    pacs_api.add_domain()
    answer = pacs_api.client(Role.SEGMENT).post("/segment", json=ORDER)
    assert answer.status_code == 202, answer.text
    assert answer.headers["Location"] == f"/jobs/{answer.json()['id']}"
    assert (answer.json()["kind"], answer.json()["state"]) == ("pacs", "queued")
    job = pacs_api.core.jobs.get(answer.json()["id"])
    assert job.kind is JobKind.PACS
    assert {name: job.payload[name] for name in (*ORDER, "store")} == {**ORDER, "store": True}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({"pacs": "other"}, 404, "unknown_pacs"),
        ({"domain": "nobody"}, 404, "unknown_domain"),
        ({"study": "patient name"}, 422, "bad_uid"),
        ({"series": "1..2"}, 422, "bad_uid"),
        ({"patient": "x"}, 422, "validation"),
        ({"store": "perhaps"}, 422, "validation"),
        ({"series": None}, 422, "validation"),
    ],
    ids=lambda value: str(value),
)
def test_an_order_that_cannot_be_done_is_refused(
    pacs_api: Api, change: dict[str, Any], status: int, code: str
) -> None:
    pacs_api.add_domain()
    answer = pacs_api.admin.post("/segment", json={**ORDER, **change})
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


@pytest.mark.parametrize("domain", ["", "  "])
def test_an_empty_domain_is_found_by_the_scan(pacs_api: Api, domain: str) -> None:
    answer = pacs_api.admin.post("/segment", json={**ORDER, "domain": domain})
    assert answer.status_code == 202, answer.text
    assert pacs_api.core.jobs.get(answer.json()["id"]).payload["domain"] == "auto"


def test_what_is_no_json_is_refused(pacs_api: Api) -> None:
    headers = {"Content-Type": "application/json"}
    answer = pacs_api.admin.post("/segment", content=b'{"pacs": ', headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation")
