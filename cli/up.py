"""`normbank up`: the whole service from one command, and none of it left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from sqlalchemy.exc import OperationalError

from cli.local.errors import LaunchError
from cli.local.launcher import launch
from cli.output.terminal import fail, note
from normbank.config import Settings, get_settings
from normbank.errors import NormbankError


def up(
    data: Annotated[
        Path | None, typer.Option(help="Folder for everything this service keeps.")
    ] = None,
    port: Annotated[int | None, typer.Option(help="Port of the API; 0: any free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
) -> None:
    """Start everything: PostgreSQL, Valkey, migrations, the API and one worker.

    NORMBANK_DATABASE_URL and NORMBANK_REDIS_URL, where set, are used instead
    of the embedded ones. Where NORMBANK_PACS_FILE names a PACS to be watched,
    the listener follows it. Ctrl-C or SIGTERM takes all of it down.
    """
    try:
        launch(
            _settings(data, port, host),
            on_ready=lambda url: typer.echo(f"ready {url}"),
            on_message=note,
        )
    except LaunchError as error:
        fail(str(error))
    except OperationalError as error:
        fail(f"the database cannot be used: {str(error.orig).strip()}")
    except NormbankError as error:
        fail(f"{error} ({error.code})")


def _settings(data: Path | None, port: int | None, host: str | None) -> Settings:
    """Settings with the options applied and every path absolute."""
    settings = get_settings()
    folder = (data or settings.data_dir).resolve()
    older = settings.older_backbone_dirs
    changes = {
        "data_dir": folder,
        "port": settings.port if port is None else port,
        "host": host or settings.host,
        "backbone_dir": settings.backbone_dir and settings.backbone_dir.resolve(),
        "pacs_file": settings.pacs_file and settings.pacs_file.resolve(),
        "older_backbone_dirs": older and tuple(path.resolve() for path in older),
    }
    settings = settings.model_copy(update=changes)
    return settings.model_copy(update={"blob_url": _absolute(settings.blobs_at)})


def _absolute(url: str) -> str:
    """Make a local folder's path absolute: the children run in another folder."""
    return url if "://" in url else str(Path(url).resolve())
