"""`POST /segment` with `Prefer: respond-async`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import redis

from normbank.config import Settings
from normbank.entities import JobState
from tests.support.api import Api, nifti, queued_messages, serve

ASYNC = {"Prefer": "respond-async"}


def test_respond_async_answers_with_a_job(api: Api, broker: redis.Redis) -> None:
    api.add_domain()
    answer = api.segment(headers={"Prefer": "respond-async"})
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    job = api.admin.get(answer.headers["Location"])
    assert job.json() == answer.json()
    assert job.json()["kind"] == "segment"
    assert job.json()["state"] == "queued"
    row = api.services.core.jobs.get(job.json()["id"])
    assert row.state is JobState.QUEUED
    assert row.payload["domain"] == "drawn"
    assert row.payload["version"] == 1
    assert row.payload["certify"] is False
    assert api.services.core.blobs.exists(row.payload["scan_sha256"])
    assert row.id in queued_messages(broker)


def test_certify_travels_with_the_job(api: Api) -> None:
    api.add_domain()
    answer = api.segment(headers=ASYNC, params={"certify": "true"})
    assert api.services.core.jobs.get(answer.json()["id"]).payload["certify"] is True


def test_no_accepted_job_lacks_its_file(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that fails with the same file deletes it between putting and recording."""
    api.add_domain()
    put_file, put = api.services.core.blobs.put_file, []

    def put_and_lose(path: Path) -> str:
        put.append(put_file(path))
        if len(put) == 1:
            assert api.core.files.discard(put) == 1
        return put[-1]

    monkeypatch.setattr(
        type(api.services.core.blobs), "put_file", lambda _, path: put_and_lose(path)
    )
    job = api.services.core.jobs.get(api.segment(headers=ASYNC).json()["id"])
    assert len(put) == 2
    assert api.services.core.blobs.exists(job.payload["scan_sha256"])


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


def test_an_async_request_is_refused_where_the_job_would_fail(api: Api) -> None:
    api.add_domain()
    answer = api.segment(nifti()[:-50], headers={"Prefer": "respond-async"})
    assert (answer.status_code, answer.json()["code"]) == (422, "truncated")
    assert api.services.core.jobs.counts() == {}
    assert api.stored_blobs() == 0
