"""Tables: volumes of a scan, Dice of a domain's versions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from normbank.anatomy import READING_ORDER

MISSING = "–"


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Make a Rich table; every column but the first is right-aligned."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for place, column in enumerate(columns):
        grid.add_column(column, justify="right" if place else "left", no_wrap=not place)
    for row in rows:
        grid.add_row(*(str(cell) for cell in row))
    return grid


def dice(value: object) -> str:
    """Format a Dice score with three digits, a missing one as a dash."""
    return f"{value:.3f}" if isinstance(value, int | float) else MISSING


def volumes_table(title: str, volumes_mm3: Mapping[str, float]) -> Table:
    """Tabulate volumes in ml; paired structures share a row.

    Parameters
    ----------
    volumes_mm3 : mm³ by FreeSurfer name, such as `left-hippocampus`
    """
    bases = {name.removeprefix("left-").removeprefix("right-") for name in volumes_mm3}
    names = sorted(bases, key=READING_ORDER.index)
    rows = []
    for name in names:
        left, right = volumes_mm3.get(f"left-{name}"), volumes_mm3.get(f"right-{name}")
        total = volumes_mm3.get(name, 0.0) + (left or 0.0) + (right or 0.0)
        rows.append((name, _millilitres(left), _millilitres(right), _millilitres(total)))
    return table(title, ("structure", "left ml", "right ml", "total ml"), rows)


def _millilitres(volume_mm3: float | None) -> str:
    return MISSING if volume_mm3 is None else f"{volume_mm3 / 1000:.1f}"


def structure_dice(scores: Mapping[str, Any] | None) -> dict[str, float]:
    """Mean Dice of every structure that was scored; empty without scores."""
    means = {}
    for name, value in ((scores or {}).get("dice") or {}).items():
        mean = value.get("mean") if isinstance(value, Mapping) else value
        if isinstance(mean, int | float):
            means[name] = float(mean)
    return means


def mean_dice(scores: Mapping[str, Any] | None) -> float | None:
    """Mean Dice over the judged structures, which the gate compares; None without scores."""
    return (scores or {}).get("mean_dice")


def probe_table(version: Mapping[str, Any]) -> Table:
    """Tabulate the probe: Dice of every stored state on the training cases, the best first."""
    candidates = sorted(
        version["candidates"], key=lambda state: state.get("dice") or 0.0, reverse=True
    )
    rows = [
        (
            state["state"],
            dice(state.get("dice")),
            "start" if state["state"] == version["parent"] else "",
        )
        for state in candidates
    ]
    return table("Nearest stored state", ("state", "Dice", ""), rows)


def dice_table(version: Mapping[str, Any]) -> Table:
    """Tabulate Dice per structure on the validation cases, before and after."""
    before, after = version.get("before"), version.get("after")
    title = f"Dice on the validation cases, version {version['number']}"
    means = (mean_dice(before), mean_dice(after))
    return change_table(title, structure_dice(before), structure_dice(after), means)


def change_table(
    title: str,
    before: Mapping[str, float],
    after: Mapping[str, float],
    means: tuple[float | None, float | None],
) -> Table:
    """Tabulate two scores per structure and their difference; their means last."""
    names = sorted({*before, *after}, key=READING_ORDER.index)
    rows = [_change(name, before.get(name), after.get(name)) for name in names]
    rows.append(_change("mean (judged)", *means))
    return table(title, ("structure", "before", "after", "change"), rows)


def _change(name: str, before: float | None, after: float | None) -> tuple[str, ...]:
    change = MISSING if before is None or after is None else f"{after - before:+.3f}"
    return name, dice(before), dice(after), change
