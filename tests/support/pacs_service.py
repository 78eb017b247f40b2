"""Worker and listener of a PACS in processes of their own, which may be killed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cli.local.processes import child_environment, python
from normbank.config import Settings
from tests.support.orthanc import PASSWORD, USER, Orthanc

FAST = {"watch": True, "poll_s": 0.3, "settle_s": 1.0, "connect_timeout_s": 2.0}


def write_pacs_file(path: Path, orthanc: Orthanc, **keys: Any) -> Path:
    """A PACS file with one entry."""
    entry = {**orthanc.entry, **FAST, **keys}
    lines = [f"{key} = {_toml(value)}" for key, value in entry.items()]
    path.write_text("\n".join(["[[pacs]]", *lines]) + "\n")
    return path


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value).replace("'", '"')


class Processes:
    """A worker and a listener over the same database, PACS file and broker.

    Parameters
    ----------
    settings : with database, broker, data folder and PACS file
    """

    def __init__(self, settings: Settings, **environment: str) -> None:
        self._environment = child_environment(
            {
                "NORMBANK_DATABASE_URL": settings.database_url,
                "NORMBANK_REDIS_URL": settings.redis_url,
                "NORMBANK_DATA_DIR": str(settings.data_dir),
                "NORMBANK_PACS_FILE": str(settings.pacs_file),
                "NORMBANK_LEASE_S": str(settings.lease_s),
                "TEST_ORTHANC_USER": USER,
                "TEST_ORTHANC_PASSWORD": PASSWORD,
                **environment,
            }
        )
        self._folder = settings.data_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, **environment: str) -> None:
        """Start `worker` or `listener`."""
        module = {"worker": "tests.support.pacs_worker", "listener": "worker.listener"}[name]
        with (self._folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                python(module),
                env={**self._environment, **environment},
                stdout=log,
                stderr=log,
            )

    def kill(self, name: str) -> None:
        """`kill -9`."""
        process = self._running.pop(name)
        process.kill()
        process.wait()

    def log(self, name: str) -> str:
        """What a process has written."""
        return (self._folder / f"{name}.log").read_text()

    def end(self) -> None:
        for process in self._running.values():
            process.kill()
            process.wait()


@contextmanager
def processes(settings: Settings, **environment: str) -> Iterator[Processes]:
    made = Processes(settings, **environment)
    try:
        yield made
    finally:
        made.end()
