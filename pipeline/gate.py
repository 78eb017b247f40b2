"""The gate: whether what was learnt may serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.adapt import Adaptation
from models.cases import LabelledSlices
from models.evaluator import Evaluator, OnProgress, mean_dice
from models.state import State
from normbank.entities import Recipe, Scores
from pipeline.splits import CaseSplit

FLATTERED = 0.01  # Dice


@dataclass(frozen=True)
class Served:
    """What a domain is served with now, which an adaptation has to beat.

    Attributes
    ----------
    sha256 : of the state's tensors
    state : None where its backbone is gone, and nobody can say how good it is
    dice : the mean that it had on cases it had not seen, where it has learnt
        from the validation half since then
    """

    version: int
    sha256: str
    state: State | None
    dice: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What the validation half says.

    Attributes
    ----------
    before, after : scores of the start, and of what the training half has taught
    state : what is to be published: the start's where tuning did not help
    served, served_dice : what it was compared with, None for nothing; its mean
        Dice, None where nobody can say
    promote : whether the gate lets the new one serve
    refit : whether `state` has learnt from the validation half too, after it
        had been judged
    """

    before: Scores
    after: Scores
    state: State
    served: Served | None
    served_dice: float | None
    promote: bool
    refit: bool = False


def judge(
    cases: CaseSplit,
    start: State,
    tuned: State,
    recipe: Recipe,
    served: Callable[[], Served | None],
    on_progress: OnProgress,
) -> Verdict:
    """The gate: what the training half has taught against its start and what is served."""
    on_progress(0.5, "scoring the start")
    before = cases.score(start)
    on_progress(0.53, "scoring the new state")
    state, after = tuned, cases.score(tuned)
    if after.mean_dice <= before.mean_dice:
        state, after = start, before
    active = served()
    if active is None:
        return Verdict(before, after, state, None, None, promote=recipe.publish)
    on_progress(0.56, "scoring what is served now")
    dice = active.dice
    if dice is None and active.state is not None:
        scores = before if active.sha256 == start.sha256 else cases.score(active.state)
        dice = scores.mean_dice
    better = dice is None or after.mean_dice > dice - recipe.gate_margin
    promote = recipe.publish and better and active.sha256 != state.sha256
    return Verdict(before, after, state, active, dice, promote)


def accept_refit(
    evaluator: Evaluator,
    verdict: Verdict,
    tuned: Adaptation,
    state: State,
    validation: Sequence[LabelledSlices],
    stride: int,
) -> Verdict:
    """Take what all cases have taught, unless it fails on cases it has even seen.

    The other state is the best of several validation points on the same cases,
    which flatters it a little: so much is forgiven.
    """
    seen = [evaluator.excerpt(case, stride) for case in validation]
    if mean_dice(evaluator.score(state, seen)) < tuned.best_dice - FLATTERED:
        return verdict
    return replace(verdict, state=state, refit=True)
