"""First start of a service: migrations, roles, built-in domains, an admin key."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import SQLAlchemyError

from cli.local.files import write_private
from normbank.config import Settings
from normbank.errors import ConflictError
from normbank.services.keys import Keys
from normbank.storage.database import migrate
from normbank.storage.roles import equip_service_role
from normbank.wiring import services_of

log = logging.getLogger(__name__)

ADMIN_KEY = "admin.key"
"""The first key's file in the data folder."""

LOOK_EVERY_S = 600.0

EnsureKey = Callable[[Keys, Path, float], bool]


def prepare(settings: Settings, key_file: Path, ensure_key: EnsureKey | None = None) -> bool:
    """Migrate, equip the service's role, register the built-in domains, write the first admin key.

    Each step does nothing where it was done before.

    Parameters
    ----------
    ensure_key : `first_key` when left out

    Returns
    -------
    whether a key was made
    """
    # Imported here because it loads torch, which no other command needs.
    from cli.local.builtin_domains import seed_builtin_domains

    migrate(settings.owner_url or settings.database_url)
    if settings.owner_url:
        equip_service_role(settings.owner_url, settings.database_url)
    with services_of(settings) as services:
        seed_builtin_domains(services, settings.backbone_dir)
        return (ensure_key or first_key)(services.keys, key_file, settings.first_key_days)


def first_key(keys: Keys, key_file: Path, days: float) -> bool:
    """Make the first admin key, once for a database: where no admin key can be used.

    A secret that lies in the file already (a mounted one) becomes the key's;
    otherwise it is written there, mode 0600.

    Raises
    ------
    ConflictError
        `key_ended`: the file cannot be written, and the key in it has ended.
    """
    given = _secret_in(key_file)
    try:
        return keys.make_first(days, _writer(key_file), given=given)
    except ConflictError:
        if not os.access(key_file.parent, os.W_OK):
            raise
        return keys.make_first(days, _writer(key_file))


def own_key(keys: Keys, key_file: Path, days: float) -> bool:
    """Keep the file's admin key usable: for a database that lies in the same folder.

    Whoever can read the file can read the database's passwords beside it, so
    the key gives them nothing that they have not.
    """
    return keys.renew_first(days, _writer(key_file), _secret_in(key_file))


@contextmanager
def key_kept(settings: Settings, key_file: Path) -> Iterator[None]:
    """Renew the file's key before it expires, for as long as the service runs."""
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(LOOK_EVERY_S):
            try:
                with services_of(settings) as services:
                    own_key(services.keys, key_file, settings.first_key_days)
            except (SQLAlchemyError, OSError) as error:
                log.warning("the admin key was not looked at", extra={"error": repr(error)})

    threading.Thread(target=look, name="admin-key", daemon=True).start()
    try:
        yield
    finally:
        stop.set()


def _writer(key_file: Path) -> Callable[[str], None]:
    return lambda secret: write_private(key_file, secret + "\n")


def _secret_in(key_file: Path) -> str:
    return key_file.read_text().strip() if key_file.exists() else ""
