"""Which stored state is the closest: the one that does best on a few labelled scans.

Part B, step 2 of Karani et al., MICCAI 2018, section 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.cases import SlicedCase
from models.evaluator import Evaluator, OnProgress, mean_dice
from models.state import State


@dataclass(frozen=True)
class Candidate:
    """How one stored state does on the training half.

    Attributes
    ----------
    ref : its name
    dice : mean over the judged structures and the cases
    by_name : mean over the cases of each judged structure that has a score
    """

    ref: str
    dice: float
    by_name: Mapping[str, float]


def nearest(
    evaluator: Evaluator,
    states: Mapping[str, State],
    cases: Sequence[SlicedCase],
    *,
    stride: int = 1,
    on_progress: OnProgress = lambda _progress, _step: None,
) -> tuple[Candidate, ...]:
    """Score every stored state on the labelled training half.

    Parameters
    ----------
    states : by name; at least one
    cases : the training half
    stride : look at every n-th slice, see `Evaluator.excerpt`

    Returns
    -------
    best first; equal scores in the order of their names
    """
    sparse = [evaluator.excerpt(case, stride) for case in cases]
    candidates = []
    for number, (ref, state) in enumerate(sorted(states.items())):
        on_progress(number / len(states), f"probing {ref}")
        scores = evaluator.score(state, sparse)
        by_name = dict(zip(evaluator.judged, _mean_over_cases(scores), strict=True))
        known_dice = {name: dice for name, dice in by_name.items() if not math.isnan(dice)}
        candidates.append(Candidate(ref, mean_dice(scores), known_dice))
    return tuple(sorted(candidates, key=lambda c: -c.dice))


def _mean_over_cases(scores: NDArray[np.float64]) -> list[float]:
    columns = (column[~np.isnan(column)] for column in scores.T)
    return [float(column.mean()) if column.size else math.nan for column in columns]
