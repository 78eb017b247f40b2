"""Learning a domain from its labelled cases: probe, tune, gate, refit, accept.

Part B of Karani et al., MICCAI 2018, section 2, and what a service needs
around it. The worker and the studies call the same function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from models.adapt import Adaptation, Tuning, refit
from models.adapt import adapt as tune
from models.evaluator import Evaluator, OnProgress
from models.nearest import Candidate, nearest
from models.state import State
from normbank.entities import Recipe
from pipeline.gate import Served, Verdict, accept_refit, judge
from pipeline.splits import CaseSplit


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
