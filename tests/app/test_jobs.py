"""Adaptations as jobs: submitted, repeated, followed, cancelled."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import httpx
import pytest
import redis

from app.bodies.jobs import RecipeBody
from normbank.config import Settings
from normbank.entities import JobState, Recipe, Role
from tests.support.api import Api, as_form, pair, queued_messages, serve, wait_until

ADAPT = "/domains/new/adapt"


@pytest.fixture
def learner(api: Api) -> Api:
    """A service with a domain that has two labelled cases."""
    fields = {"id": "new", "name": "New", "label_scheme": "freesurfer"}
    answer = api.admin.post("/domains", files=[*as_form(fields), *pair(0), *pair(1)])
    assert answer.status_code == 201
    return api


def test_an_adaptation_is_queued(learner: Api, broker: redis.Redis) -> None:
    answer = learner.admin.post(ADAPT, json={"seed": 7, "steps": 20})
    assert answer.status_code == 202
    body = answer.json()
    assert answer.headers["Location"] == f"/jobs/{body['id']}"
    assert (body["kind"], body["state"], body["domain"]) == ("adapt", "queued", "new")
    assert body["progress"] == 0
    assert body["error"] is None
    expected = {"id", "kind", "state", "attempt", "progress", "step", "eta_s", "result", "error"}
    assert expected | {"created_at", "started_at", "finished_at"} <= set(body)
    row = learner.services.core.jobs.get(body["id"])
    assert (row.payload["seed"], row.payload["steps"]) == (7, 20)
    assert body["id"] in queued_messages(broker)
    assert learner.admin.get(answer.headers["Location"]).json() == body


def test_no_body_means_the_default_recipe(learner: Api) -> None:
    answer = learner.admin.post(ADAPT)
    assert answer.status_code == 202
    assert learner.services.core.jobs.get(answer.json()["id"]).payload == Recipe().to_json()


def test_the_body_offers_every_setting_of_a_recipe() -> None:
    assert set(RecipeBody.model_fields) == set(Recipe().to_json())
    assert RecipeBody().recipe() == Recipe()


def test_one_adaptation_at_a_time(learner: Api) -> None:
    first = learner.admin.post(ADAPT)
    second = learner.admin.post(ADAPT)
    assert (second.status_code, second.json()["code"]) == (409, "adaptation_in_flight")
    assert learner.admin.delete(first.headers["Location"]).json()["state"] == "cancelled"
    assert learner.admin.post(ADAPT).status_code == 202


def test_concurrent_adaptations_leave_one(learner: Api) -> None:
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda _: learner.admin.post(ADAPT), range(6)))
    assert sorted(answer.status_code for answer in answers) == [202] + [409] * 5
    assert sum(learner.services.core.jobs.counts().values()) == 1


def test_too_few_cases_are_refused(api: Api) -> None:
    api.core.domains.create("new", "new", {}, "normbank", ())
    answer = api.admin.post(ADAPT)
    assert (answer.status_code, answer.json()["code"]) == (422, "too_few_cases")
    assert (answer.json()["cases"], answer.json()["needed"]) == (0, 2)
    assert api.admin.post("/domains/none/adapt").json()["code"] == "unknown_domain"
    assert api.services.core.jobs.counts() == {}


@pytest.mark.parametrize(
    "recipe",
    [
        {"steps": 0},
        {"steps": "many"},
        {"seed": -1},
        {"learning_rate": 0},
        {"batch_size": 10**9},
        {"parent": "nobody"},
        {"parent": "nobody@1"},
        {"stepz": 3},
        [1],
    ],
)
def test_a_senseless_recipe_is_422(learner: Api, recipe: Any) -> None:
    answer = learner.admin.post(ADAPT, json=recipe)
    assert answer.status_code == 422
    assert learner.services.core.jobs.counts() == {}


def test_broken_json_and_another_type_are_refused(learner: Api) -> None:
    for kind, content in (("application/json", b"{"), ("text/plain", b"seed=1")):
        answer = learner.admin.post(ADAPT, content=content, headers={"Content-Type": kind})
        assert answer.status_code == 422
        assert answer.json()["code"] == "validation"
        assert "seed=1" not in answer.text
    huge = learner.admin.post(ADAPT, json={"parent": "x" * 2_000_000})
    assert (huge.status_code, huge.json()["code"]) == (413, "too_large")


def test_the_same_key_and_body_replay_the_answer(learner: Api) -> None:
    headers = {"Idempotency-Key": "k1"}
    first = learner.admin.post(ADAPT, json={"seed": 1, "steps": 9}, headers=headers)
    again = learner.admin.post(ADAPT, json={"steps": 9, "seed": 1}, headers=headers)
    assert (first.status_code, again.status_code) == (202, 202)
    assert again.json()["id"] == first.json()["id"]
    assert again.headers["Location"] == first.headers["Location"]
    assert again.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    other = learner.admin.post(ADAPT, json={"seed": 2}, headers=headers)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_mismatch")
    assert sum(learner.services.core.jobs.counts().values()) == 1


def test_concurrent_requests_with_one_key_make_one_job(learner: Api) -> None:
    def post(_: int) -> httpx.Response:
        return learner.admin.post(ADAPT, headers={"Idempotency-Key": "k"})

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(post, range(6)))
    assert {answer.status_code for answer in answers} <= {202, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 202}) == 1
    assert sum(learner.services.core.jobs.counts().values()) == 1


def test_a_job_is_kept_for_the_sweep_when_the_broker_is_away(own_settings: Settings) -> None:
    settings = own_settings.model_copy(update={"redis_url": "redis://127.0.0.1:1/0"})
    with serve(settings) as api:
        api.make_keys()
        api.core.domains.create("new", "new", {}, "normbank", ())
        api.admin.post("/domains/new/cases", files=[*pair(0), *pair(1)])
        answer = api.admin.post(ADAPT)
        assert answer.status_code == 202
        assert api.services.core.jobs.get(answer.json()["id"]).state is JobState.QUEUED
        assert api.client(None).get("/readyz").status_code == 503


def events_of(api: Api, path: str, seen: list[dict[str, Any]]) -> None:
    with api.client(Role.MONITOR).stream("GET", path, timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/event-stream")
        assert "X-Request-Id" in answer.headers
        for line in answer.iter_lines():
            if line.startswith("data:"):
                seen.append(json.loads(line.removeprefix("data:")))


def test_events_tell_every_change_until_the_end(learner: Api) -> None:
    leases = learner.core.leases
    job = learner.core.jobs.get(learner.admin.post(ADAPT).json()["id"])
    seen: list[dict[str, Any]] = []
    reader = threading.Thread(target=events_of, args=(learner, f"/jobs/{job.id}/events", seen))
    reader.start()
    wait_until(lambda: len(seen) >= 1)
    running = leases.claim(job.id, "worker")
    assert running is not None
    leases.heartbeat(job.id, running.attempt, progress=0.5, step="training", eta_s=3.0)
    wait_until(lambda: any(event["progress"] == 0.5 for event in seen))
    leases.succeed(job.id, running.attempt, {"version": 1})
    reader.join(30)
    assert seen[0]["state"] == "queued"
    assert seen[-1]["state"] == "succeeded"
    assert seen[-1]["result"] == {"version": 1}
    assert seen[-1] == learner.admin.get(f"/jobs/{job.id}").json()
    assert not any(first == second for first, second in pairwise(seen))


def test_events_of_a_finished_job_are_its_last_state(learner: Api) -> None:
    path = learner.admin.post(ADAPT).headers["Location"]
    learner.admin.delete(path)
    seen: list[dict[str, Any]] = []
    events_of(learner, f"{path}/events", seen)
    assert [event["state"] for event in seen] == ["cancelled"]


def test_a_running_job_is_asked_to_stop_and_a_finished_one_cannot(learner: Api) -> None:
    leases = learner.core.leases
    path = learner.admin.post(ADAPT).headers["Location"]
    job = leases.claim(path.rsplit("/", 1)[1], "worker")
    assert job is not None
    asked = learner.admin.delete(path)
    assert asked.status_code == 200
    assert (asked.json()["state"], asked.json()["cancel_requested"]) == ("running", True)
    leases.fail(job.id, job.attempt, "out_of_memory", "The device has no memory left.")
    failed = learner.admin.get(path).json()
    assert failed["error"] == {"code": "out_of_memory", "detail": "The device has no memory left."}
    late = learner.admin.delete(path)
    assert (late.status_code, late.json()["code"]) == (409, "job_finished")


@pytest.mark.parametrize("path", ["/jobs/none", "/jobs/none/events"])
def test_an_unknown_job_is_404(api: Api, path: str) -> None:
    answer = api.admin.get(path)
    assert (answer.status_code, answer.json()["code"]) == (404, "unknown_job")


def test_archiving_waits_for_the_adaptation(learner: Api) -> None:
    path = learner.admin.post(ADAPT).headers["Location"]
    refused = learner.admin.delete("/domains/new", headers={"If-Match": "*"})
    assert (refused.status_code, refused.json()["code"]) == (409, "job_in_flight")
    learner.admin.delete(path)
    assert learner.admin.delete("/domains/new", headers={"If-Match": "*"}).status_code == 204
