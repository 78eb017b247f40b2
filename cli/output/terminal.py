"""Lines for the person at the terminal: results on stdout, errors on stderr."""

from __future__ import annotations

from typing import NoReturn

import typer
from rich.console import Console


def console() -> Console:
    """Rich console on stdout."""
    return Console(highlight=False)


def note(message: str) -> None:
    """Print a line on stderr; stdout holds results alone."""
    typer.echo(message, err=True)


def fail(message: str, *, status: int = 1) -> NoReturn:
    """Print an error and exit with `status`."""
    typer.echo(f"normbank: {message}", err=True)
    raise typer.Exit(status)
