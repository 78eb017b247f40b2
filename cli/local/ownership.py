"""Ownership of a data folder: one `normbank up` at a time, and its addresses.

The lock is our own flock, not `filelock`'s: `running_service` takes it shared,
so that two commands that look at once are not taken for a service, and a
refused owner reads the holder's process id from the same file.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from cli.local.errors import LaunchError
from cli.local.files import write_private

LOCK = "up.lock"
ADDRESSES = "service.json"


@contextmanager
def sole_owner(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which ends with this process however it ends.

    The folder is closed to other accounts, and so is what this process and
    its children write meanwhile.

    Raises
    ------
    LaunchError
        Another process holds it; the message names its process id.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            owner = lock.read().strip() or "unknown"
            raise LaunchError(
                f"another `normbank up` (process {owner}) is using {folder}"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        with private_files(folder):
            yield


@contextmanager
def private_files(folder: Path) -> Iterator[None]:
    """Close a folder and its logs to other accounts, and write no file that they can read."""
    folder.chmod(0o700)
    for log in (*folder.glob("*.log*"), *folder.glob("logs/*")):
        log.chmod(0o600)
    mask = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(mask)


@contextmanager
def announced(folder: Path, addresses: Mapping[str, str]) -> Iterator[None]:
    """Publish the service's addresses (file mode 0600) for `normbank keys`."""
    write_private(folder / ADDRESSES, json.dumps(dict(addresses), indent=1) + "\n")
    try:
        yield
    finally:
        (folder / ADDRESSES).unlink(missing_ok=True)


def running_service(folder: Path) -> Mapping[str, str] | None:
    """Look up the addresses of the service that runs on this folder; None without one."""
    if not (folder / LOCK).exists():
        return None
    with (folder / LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            path = folder / ADDRESSES
            return dict(json.loads(path.read_text())) if path.exists() else None
    return None
