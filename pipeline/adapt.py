"""Learning a domain from its labelled cases: probe, tune, gate, refit, accept.

Part B of Karani et al., MICCAI 2018, section 2, and what a service needs
around it. The worker and the studies call the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from models.adapt import Adaptation, Tuning, refit
from models.adapt import adapt as tune
from models.cases import LabelledSlices
from models.evaluator import Evaluator, OnProgress, mean_dice
from models.nearest import Candidate, nearest
from models.state import State
from normbank.entities import Recipe, Scores
from pipeline.cases import LabelledScan
from pipeline.evaluate import evaluate
from pipeline.networks import Networks

FLATTERED = 0.01  # Dice


class CaseSplit(Protocol):
    """Labelled cases, one half to learn from (training), the other to judge by (validation)."""

    def outlined(self) -> Sequence[LabelledSlices]:
        """The training half, cropped before any state is known to fit."""

    def cropped(
        self, state: State, on_progress: OnProgress
    ) -> tuple[Sequence[LabelledSlices], Sequence[LabelledSlices]]:
        """Training and validation half, the brain found with a state."""

    def score(self, state: State) -> Scores:
        """How a state, of any backbone, answers the validation half."""


@dataclass(frozen=True)
class ScanSplit:
    """Scans on their own grids, answered just as the service would.

    Attributes
    ----------
    training : at least one; the first half of `all`, rounded up
    """

    networks: Networks
    training: Sequence[LabelledScan]
    validation: Sequence[LabelledScan]

    @classmethod
    def of(cls, networks: Networks, cases: Sequence[LabelledScan]) -> ScanSplit:
        half = (len(cases) + 1) // 2
        return cls(networks, cases[:half], cases[half:])

    @property
    def all(self) -> list[LabelledScan]:
        return [*self.training, *self.validation]

    def outlined(self) -> Sequence[LabelledSlices]:
        return [case.slices(None, self.networks.spec) for case in self.training]

    def cropped(
        self, state: State, on_progress: OnProgress
    ) -> tuple[Sequence[LabelledSlices], Sequence[LabelledSlices]]:
        predictor, slices = self.networks.predict_with(state), []
        for number, case in enumerate(self.all):
            on_progress(number / len(self.all), "finding the brain")
            slices.append(case.slices(predictor, self.networks.spec))
        return slices[: len(self.training)], slices[len(self.training) :]

    def score(self, state: State) -> Scores:
        spec = self.networks.pool.predictor(state.backbone).spec
        predictor = self.networks.predict_with(state)
        return evaluate(self.validation, predictor, spec, judge=self.networks.spec)

    def judged_by(self, learnt: Collection[str]) -> bool:
        """Whether any of these cases, by id, is in the validation half."""
        return not {case.id for case in self.validation}.isdisjoint(learnt)


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


@dataclass(frozen=True)
class Adapted:
    """A domain's new state, and how it came about.

    Attributes
    ----------
    parent : name of the state that it grew from
    candidates : every state that was probed, the nearest first
    tuning : on the training half, judged by the other one
    """

    parent: str
    candidates: tuple[Candidate, ...]
    tuning: Adaptation
    verdict: Verdict

    @property
    def state(self) -> State:
        return self.verdict.state


def adapt(
    evaluator: Evaluator,
    cases: CaseSplit,
    states: Mapping[str, State],
    recipe: Recipe,
    *,
    served: Callable[[], Served | None] = lambda: None,
    crop: tuple[int, int] = Tuning.crop,
    on_progress: OnProgress = lambda _progress, _step: None,
) -> Adapted:
    """Learn a domain's next state from its labelled cases.

    The training half is learnt from, the validation half decides: when to
    stop, and whether the new state may serve. Then the run is repeated on all
    cases, and taken unless it fails on cases it has even seen.

    Parameters
    ----------
    evaluator : the frozen network on its device
    states : by name; those to start from, and `recipe.parent` if it names one
    served : asked at the gate: what the new state has to beat
    crop : pixels (H, W) of the part of each slice that a step sees
    on_progress : hears of every stage; may raise to end the run
    """
    candidates = nearest(
        evaluator, states, cases.outlined(), stride=recipe.slice_stride,
        on_progress=_stage(on_progress, 0.04, 0.1),
    )  # fmt: skip
    parent = recipe.parent or candidates[0].ref
    start, settings = states[parent], tuning_of(recipe, crop)
    training, validation = cases.cropped(start, _stage(on_progress, 0.1, 0.18))
    tuned = tune(
        evaluator, start, training, validation, settings,
        on_progress=_stage(on_progress, 0.18, 0.5),
    )  # fmt: skip
    verdict = judge(cases, start, tuned.state, recipe, served, on_progress)
    if recipe.refit and tuned.best_step and verdict.state is tuned.state:
        everything = [*training, *validation]
        last = _stage(on_progress, 0.6, 0.95)
        state = refit(evaluator, start, everything, settings, on_progress=last)
        verdict = accept_refit(evaluator, verdict, tuned, state, validation, settings.stride)
    return Adapted(parent, candidates, tuned, verdict)


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


def tuning_of(recipe: Recipe, crop: tuple[int, int] = Tuning.crop) -> Tuning:
    """The part of a recipe that tunes the private tensors."""
    return Tuning(
        seed=recipe.seed,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        augmented=recipe.augment,
        head=recipe.head,
        adapters=recipe.adapters,
        validate_every=recipe.validate_every,
        patience=recipe.patience,
        stride=recipe.slice_stride,
        crop=crop,
    )


def _stage(on_progress: OnProgress, low: float, high: float) -> OnProgress:
    """Progress of one stage as a part of the whole."""
    return lambda progress, step: on_progress(low + (high - low) * progress, step)
