"""A version promoted anywhere is on every replica's device within a second."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from app.engine.listener import PromotionListener
from normbank.config import Settings
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from tests.support.api import Api, new_state, serve, wait_until
from tests.support.domains import new_domain

Watched = tuple[PromotionListener, list[str]]


@pytest.fixture
def watched(database_url: str) -> Iterator[Watched]:
    """A listener that writes down what it was told."""
    seen: list[str] = []
    listener = PromotionListener(database_url, seen.append, lambda: seen.append("all"), poll_s=3600)
    listener.start()
    wait_until(lambda: seen == ["all"])
    yield listener, seen
    listener.stop()


def test_every_move_of_the_active_version_is_told(
    watched: Watched, core: CoreServices, blobs: BlobStore
) -> None:
    _, seen = watched
    new_domain(core, blobs, "site-a")
    core.versions.publish("site-a", state=new_state(0.1), promote=True)
    core.versions.publish("site-a", state=new_state(0.2), promote=False)
    started = time.monotonic()
    core.versions.promote("site-a", 2)
    wait_until(lambda: seen == ["all", "site-a", "site-a"])
    assert time.monotonic() - started < 1
    core.versions.quarantine("site-a", 2, "broken")
    wait_until(lambda: len(seen) == 4)


def test_a_lost_connection_is_made_again_and_everything_looked_at(
    watched: Watched, engine: Engine
) -> None:
    listener, seen = watched
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(
            text(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE query LIKE 'LISTEN%' AND datname = current_database()"
            )
        )
    wait_until(lambda: seen.count("all") >= 2)
    assert listener.listening.is_set()


def test_what_fails_is_no_end(database_url: str, core: CoreServices, blobs: BlobStore) -> None:
    seen: list[str] = []

    def preload(domain: str) -> None:
        seen.append(domain)
        raise RuntimeError("no memory")

    listener = PromotionListener(database_url, preload, lambda: None, poll_s=3600)
    listener.start()
    try:
        assert listener.listening.wait(10)
        for name in ("site-a", "site-b"):
            new_domain(core, blobs, name)
            core.versions.publish(name, state=new_state(0.1), promote=True)
        wait_until(lambda: seen == ["site-a", "site-b"])
    finally:
        listener.stop()


def test_a_promotion_reaches_the_bank_of_another_replica(
    api: Api, own_settings: Settings, tmp_path: Path
) -> None:
    blobs_at = str(api.services.core.settings.blobs_at)
    shared = own_settings.model_copy(update={"blob_url": blobs_at, "poll_s": 30.0})
    with serve(shared) as replica:
        bank = replica.services.segmenter._device.bank  # type: ignore[attr-defined]
        core = api.core
        new_domain(core, api.services.core.blobs, "site-a")
        state = new_state(0.3)
        core.versions.publish("site-a", state=state, promote=False)
        assert state.sha256 not in bank
        core.versions.promote("site-a", 1)
        started = time.monotonic()
        wait_until(lambda: state.sha256 in bank)
        assert time.monotonic() - started < 1
