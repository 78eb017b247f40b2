"""The gate: whether what was learnt may serve."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from models.adapt import Adaptation
from models.cases import SlicedCase
from models.evaluator import Evaluator, OnProgress, mean_dice
from models.state import State
from normbank.anatomy import EVALUATED
from normbank.entities import CaseScores, Recipe, Scores
from pipeline.splits import CaseSplit

FLATTERED = 0.01  # Dice


@dataclass(frozen=True)
class Served:
    """What a domain is served with now, which an adaptation has to beat.

    Attributes
    ----------
    sha256 : of the state's tensors
    state : None where its backbone is gone, and nobody can say how good it is
    scores : those that it had on cases it had not seen, where it has learnt
        from the validation half since then
    """

    version: int
    sha256: str
    state: State | None
    scores: Scores | None = None


@dataclass(frozen=True)
class Verdict:
    """What the validation half says.

    Attributes
    ----------
    before, after : scores of the start, and of what the training half has taught
    state : what is to be published: the start's where tuning did not help
    served, served_dice : what it was compared with, None for nothing; its mean
        Dice, None where nobody can say
    objections : why the gate does not let the new one serve, in words; empty where it does
    refit : whether `state` has learnt from the validation half too, after it
        had been judged
    """

    before: Scores
    after: Scores
    state: State
    served: Served | None
    served_dice: float | None
    objections: tuple[str, ...]
    refit: bool = False

    @property
    def promote(self) -> bool:
        """Whether the gate lets the new one serve."""
        return not self.objections


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
        objections = _objections_to_a_first(before, after, recipe)
        return Verdict(before, after, state, None, None, (*_unasked(recipe), *objections))
    on_progress(0.56, "scoring what is served now")
    scores = active.scores
    if scores is None and active.state is not None:
        scores = before if active.sha256 == start.sha256 else cases.score(active.state)
    objections = _objections_to_a_next(active, scores, state, after, recipe)
    dice = None if scores is None else scores.mean_dice
    return Verdict(before, after, state, active, dice, (*_unasked(recipe), *objections))


def _unasked(recipe: Recipe) -> list[str]:
    return [] if recipe.publish else ["The recipe asks for a candidate."]


def _objections_to_a_first(before: Scores, after: Scores, recipe: Recipe) -> list[str]:
    """Why what was learnt may not be the first that a domain is served with."""
    objections = []
    if after.mean_dice < recipe.gate_floor:
        said = f"Its mean Dice is {after.mean_dice:.3f}, below {recipe.gate_floor:g}."
        objections.append(f"{said} Do the labels belong to the scans?")
    for name, scores in _deciding(after):
        if scores.mean is not None and scores.mean < recipe.gate_least:
            said = f"The Dice of {name} is {scores.mean:.3f}, below {recipe.gate_least:g}."
            objections.append(said)
    if after.mean_dice <= before.mean_dice:
        objections.append(f"It is no better than its start, {before.mean_dice:.3f}.")
    return [*objections, *_losses(before, after, recipe, "its start")]


def _objections_to_a_next(
    active: Served, scores: Scores | None, state: State, after: Scores, recipe: Recipe
) -> list[str]:
    """Why what was learnt may not take the place of what is served."""
    if active.sha256 == state.sha256:
        return ["It is what is served already."]
    if scores is None:
        return []
    objections = []
    if after.mean_dice <= scores.mean_dice - recipe.gate_margin:
        objections.append(
            f"Its mean Dice is {after.mean_dice:.3f}, that of version {active.version}, which is "
            f"served, {scores.mean_dice:.3f}."
        )
    return [*objections, *_losses(scores, after, recipe, f"version {active.version}")]


def _losses(earlier: Scores, after: Scores, recipe: Recipe, name: str) -> list[str]:
    """Structures that got worse by more than the recipe bears."""
    losses = []
    for structure, scores in _deciding(after):
        before = earlier.dice.get(structure)
        if before is None or before.mean is None or scores.mean is None:
            continue
        if scores.mean < before.mean - recipe.gate_loss:
            said = f"The Dice of {structure} falls from {before.mean:.3f}, of {name}, to"
            losses.append(f"{said} {scores.mean:.3f}.")
    return losses


def _deciding(scores: Scores) -> list[tuple[str, CaseScores]]:
    """The evaluated structures, or else all that are annotated."""
    evaluated = [(name, of) for name, of in scores.dice.items() if name in EVALUATED]
    return evaluated or list(scores.dice.items())


def accept_refit(
    evaluator: Evaluator,
    verdict: Verdict,
    tuned: Adaptation,
    state: State,
    validation: Sequence[SlicedCase],
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
