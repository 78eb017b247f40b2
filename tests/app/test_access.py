"""Who may do what: every route, every role."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from app.server import create_app, route_table
from normbank.config import Settings
from normbank.entities import Recipe, Role
from normbank.services.keys import Keys
from tests.support.api import Api, serve
from tests.support.services import scan_job

# Written down by hand from the API's page, so that a slip in the code shows.
TABLE = {
    "POST /segment": "segment admin",
    "POST /identify": "segment admin",
    "GET /segmentations/{segmentation_id}": "segment admin",
    "GET /segmentations/{segmentation_id}/labels": "segment admin",
    "POST /domains": "admin",
    "POST /domains/import": "admin",
    "GET /domains": "segment monitor admin",
    "GET /domains/{domain_id}": "segment monitor admin",
    "PATCH /domains/{domain_id}": "admin",
    "DELETE /domains/{domain_id}": "admin",
    "POST /domains/{domain_id}/cases": "admin",
    "GET /domains/{domain_id}/cases": "monitor admin",
    "GET /domains/{domain_id}/cases/{case_id}": "monitor admin",
    "DELETE /domains/{domain_id}/cases/{case_id}": "admin",
    "POST /domains/{domain_id}/adapt": "admin",
    "POST /domains/{domain_id}/verify": "admin",
    "GET /domains/{domain_id}/metrics": "monitor admin",
    "GET /domains/{domain_id}/versions": "monitor admin",
    "POST /domains/{domain_id}/versions/{number}/promote": "admin",
    "GET /domains/{domain_id}/versions/{number}/pack": "admin",
    "GET /jobs/{job_id}": "segment monitor admin",
    "GET /jobs/{job_id}/events": "segment monitor admin",
    "DELETE /jobs/{job_id}": "segment admin",
    "GET /metrics": "monitor admin",
    "GET /backbone": "segment monitor admin",
    "GET /docs": "segment monitor admin",
    "GET /openapi.json": "segment monitor admin",
    "GET /livez": "anyone",
    "GET /readyz": "anyone",
}


def call(api: Api, route: str, role: Role | None) -> httpx.Response:
    method, template = route.split()
    path = template.format(
        segmentation_id="none", domain_id="none", number=1, job_id="none", case_id="none"
    )
    return api.client(role).request(method, path)


def test_the_table_names_every_route(shared_api: Api) -> None:
    declared = {
        f"{method} {path}": " ".join(roles) for path, method, roles in route_table(shared_api.app)
    }
    assert {route: set(roles.split()) for route, roles in declared.items()} == {
        route: set(roles.split()) for route, roles in TABLE.items()
    }


def test_the_document_names_the_same_roles(api: Api) -> None:
    paths = api.admin.get("/openapi.json").json()["paths"]
    documented = {
        f"{method.upper()} {path}": " ".join(operation["x-roles"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    }
    hidden = {"GET /docs", "GET /openapi.json"}
    expected = {route: set(roles.split()) for route, roles in TABLE.items() if route not in hidden}
    assert {route: set(roles.split()) for route, roles in documented.items()} == expected


@pytest.mark.parametrize("route", TABLE)
def test_every_route_lets_in_its_roles_and_nobody_else(api: Api, route: str) -> None:
    allowed = TABLE[route].split()
    for role in Role:
        answer = call(api, route, role)
        assert answer.status_code != 401
        assert (answer.status_code != 403) == (role in allowed or "anyone" in allowed), role


@pytest.mark.parametrize("route", [route for route in TABLE if TABLE[route] != "anyone"])
def test_without_a_key_every_route_answers_401(api: Api, route: str) -> None:
    answer = call(api, route, None)
    assert answer.status_code == 401
    assert answer.json()["code"] == "unauthorized"
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_route_that_declares_no_role_is_denied_to_everybody(own_settings: Settings) -> None:
    with serve(own_settings) as api:
        api.app.add_api_route("/forgotten", lambda: "secret")
        api.make_keys()
        assert api.client(None).get("/forgotten").status_code == 401
        for role in Role:
            answer = api.client(role).get("/forgotten")
            assert answer.status_code == 403
            assert "secret" not in answer.text


def test_either_header_carries_the_key(api: Api) -> None:
    secret = api.keys[Role.SEGMENT]
    bare = api.client(None)
    assert bare.get("/domains", headers={"X-API-Key": secret}).status_code == 200
    assert bare.get("/domains", headers={"Authorization": f"bearer {secret}"}).status_code == 200


@pytest.mark.parametrize("secret", ["x", "nb_", "nb_abc_def", "Basic Zm9vOmJhcg==", "ü" * 50])
def test_a_wrong_key_is_refused(api: Api, secret: str) -> None:
    for headers in ({"X-API-Key": secret.encode()}, {"Authorization": f"Bearer {secret}".encode()}):
        assert api.client(None).get("/domains", headers=headers).status_code == 401


def test_a_revoked_and_an_expired_key_are_refused(api: Api) -> None:
    keys: Keys = api.services.core.keys
    key, secret = keys.create("leaver", Role.ADMIN)
    late = keys.create("late", Role.ADMIN, datetime.now(UTC) - timedelta(seconds=1))[1]
    bare = api.client(None)
    assert bare.get("/domains", headers={"X-API-Key": secret}).status_code == 200
    keys.revoke(key.id)
    assert bare.get("/domains", headers={"X-API-Key": secret}).status_code == 401
    assert bare.get("/domains", headers={"X-API-Key": late}).status_code == 401


def test_a_key_is_asked_for_before_a_body_is_looked_at(api: Api) -> None:
    broken = {"content": b"{", "headers": {"Content-Type": "application/json"}}
    assert api.client(None).patch("/domains/x", **broken).status_code == 401
    files = [("scan", ("scan.txt", b"text"))]
    assert api.client(None).post("/segment", files=files).status_code == 401
    assert api.client(Role.MONITOR).post("/segment", files=files).status_code == 403
    assert api.client(None).get("/no/such/path").status_code == 401


def test_docs_are_open_only_where_the_setting_says_so(own_settings: Settings) -> None:
    settings = own_settings.model_copy(update={"open_docs": True})
    with serve(settings) as api:
        assert api.client(None).get("/openapi.json").status_code == 200
        page = api.client(None).get("/docs")
        assert page.status_code == 200
        assert "Not a medical device" in page.text
        assert api.client(None).get("/domains").status_code == 401


def test_the_application_is_built_without_connecting_to_anything() -> None:
    app = create_app(Settings(database_url="", redis_url=""))
    assert app.openapi()["info"]["title"] == "normbank"


def test_only_an_admin_cancels_an_adaptation(api: Api) -> None:
    api.add_domain()
    adaptation, _ = api.services.core.jobs.submit_adapt("drawn", Recipe(), min_cases=0)
    segmentation = api.services.core.jobs.submit_segment(scan_job())
    client = api.client(Role.SEGMENT)
    assert client.delete(f"/jobs/{adaptation.id}").status_code == 403
    assert client.delete(f"/jobs/{segmentation.id}").status_code == 200
    assert api.admin.delete(f"/jobs/{adaptation.id}").status_code == 200


def test_the_document_is_whole_and_says_what_it_is_not() -> None:
    document = create_app(Settings()).openapi()
    text = json.dumps(document)
    wanted = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert wanted <= set(document["components"]["schemas"])
    assert "Research use only. Not a medical device." in document["info"]["description"]
    for operations in document["paths"].values():
        for operation in operations.values():
            failures = [code for code in operation["responses"] if int(code) in range(400, 500)]
            for code in failures:
                assert "application/problem+json" in operation["responses"][code]["content"]
