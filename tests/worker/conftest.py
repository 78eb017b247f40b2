"""A worker's context on throwaway services, with a network that is small and coarse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.local.builtin_domains import seed_builtin_domains
from normbank.config import Settings
from tests.support.coarse import save_coarse_backbone
from tests.support.networks import one_thread
from worker.context import WorkerContext, open_context


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="package")
def coarse(_one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_coarse_backbone(tmp_path_factory.mktemp("coarse"))


@pytest.fixture
def settings(database_url: str, redis_url: str, tmp_path: Path, coarse: Path) -> Settings:
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        data_dir=tmp_path,
        backbone_dir=coarse,
        lease_s=1.0,
        threads=1,
        precision="float32",  # networks this small are equally fast in all of them
        backend="eager",
    )


@pytest.fixture
def context(settings: Settings, coarse: Path) -> Iterator[WorkerContext]:
    """The coarse backbone with its domains, and nothing else."""
    opened = open_context(settings)
    seed_builtin_domains(opened.core, coarse)
    yield opened
    opened.core.close()
