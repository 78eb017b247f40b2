"""Which database a command works on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from cli.local.ownership import running_service, sole_owner
from cli.output.terminal import fail
from normbank.config import get_settings

Data = Annotated[Path | None, typer.Option(help="The data folder of `normbank up`.")]


@contextmanager
def database_url(data: Path | None) -> Iterator[str]:
    """The configured database, that of the running service, or a resting one."""
    settings = get_settings()
    folder = (data or settings.data_dir).resolve()
    service = running_service(folder)
    if settings.database_url:
        yield settings.database_url
    elif service is not None:
        yield service["database_url"]
    elif (folder / "postgres").is_dir():
        # Imported here because the embedded servers are an extra.
        from cli.local.embedded import EmbeddedPostgres

        with sole_owner(folder), EmbeddedPostgres(folder / "postgres") as postgres:
            yield postgres.url
    else:
        fail(f"no service has run in {folder}; give --data or NORMBANK_DATABASE_URL")
