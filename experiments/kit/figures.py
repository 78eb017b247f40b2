"""Pictures of results; matplotlib is an extra, so this is imported late."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from matplotlib.patches import Patch

COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee8866",
)
"""Of the seven structures, and of methods; told apart by the colour-blind too (Paul Tol)."""


@dataclass(frozen=True)
class Bar:
    """A height and the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Line:
    """A curve; `band` holds the ends of its interval at every point."""

    x: Sequence[float]
    y: Sequence[float]
    band: tuple[Sequence[float], Sequence[float]] | None = None


@dataclass(frozen=True)
class Picture:
    """A slice and what is painted on it.

    Attributes
    ----------
    image : (H, W), shown between 0 and 1.1
    structures : (H, W), 0 for nothing, else the number of a colour, from 1
    """

    image: npt.NDArray[np.floating[Any]]
    structures: npt.NDArray[np.integer[Any]] | None = None


def save(figure: Figure, folder: Path, name: str, *, kinds: Sequence[str] = ("png", "svg")) -> None:
    """Write one picture in every kind of file, the same bytes for the same picture."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        metadata = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(folder / f"{name}.{kind}", dpi=150, metadata=metadata)


def grouped_bars(groups: Mapping[str, Mapping[str, Bar]], *, title: str, y_label: str) -> Figure:
    """Bars with intervals.

    Parameters
    ----------
    groups : group along x -> series -> bar; a series keeps its colour
    """
    series = list(dict.fromkeys(name for bars in groups.values() for name in bars))
    figure = Figure(figsize=(11, 4.4), layout="constrained")
    axes = figure.subplots()
    ticks, start = [], 0.0
    for bars in groups.values():
        for place, (name, bar) in enumerate(bars.items()):
            fill = _fill(series.index(name))
            ends = [[bar.value - bar.low], [bar.high - bar.value]]
            x = start + place
            axes.bar(x, bar.value, 0.9, yerr=np.abs(ends), capsize=2, **fill)
            axes.text(x, 0.02, f"{bar.value:.3f}", rotation=90, ha="center", fontsize=7)
        ticks.append(start + (len(bars) - 1) / 2)
        start += len(bars) + 1
    axes.set_xticks(ticks, list(groups))
    axes.set(title=title, ylabel=y_label, ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    keys = [Patch(label=name, **_fill(i)) for i, name in enumerate(series)]
    columns = min(len(keys), 3)
    figure.legend(handles=keys, loc="outside lower center", ncols=columns, frameon=False)
    return figure


def _fill(number: int) -> dict[str, Any]:
    """How a series is filled: its colour, hatched when the colours begin again."""
    hatch = "//" if number >= len(COLOURS) else None
    return {"facecolor": COLOURS[number % len(COLOURS)], "edgecolor": "white", "hatch": hatch}


def curves(
    panels: Mapping[str, Mapping[str, Line]],
    *,
    x_label: str,
    log_x: bool = False,
    x_marks: Sequence[str] = (),
    y_range: tuple[float, float] | None = None,
) -> Figure:
    """One panel beside the other, each with its lines.

    Parameters
    ----------
    panels : what is shown upwards -> name -> line
    log_x : x doubles from mark to mark
    x_marks : what stands at x = 1, 2, …
    y_range : the same for all panels; None: each its own
    """
    figure = Figure(figsize=(5.2 * len(panels), 4), layout="constrained")
    for axes, (y_label, lines) in zip(
        figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
    ):
        for place, (name, line) in enumerate(lines.items()):
            colour = COLOURS[place % len(COLOURS)]
            style = "-" if place < len(COLOURS) else "--"
            marker = "o" if len(line.x) < 12 else None
            axes.plot(line.x, line.y, style, color=colour, label=name, marker=marker, ms=3)
            if line.band is not None:
                axes.fill_between(line.x, *line.band, color=colour, alpha=0.2, linewidth=0)
        if log_x:
            marks = sorted({x for line in lines.values() for x in line.x})
            axes.set_xscale("log", base=2)
            axes.set_xticks(marks, [f"{mark:g}" for mark in marks])
        if x_marks:
            axes.set_xticks(range(1, len(x_marks) + 1), x_marks)
        axes.set(xlabel=x_label, ylabel=y_label, ylim=y_range)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False, fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def overlays(rows: Mapping[str, Mapping[str, Picture]], structures: Sequence[str]) -> Figure:
    """Rows of slices with structures painted on, and a key to the colours.

    Parameters
    ----------
    rows : row label -> column title -> picture
    structures : names of the colours, from 1
    """
    columns = max(len(row) for row in rows.values())
    figure = Figure(figsize=(2.3 * columns, 2.6 * len(rows) + 0.5), layout="constrained")
    grid = figure.subplots(len(rows), columns, squeeze=False)
    for line, (label, row) in zip(grid, rows.items(), strict=True):
        for axes, (title, picture) in zip(line, row.items(), strict=True):
            axes.imshow(_painted(picture), origin="lower")
            axes.set_title(title, fontsize=8)
            axes.set(xticks=[], yticks=[])
        line[0].set_ylabel(label)
    keys = [Patch(color=COLOURS[i], label=name) for i, name in enumerate(structures)]
    figure.legend(handles=keys, loc="outside lower center", ncols=len(keys), frameon=False)
    return figure


def _painted(picture: Picture) -> npt.NDArray[np.float64]:
    """(W, H, 3): the slice in grey, structures in colour, seen from below."""
    grey = np.clip(picture.image.T.astype(np.float64) / 1.1, 0, 1)
    painted = np.repeat(grey[..., None], 3, axis=2)
    if picture.structures is not None:
        for index, colour in enumerate(COLOURS, start=1):
            rgb = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
            inside = index == picture.structures.T
            painted[inside] = 0.25 * painted[inside] + 0.75 * np.array(rgb)
    return painted
