"""`normbank audit …`: the trail of changes, straight on the database."""

from __future__ import annotations

import typer

from cli.options import ServiceData, open_database_url
from cli.output.terminal import fail
from normbank.config import get_settings
from normbank.services.registry import Registry
from normbank.storage.blobs import BlobStore
from normbank.storage.database import make_engine, make_sessions

app = typer.Typer(no_args_is_help=True)


@app.callback()  # without it Typer would make the only command the whole of `audit`
def audit() -> None:
    """The trail of changes."""


@app.command()
def verify(data: ServiceData = None) -> None:
    """Check the chain of hashes; names the first event that was tampered with."""
    with open_database_url(data) as url:
        engine = make_engine(url)
        try:
            registry = Registry(make_sessions(engine), BlobStore(get_settings().blobs_at))
            tampered = registry.verify_audit()
            newest = registry.audit_trail(1)
        finally:
            engine.dispose()
    if tampered is not None:
        fail(f"event {tampered} is not what was written")
    typer.echo(f"{newest[0].number if newest else 0} events, chain intact")
