"""Options that commands share, and what they open: the API or the database."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from cli.client import Client, ClientError
from cli.local.database import database_url
from cli.local.errors import LaunchError
from cli.output.terminal import fail
from normbank.config import get_settings

Url = Annotated[
    str, typer.Option(envvar="NORMBANK_URL", help="Where the service answers.", show_default=True)
]
Key = Annotated[
    str,
    typer.Option(envvar="NORMBANK_KEY", help="API key; else DATA/admin.key.", show_default=False),
]
Data = Annotated[Path | None, typer.Option(help="The service's data folder, to find the key in.")]
ServiceData = Annotated[Path | None, typer.Option(help="The data folder of `normbank up`.")]


def connect(url: str, key: str, data: Path | None) -> Client:
    """Make a client with the given key, else the one that `normbank up` wrote."""
    if not key:
        key_file = (data or get_settings().data_dir) / "admin.key"
        if not key_file.is_file():
            fail(f"no API key: give --key or NORMBANK_KEY, or --data with {key_file.name} in it")
        key = key_file.read_text().strip()
    return Client(url, key)


@contextmanager
def open_client(url: str, key: str, data: Path | None) -> Iterator[Client]:
    """Open a client; a refused request ends the command with the API's own reason."""
    with connect(url, key, data) as client:
        try:
            yield client
        except ClientError as error:
            fail(str(error))


@contextmanager
def open_database_url(data: Path | None) -> Iterator[str]:
    """URL of the database that belongs to the settings or to a data folder."""
    settings = get_settings()
    try:
        with database_url(settings, (data or settings.data_dir).resolve()) as url:
            yield url
    except LaunchError as error:
        fail(str(error))
    except OperationalError as error:
        fail(f"the database cannot be used: {str(error.orig).strip()}")


def parse_json(text: str, what: str) -> dict[str, object]:
    """Parse a JSON object typed at the terminal."""
    try:
        value = json.loads(text)
    except ValueError as error:
        fail(f"{what} is not JSON: {error}")
    if not isinstance(value, dict):
        fail(f"{what} is not a JSON object")
    return value
