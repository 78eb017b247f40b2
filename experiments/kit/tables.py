"""Scores as tidy data frames, their statistics, and tables for people and for programs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from experiments.kit.scoring import ScanScore
from normbank.anatomy import EVALUATED

MISSING = "–"
_RESAMPLES = 2000


class Summary(NamedTuple):
    """Over scans; `low` and `high` bound the bootstrap's 95 % interval of the mean."""

    n: int
    mean: float
    median: float
    p5: float
    p95: float
    low: float
    high: float

    @property
    def interval(self) -> str:
        return f"{number(self.low)}–{number(self.high)}"

    @property
    def mean_and_interval(self) -> str:
        return f"{number(self.mean)} [{number(self.low)}, {number(self.high)}]"


def summary(values: Sequence[float] | pd.Series[float], seed: int = 0) -> Summary:
    """Summarise one number per scan; those that are NaN do not count.

    Parameters
    ----------
    values : one per scan
    seed : of the bootstrap, which resamples scans
    """
    present = np.asarray(values, np.float64)
    present = present[~np.isnan(present)]
    if not present.size:
        return Summary(0, *[math.nan] * 6)
    mean, median = float(present.mean()), float(np.median(present))
    p5, p95 = (float(value) for value in np.percentile(present, [5, 95]))
    if present.size == 1:  # nothing to resample
        return Summary(1, mean, median, p5, p95, mean, mean)
    interval = stats.bootstrap(
        (present,),
        np.mean,
        n_resamples=_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    low, high = float(interval.low), float(interval.high)
    return Summary(present.size, mean, median, p5, p95, low, high)


def score_columns(
    score: ScanScore, dice: str = "{}", distance: str = "{} HD95 mm"
) -> dict[str, float]:
    """One scan's Dice and HD95 by structure; NaN where not measured.

    Parameters
    ----------
    dice, distance : patterns of the columns' names
    """
    hd95_mm = score.hd95_mm or [math.nan] * len(EVALUATED)
    return {
        **{dice.format(name): value for name, value in zip(EVALUATED, score.dice, strict=True)},
        **{distance.format(name): value for name, value in zip(EVALUATED, hd95_mm, strict=True)},
    }


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, or a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def markdown(table: pd.DataFrame | Sequence[Mapping[str, object]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    frame = pd.DataFrame(table).astype(str)
    align = ("left", *["right"] * (frame.shape[1] - 1))
    return f"{frame.to_markdown(index=False, disable_numparse=True, colalign=align)}\n"


def write_csv(path: Path, frame: pd.DataFrame) -> None:
    """All rows under one header; numbers in full, NaN as an empty cell."""
    frame.to_csv(path, index=False, lineterminator="\n")


def bullets(items: Mapping[str, object]) -> str:
    """`- name: value`, one a line."""
    return "".join(f"- {name}: {value}\n" for name, value in items.items())


def duration(seconds: float) -> str:
    """`1 min 5 s`, `12 s`, `0.3 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
