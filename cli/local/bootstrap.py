"""First start of a service: migrations, built-in domains, an admin key."""

from __future__ import annotations

from pathlib import Path

from cli.local.files import write_private
from normbank.config import Settings
from normbank.entities import Role
from normbank.services.keys import Keys
from normbank.storage.database import migrate
from normbank.wiring import services_of

ADMIN_KEY = "admin.key"
"""The first key's file in the data folder."""

FIRST_KEY_NAME = "first admin"


def prepare(settings: Settings, key_file: Path) -> bool:
    """Migrate, register the built-in domains, write the first admin key.

    Each step does nothing where it was done before.

    Returns
    -------
    whether a key was written
    """
    # Imported here because it loads torch, which no other command needs.
    from cli.local.builtin_domains import seed_builtin_domains

    migrate(settings.database_url)
    with services_of(settings) as services:
        seed_builtin_domains(services, settings.backbone_dir)
        return ensure_admin_key(services.keys, key_file)


def ensure_admin_key(keys: Keys, key_file: Path) -> bool:
    """Write an admin key to `key_file` (mode 0600) unless it holds a valid one."""
    if key_file.exists():
        key = keys.authenticate(key_file.read_text().strip())
        if key is not None and key.role is Role.ADMIN:
            return False
    _, secret = keys.create(FIRST_KEY_NAME, Role.ADMIN)
    write_private(key_file, secret + "\n")
    return True
