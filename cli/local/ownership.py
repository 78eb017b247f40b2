"""Who runs a data folder: one `normbank up` at a time, and where it can be found."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.local.bootstrap import write_private
from cli.output.terminal import fail

LOCK = "up.lock"
FACTS = "service.json"


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with this process however it ends."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            fail(f"another `normbank up` (process {owner}) is using {folder}")
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def announced(folder: Path, facts: Mapping[str, str]) -> Iterator[None]:
    """Leave the service's addresses (mode 0600) for `normbank keys`."""
    write_private(folder / FACTS, json.dumps(dict(facts), indent=1) + "\n")
    try:
        yield
    finally:
        (folder / FACTS).unlink(missing_ok=True)


def running_service(folder: Path) -> Mapping[str, str] | None:
    """The addresses of the service that runs on this folder; None without one."""
    if not (folder / LOCK).exists():
        return None
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            facts = folder / FACTS
            return dict(json.loads(facts.read_text())) if facts.exists() else None
    return None
