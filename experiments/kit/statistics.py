"""What a handful of scans say about a method."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_DRAWS = 2000


class Summary(NamedTuple):
    """Over scans; `low` and `high` bound the bootstrap's 95 % interval of the mean."""

    n: int
    mean: float
    median: float
    p5: float
    p95: float
    low: float
    high: float


def summary(values: Sequence[float], seed: int = 0) -> Summary:
    """Summarise one number per scan; those that are NaN do not count.

    Parameters
    ----------
    values : one per scan
    seed : of the bootstrap, which resamples scans
    """
    known = np.array([value for value in values if not np.isnan(value)])
    if not known.size:
        return Summary(0, *[float("nan")] * 6)
    rng = np.random.default_rng(seed)
    means = known[rng.integers(known.size, size=(_DRAWS, known.size))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    p5, p95 = np.percentile(known, [5, 95])
    middle, median = known.mean(), np.median(known)
    return Summary(known.size, *(float(v) for v in (middle, median, p5, p95, low, high)))
