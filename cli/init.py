"""`normbank init`: make a named database ready, once per deployment."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from cli.local.bootstrap import prepare
from cli.output.terminal import fail
from normbank.config import get_settings
from normbank.errors import NormbankError


def init(
    key_file: Annotated[
        Path | None, typer.Option(help="Where the first admin key lies; else DATA/admin.key.")
    ] = None,
) -> None:
    """Migrate NORMBANK_DATABASE_URL, register the built-in domains, make the first admin key.

    Safe to run again: what is there stays, and a database gets one first key
    however often this runs. With NORMBANK_OWNER_URL that role migrates, and
    the one of NORMBANK_DATABASE_URL gets what the service needs and no more.
    A secret that the key file holds already becomes the key's.
    """
    settings = get_settings()
    if not settings.database_url:
        fail("NORMBANK_DATABASE_URL is not set; `normbank up` needs no init")
    key_file = key_file or settings.data_dir / "admin.key"
    try:
        key_made = prepare(settings, key_file)
    except OperationalError as error:
        fail(f"the database cannot be used: {str(error.orig).strip()}")
    except NormbankError as error:
        fail(f"{error} ({error.code})")
    typer.echo(
        f"ready; the first admin key is in {key_file} for {settings.first_key_days:g} days"
        if key_made
        else "ready; kept the admin keys that there are"
    )
