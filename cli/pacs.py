"""`normbank pacs …`: the way to a PACS, and the listener that follows one."""

from __future__ import annotations

import signal
import threading
from typing import Annotated

import typer

from cli.local.ownership import running_service
from cli.options import ServiceData, open_database_url
from cli.output.terminal import fail, note
from normbank.config import get_settings
from normbank.errors import NormbankError
from normbank.imaging.scan import Limits
from normbank.logs import configure_logging
from normbank.pacs.config import Pacs, read_pacs_file

app = typer.Typer(no_args_is_help=True, help="PACS of the file that NORMBANK_PACS_FILE names.")

Name = Annotated[str, typer.Argument(help="The PACS's name in the PACS file.")]

_MARKS = {True: "ok", False: "FAILED", None: "--"}


@app.command()
def check(
    name: Name,
    store: Annotated[
        bool, typer.Option("--store", help="Store a tiny picture of nobody there, too.")
    ] = False,
) -> None:
    """Walk every step of the way to a PACS; says what is wrong and what to do about it."""
    from normbank.pacs.check import check_pacs  # other commands do not wait for pydicom

    pacs = _find(name)
    typer.echo(f"{_MARKS[True]:7} file: '{pacs.name}' at {pacs.dicomweb_url}, SEG as {pacs.seg}")
    steps = list[bool | None]()
    for step in check_pacs(pacs, Limits.of(get_settings()), store=store):
        typer.echo(f"{_MARKS[step.ok]:7} {step.name}: {step.said}")
        steps.append(step.ok)
    if False in steps:
        raise typer.Exit(1)


@app.command()
def watch(name: Name, data: ServiceData = None) -> None:
    """Follow a PACS until Ctrl-C: make a job of every series that is to be segmented.

    `normbank up` does so by itself for each PACS with `watch = true`. The jobs
    are done by the service's worker, which must know the same PACS file.
    """
    from worker.listener import follow

    pacs, settings = _find(name), get_settings()
    folder = (data or settings.data_dir).resolve()
    running = running_service(folder) or {}
    configure_logging(settings.log_level)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with open_database_url(data) as url:
        broker = settings.redis_url or running.get("redis_url", "")
        changes = {"database_url": url, "redis_url": broker}
        note(f"following '{pacs.name}' at {pacs.dicomweb_url}; Ctrl-C ends it")
        follow(settings.model_copy(update=changes), (pacs,), stop)


def _find(name: str) -> Pacs:
    try:
        return read_pacs_file(get_settings().pacs_file).get(name)
    except NormbankError as error:
        fail(f"{error} ({error.code})")
