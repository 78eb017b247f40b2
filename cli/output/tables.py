"""The scores of a domain's versions, as tables for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from cli.output.terminal import MISSING, dice, table
from normbank.anatomy import READING_ORDER


def structure_dice(scores: Mapping[str, Any] | None) -> dict[str, float]:
    """Mean Dice of every structure that was scored; empty without scores."""
    found = {}
    for name, value in ((scores or {}).get("dice") or {}).items():
        mean = value.get("mean") if isinstance(value, Mapping) else value
        if isinstance(mean, int | float):
            found[name] = float(mean)
    return found


def mean_dice(scores: Mapping[str, Any] | None) -> float | None:
    """The mean that decides, over the judged structures; None without scores."""
    return (scores or {}).get("mean_dice")


def probe_table(version: Mapping[str, Any]) -> Table:
    """How well every stored state did on the training half, the best first."""
    candidates = sorted(version["candidates"], key=lambda one: one.get("dice") or 0.0, reverse=True)
    rows = [
        (one["state"], dice(one.get("dice")), "start" if one["state"] == version["parent"] else "")
        for one in candidates
    ]
    return table("Nearest stored state", ("state", "Dice", ""), rows)


def dice_table(version: Mapping[str, Any]) -> Table:
    """Dice per structure on the validation half, before and after."""
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
    """Two scores per structure and their difference; their means last."""
    names = sorted({*before, *after}, key=READING_ORDER.index)
    rows = [_change(name, before.get(name), after.get(name)) for name in names]
    rows.append(_change("mean (judged)", *means))
    return table(title, ("structure", "before", "after", "change"), rows)


def _change(name: str, before: float | None, after: float | None) -> tuple[str, ...]:
    change = MISSING if before is None or after is None else f"{after - before:+.3f}"
    return name, dice(before), dice(after), change
