"""The messages, and the settings producer and worker share."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
import redis

from cli.local.valkey import free_port
from normbank.entities import Job, JobKind, JobState
from normbank.queue import CeleryQueue, broker_answers, celery_settings, task_name

CANARY = "CANARY^PATIENT"


def job(kind: JobKind = JobKind.ADAPT, job_id: str = "0123") -> Job:
    return Job(
        id=job_id,
        kind=kind,
        domain_id="site-a",
        state=JobState.QUEUED,
        attempt=0,
        progress=0.0,
        step=CANARY,
        eta_s=None,
        payload={"scan": CANARY},
        result=None,
        error_code=None,
        error_detail=None,
        cancel_requested=False,
        created_at=datetime.now(UTC),
        started_at=None,
        finished_at=None,
    )


def test_the_message_is_the_jobs_id_and_nothing_else(redis_url: str) -> None:
    CeleryQueue(redis_url).enqueue(job())
    with redis.Redis.from_url(redis_url) as client:
        keys = sorted(key.decode() for key in client.scan_iter())
        assert all(key.startswith("normbank:") for key in keys)
        (message,) = client.lrange("normbank:adapt", 0, -1)
        everything = b"".join(client.dump(key) or b"" for key in keys)
    headers = json.loads(message)["headers"]
    assert headers["task"] == "normbank.adapt" == task_name(JobKind.ADAPT)
    assert headers["argsrepr"] == "['0123']"
    assert CANARY.encode() not in message + everything


def test_each_kind_has_a_queue_of_its_own(redis_url: str) -> None:
    queue = CeleryQueue(redis_url)
    for kind in JobKind:
        queue.enqueue(job(kind))
    with redis.Redis.from_url(redis_url) as client:
        assert [client.llen(f"normbank:{kind}") for kind in JobKind] == [1, 1, 1]


def test_a_broker_that_is_gone_costs_seconds_and_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    queue = CeleryQueue(f"redis://:secret@127.0.0.1:{free_port()}/0")
    began = time.monotonic()
    queue.enqueue(job())
    assert time.monotonic() - began < 5
    assert "job 0123 not announced" in caplog.text
    assert "secret" not in caplog.text


def test_messages_flow_again_when_the_broker_is_back(redis_url: str) -> None:
    queue = CeleryQueue(redis_url)
    queue.enqueue(job(job_id="first"))
    with redis.Redis.from_url(redis_url) as client:
        client.client_kill_filter(_type="normal", skipme=True)
        queue.enqueue(job(job_id="second"))
        queue.enqueue(job(job_id="third"))
        assert client.llen("normbank:adapt") >= 2


def test_whether_the_broker_answers(redis_url: str) -> None:
    assert broker_answers(redis_url)
    assert not broker_answers(redis_url.replace("redis://:", "redis://:wrong"))
    assert not broker_answers(f"redis://127.0.0.1:{free_port()}/0", timeout_s=0.5)


def test_the_visibility_timeout_exceeds_the_hard_limit_in_all_three_places() -> None:
    settings = celery_settings("redis://broker/0", 600)
    timeouts = {
        settings["visibility_timeout"],
        settings["broker_transport_options"]["visibility_timeout"],
        settings["result_backend_transport_options"]["visibility_timeout"],
    }
    assert timeouts == {1200}
    assert settings["task_soft_time_limit"] < settings["task_time_limit"] == 600
    assert 0 < celery_settings("redis://broker/0", 30)["task_soft_time_limit"] < 30


def test_announcing_needs_no_torch() -> None:
    code = "import sys, normbank.queue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
