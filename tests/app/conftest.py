"""One running application for the package, with empty tables for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from sqlalchemy import Engine

from cli.local.valkey import EmbeddedValkey
from normbank.config import Settings
from tests.support.api import Api, serve


@pytest.fixture(scope="session")
def shared_settings(
    migrated_engine: Engine, valkey: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory
) -> Settings:
    return Settings(
        database_url=migrated_engine.url.render_as_string(hide_password=False),
        redis_url=valkey.url,
        data_dir=tmp_path_factory.mktemp("data"),
        precision="float32",  # networks this small are equally fast in all of them
        backend="eager",
        queue_scans=2,
        poll_s=0,  # the server outlives this package, and other tests publish nonsense
        max_upload_bytes=4 * 1024 * 1024,
        max_request_bytes=16 * 1024 * 1024,
    )


@pytest.fixture(scope="session")
def shared_api(shared_settings: Settings) -> Iterator[Api]:
    with serve(shared_settings) as api:
        yield api


@pytest.fixture
def api(shared_api: Api, engine: Engine, redis_url: str) -> Api:
    """The shared application as if it had just been installed."""
    for blob in (shared_api.services.core.settings.data_dir / "blobs").rglob("*"):
        if blob.is_file():
            blob.unlink()
    shared_api.make_keys()
    return shared_api


@pytest.fixture
def own_settings(shared_settings: Settings, engine: Engine, tmp_path: Path) -> Settings:
    """Settings for an application of the test's own."""
    return shared_settings.model_copy(update={"data_dir": tmp_path / "data"})


@pytest.fixture
def broker(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as client:
        yield client
