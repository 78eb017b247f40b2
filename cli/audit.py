"""`normbank audit …`: the trail of changes, straight on the database."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import ServiceData, open_database_url
from cli.output.terminal import fail
from normbank.config import get_settings
from normbank.entities import AuditHead
from normbank.errors import NormbankError
from normbank.wiring import services_of

app = typer.Typer(no_args_is_help=True)


@app.callback()  # without it Typer would make the only command the whole of `audit`
def audit() -> None:
    """The trail of changes."""


@app.command()
def verify(
    head: Annotated[
        str | None,
        typer.Option(
            metavar="N:HASH",
            help="A newest event that was written down elsewhere: `audit head` in a log, the "
            "metric normbank_audit_head, what this command has printed.",
        ),
    ] = None,
    data: ServiceData = None,
) -> None:
    """Check the chain of hashes and its end; says what was changed or removed."""
    try:
        known = AuditHead.parse(head) if head else None
    except NormbankError as error:
        fail(str(error))
    with open_database_url(data) as url:
        settings = get_settings().model_copy(update={"database_url": url})
        with services_of(settings) as services:
            fault = services.audit.fault(known)
            newest = services.audit.head()
    if fault:
        fail(fault)
    if newest:
        typer.echo(f"head {newest}")
    typer.echo(f"{newest.number if newest else 0} events, chain intact")
