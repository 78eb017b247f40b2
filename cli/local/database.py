"""The database that an operator's command works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cli.local.errors import LaunchError
from cli.local.ownership import running_service, sole_owner
from normbank.config import Settings


@contextmanager
def database_url(settings: Settings, folder: Path) -> Iterator[str]:
    """Open the configured database, the running service's, or start the folder's own.

    Raises
    ------
    LaunchError
        No service has run in the folder, or one is about to start there.
    """
    service = running_service(folder)
    if settings.database_url:
        yield settings.database_url
    elif service is not None:
        yield service["database_url"]
    elif (folder / "postgres").is_dir():
        # Imported here because the embedded servers are an extra.
        from cli.local.postgres import EmbeddedPostgres

        with sole_owner(folder), EmbeddedPostgres(folder / "postgres") as postgres:
            yield postgres.url
    else:
        raise LaunchError(f"no service has run in {folder}; give --data or NORMBANK_DATABASE_URL")
