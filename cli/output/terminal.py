"""Words to the person at the terminal: results on stdout, trouble on stderr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

import typer
from rich.console import Console
from rich.table import Table

from normbank.anatomy import READING_ORDER

MISSING = "–"


def console() -> Console:
    return Console(highlight=False)


def note(message: str) -> None:
    """One line on stderr, so that stdout stays a result."""
    typer.echo(message, err=True)


def fail(message: str, *, status: int = 1) -> NoReturn:
    """Say what is wrong and leave."""
    typer.echo(f"normbank: {message}", err=True)
    raise typer.Exit(status)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """A Rich table; every column but the first is right-aligned."""
    drawn = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        drawn.add_column(column, justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    return drawn


def dice(value: object) -> str:
    """A Dice score with three digits, or a dash where there is none."""
    return f"{value:.3f}" if isinstance(value, int | float) else MISSING


def volumes_table(title: str, volumes_mm3: Mapping[str, float]) -> Table:
    """Volumes in ml; paired structures share a row.

    Parameters
    ----------
    volumes_mm3 : mm³ by FreeSurfer name, such as `left-hippocampus`
    """
    found = {name.removeprefix("left-").removeprefix("right-") for name in volumes_mm3}
    names = sorted(found, key=READING_ORDER.index)
    rows = []
    for name in names:
        left, right = volumes_mm3.get(f"left-{name}"), volumes_mm3.get(f"right-{name}")
        total = volumes_mm3.get(name, 0.0) + (left or 0.0) + (right or 0.0)
        rows.append((name, _millilitres(left), _millilitres(right), _millilitres(total)))
    return table(title, ("structure", "left ml", "right ml", "total ml"), rows)


def _millilitres(volume_mm3: float | None) -> str:
    return MISSING if volume_mm3 is None else f"{volume_mm3 / 1000:.1f}"
