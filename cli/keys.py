"""`normbank keys …`: API keys, straight on the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from cli.options import ServiceData, open_database_url
from cli.output.tables import MISSING, table
from cli.output.terminal import console, fail
from normbank.config import get_settings
from normbank.entities import ApiKey, Role
from normbank.errors import NormbankError
from normbank.services.keys import Keys
from normbank.wiring import services_of

app = typer.Typer(no_args_is_help=True, help="API keys and their roles.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    role: Annotated[Role, typer.Option(help="What it may do.")] = Role.SEGMENT,
    days: Annotated[int | None, typer.Option(min=1, help="Days until it expires.")] = None,
    data: ServiceData = None,
) -> None:
    """Make a key and print its secret, which is shown this once."""
    expires_at = datetime.now(UTC) + timedelta(days=days) if days else None
    with _keys(data) as keys:
        _, secret = keys.create(name, role, expires_at)
    typer.echo(secret)


@app.command("list")
def list_keys(data: ServiceData = None) -> None:
    """Every key, without its secret."""
    with _keys(data) as keys:
        rows = [
            (key.id, key.name, key.role.value, _until(key), _day(key.last_used_at))
            for key in keys.list()
        ]
    columns = ("id", "name", "role", "until", "used")
    console().print(table("API keys", columns, rows))


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="As `normbank keys list` shows it.")],
    data: ServiceData = None,
) -> None:
    """End a key at once."""
    with _keys(data) as keys:
        keys.revoke(key_id)
    typer.echo(f"{key_id} is revoked")


@contextmanager
def _keys(data: Path | None) -> Iterator[Keys]:
    """Open the keys of the configured database, of the running service, or of a stopped one."""
    with open_database_url(data) as url:
        settings = get_settings().model_copy(update={"database_url": url})
        with services_of(settings) as services:
            try:
                yield services.keys
            except NormbankError as error:
                fail(str(error))


def _until(key: ApiKey) -> str:
    return "revoked" if key.revoked_at else _day(key.expires_at)


def _day(moment: datetime | None) -> str:
    return MISSING if moment is None else f"{moment:%Y-%m-%d}"
