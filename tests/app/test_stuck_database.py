"""A database that is frozen, locked or out of connections: answers in time, and what they say."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from sqlalchemy import text

from cli.local.postgres import EmbeddedPostgres
from cli.local.valkey import EmbeddedValkey
from normbank.config import Settings
from normbank.storage.audit import CHAIN_LOCK
from normbank.storage.database import make_engine, migrate
from tests.support.api import Api, serve
from tests.support.services import empty_database, postgres_server

WITHIN_S = 6.0


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[EmbeddedPostgres]:
    """A server that these tests may freeze."""
    with postgres_server() as server:
        yield server


@pytest.fixture
def stuck_api(
    own_postgres: EmbeddedPostgres, valkey: EmbeddedValkey, tmp_path: Path
) -> Iterator[Api]:
    with empty_database(own_postgres) as url:
        migrate(url)
        settings = Settings(
            database_url=url,
            redis_url=valkey.url,
            data_dir=tmp_path,
            precision="float32",
            backend="eager",
            poll_s=0,
        )
        with serve(settings) as api:
            api.make_keys()
            api.add_domain()
            yield api


@contextmanager
def frozen(server: EmbeddedPostgres) -> Iterator[None]:
    """Stop every process of a server, as a machine does that swaps or a disk that hangs."""
    assert server.pid is not None
    master = psutil.Process(server.pid)
    pids = [master.pid, *(child.pid for child in master.children(recursive=True))]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@contextmanager
def stuck(api: Api, statement: str) -> Iterator[None]:
    """A transaction that holds what its statement took, and does not end."""
    engine = make_engine(api.core.settings.database_url)
    with engine.connect() as connection:
        connection.execute(text("SET idle_in_transaction_session_timeout = 0"))
        connection.execute(text(statement))
        yield
    engine.dispose()


def timed(call: httpx.Client, method: str, path: str, **request: object) -> tuple[float, int, str]:
    """Seconds to the answer, its status and its `Retry-After`."""
    started = time.monotonic()
    answer = call.request(method, path, **request)  # type: ignore[arg-type]
    return (
        time.monotonic() - started,
        answer.status_code,
        answer.headers.get("Retry-After", ""),
    )


def tag_of(api: Api) -> str:
    return str(api.admin.get("/domains/drawn").headers["ETag"])


def is_healthy(api: Api) -> bool:
    return api.admin.get("/domains").status_code == 200


def test_a_frozen_database_is_a_503_in_time_and_readiness_names_it(
    stuck_api: Api, own_postgres: EmbeddedPostgres
) -> None:
    bare, admin = stuck_api.client(None), stuck_api.admin
    assert is_healthy(stuck_api)
    with frozen(own_postgres), ThreadPoolExecutor(61) as pool:
        asked = [pool.submit(timed, admin, "GET", "/domains") for _ in range(60)]
        seconds, status, _ = pool.submit(timed, bare, "GET", "/readyz").result()
        answers = [answer.result() for answer in asked]
        checks = {check["name"]: check for check in bare.get("/readyz").json()["checks"]}
    assert (status, seconds < WITHIN_S) == (503, True), seconds
    assert {status for _, status, _ in answers} == {503}
    assert all(retry == "5" for _, _, retry in answers)
    assert max(seconds for seconds, _, _ in answers) < WITHIN_S
    assert not checks["database"]["ok"]
    assert checks["broker"]["ok"]
    assert is_healthy(stuck_api)


def test_a_frozen_database_ends_a_request_that_was_let_in_before(
    stuck_api: Api, own_postgres: EmbeddedPostgres
) -> None:
    """The lock holds the request in the handler until the server is frozen."""
    lock = f"SELECT pg_advisory_xact_lock({CHAIN_LOCK})"
    with stuck(stuck_api, lock), ThreadPoolExecutor(1) as pool:
        asked = pool.submit(change_name, stuck_api, tag_of(stuck_api))
        time.sleep(1.0)
        with frozen(own_postgres):
            seconds, status, retry = asked.result()
    assert (status, retry) == (503, "5")
    assert seconds < WITHIN_S


def test_the_audits_lock_stops_writers_alone_and_for_a_few_seconds(stuck_api: Api) -> None:
    bare, admin = stuck_api.client(None), stuck_api.admin
    lock, tag = f"SELECT pg_advisory_xact_lock({CHAIN_LOCK})", tag_of(stuck_api)
    with stuck(stuck_api, lock), ThreadPoolExecutor(60) as pool:
        writers = [pool.submit(change_name, stuck_api, tag) for _ in range(60)]
        time.sleep(0.5)
        ready_s, ready, _ = timed(bare, "GET", "/readyz")
        key_s, refused, _ = timed(bare, "GET", "/domains", headers={"X-API-Key": "nb_a_b"})
        answers = [writer.result() for writer in writers]
        alone = timed(admin, "GET", "/domains")
    assert (ready, refused) == (200, 401)
    assert max(ready_s, key_s) < 3.0
    assert {(status, retry) for _, status, retry in answers} == {(503, "5")}
    assert max(seconds for seconds, _, _ in answers) < WITHIN_S
    assert alone[1] == 200
    assert change_name(stuck_api, tag)[1] == 200


def test_a_locked_key_and_a_taken_pool_stop_neither_keys_nor_readiness(stuck_api: Api) -> None:
    database = stuck_api.core.database
    with stuck(stuck_api, "SELECT * FROM api_key FOR UPDATE"):
        connections = [database.connect() for _ in range(20)]
        try:
            seconds, status, retry = timed(stuck_api.admin, "GET", "/domains")
            ready = timed(stuck_api.client(None), "GET", "/readyz")
        finally:
            for connection in connections:
                connection.close()
    assert (status, retry) == (503, "5")  # let in by its key, then no connection is left
    assert seconds < WITHIN_S
    assert ready[1] == 200


def change_name(api: Api, tag: str) -> tuple[float, int, str]:
    """Change the domain's name, an act that is audited."""
    headers = {"If-Match": tag}
    return timed(api.admin, "PATCH", "/domains/drawn", json={"name": "x"}, headers=headers)
