"""Whether what was learnt may serve: everything is judged by cases it has not learnt from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from models.adapt import Adaptation
from models.bench import Bench, mean_dice
from models.cases import LabelledSlices
from models.state import State
from normbank.entities import DomainState, Recipe
from worker.labelled import LabelledScan, evaluate
from worker.runner import Report
from worker.served import served_dice, served_version
from worker.workplace import Workplace

FLATTERED = 0.01  # Dice


@dataclass(frozen=True)
class Stored:
    """A version with its tensors."""

    version: DomainState
    state: State


@dataclass(frozen=True)
class Halves:
    """The cases that are learnt from, and those that judge."""

    training: Sequence[LabelledScan]
    validation: Sequence[LabelledScan]

    @property
    def all(self) -> Sequence[LabelledScan]:
        return [*self.training, *self.validation]


@dataclass(frozen=True)
class Verdict:
    """What the validation half says on the scans' own grids.

    Attributes
    ----------
    before, after : scores of the start, and of what the training half has taught
    state : what is to be published: the start's where tuning did not help
    replaced : the version served now, None for none, and its mean Dice on its
        own backbone, None where that is on the shelf no longer
    promote : whether the gate lets the new one serve
    refit : whether `state` has learnt from the validation half too, after it
        had been judged
    """

    before: Mapping[str, Any]
    after: Mapping[str, Any]
    state: State
    replaced: tuple[int | None, float | None]
    promote: bool
    refit: bool = False


def has_learnt(version: DomainState, cases: Sequence[LabelledScan]) -> bool:
    """Whether a version has learnt from any of these cases."""
    learnt = version.metrics.get("cases", {}).get("learnt", ())
    return not {case.case.id for case in cases}.isdisjoint(learnt)


def judge(
    place: Workplace,
    domain_id: str,
    halves: Halves,
    start: Stored,
    tuned: State,
    recipe: Recipe,
    report: Report,
) -> Verdict:
    """Score what the training half has taught against its start and what is served.

    A served version that has learnt from the validation half is taken at the
    score that it had on cases it had not seen, when it was made.
    """

    def scores(state: State) -> dict[str, Any]:
        return evaluate(halves.validation, place.predict_with(state), place.backbone.spec)

    report(0.5, "scoring the start")
    before = scores(start.state)
    report(0.53, "scoring the new state")
    state, after = tuned, scores(tuned)
    if after["mean_dice"] <= before["mean_dice"]:
        state, after = start.state, before
    active = served_version(place, domain_id)
    if active is None:
        return Verdict(before, after, state, (None, None), promote=recipe.publish)
    report(0.56, "scoring what is served now")
    served = _served(place, active, halves, start, before)
    better = served is None or after["mean_dice"] > served - recipe.gate_margin
    promote = recipe.publish and better and active.sha256 != state.sha256
    return Verdict(before, after, state, (active.number, served), promote)


def _served(
    place: Workplace,
    active: DomainState,
    halves: Halves,
    start: Stored,
    before: Mapping[str, Any],
) -> float | None:
    if has_learnt(active, halves.validation):
        return float(active.metrics["after"]["mean_dice"])
    if active.sha256 == start.version.sha256:
        return float(before["mean_dice"])
    return served_dice(place, halves.validation, active)


def accept_refit(
    bench: Bench,
    verdict: Verdict,
    tuned: Adaptation,
    state: State,
    validation: Sequence[LabelledSlices],
    stride: int,
) -> Verdict:
    """Publish what all cases have taught, unless it fails on cases it has even seen.

    The other state is the best of several looks at the same cases, which
    flatters it a little: so much is forgiven.
    """
    seen = [bench.excerpt(case, stride) for case in validation]
    if mean_dice(bench.score(state, seen)) < tuned.best_dice - FLATTERED:
        return verdict
    return replace(verdict, state=state, refit=True)
