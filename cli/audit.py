"""`normbank audit …`: the trail of changes, straight on the database."""

from __future__ import annotations

import typer

from cli.options import ServiceData, open_database_url
from cli.output.terminal import fail
from normbank.config import get_settings
from normbank.wiring import services_of

app = typer.Typer(no_args_is_help=True)


@app.callback()  # without it Typer would make the only command the whole of `audit`
def audit() -> None:
    """The trail of changes."""


@app.command()
def verify(data: ServiceData = None) -> None:
    """Check the chain of hashes; names the first event that was tampered with."""
    with open_database_url(data) as url:
        settings = get_settings().model_copy(update={"database_url": url})
        with services_of(settings) as services:
            tampered = services.audit.first_broken()
            newest = services.audit.newest(1)
    if tampered is not None:
        fail(f"event {tampered} is not what was written")
    typer.echo(f"{newest[0].number if newest else 0} events, chain intact")
