"""Part B of the method: the nearest state, adapted on a few labelled scans.

Karani et al., MICCAI 2018, section 2. The only place where studies adapt, by the
function that the service adapts with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from experiments.kit.recipes import Recipe
from experiments.kit.stages import Document
from models.adapt import refit
from models.cases import LabelledSlices
from models.evaluator import Evaluator, mean_dice
from models.nearest import nearest
from models.state import State
from normbank.entities import Scores
from pipeline.adapt import Adapted, adapt
from pipeline.cases import LabelledScan
from pipeline.evaluate import open_evaluator
from pipeline.networks import Networks
from pipeline.splits import ScanSplit

History = tuple[tuple[int, float], ...]
"""Validation points, (step, mean Dice), the first before any step."""


def probe(
    evaluator: Evaluator,
    states: Mapping[str, State],
    cases: Sequence[LabelledSlices],
    slice_stride: int = 1,
) -> dict[str, float]:
    """Mean Dice of every stored state on the training set, best first."""
    candidates = nearest(evaluator, states, cases, stride=slice_stride)
    return {candidate.ref: candidate.dice for candidate in candidates}


def adapt_scans(
    networks: Networks,
    states: Mapping[str, State],
    cases: Sequence[LabelledScan],
    recipe: Recipe,
    *,
    precision: str,
    refit_on_all: bool,
    on_progress: Callable[[float, str], None],
) -> tuple[State, History]:
    """Learn a scanner from labelled scans, just as the service does.

    Parameters
    ----------
    states : those to start from; the nearest is taken
    cases : the first half is learnt from, the second one decides
    precision : as in `normbank.config.Settings`
    refit_on_all : as `adapt_slices`

    Returns
    -------
    the state and the validation points
    """
    adapted = adapt(
        open_evaluator(networks, cases, precision),
        ScanSplit.of(networks, cases),
        states,
        recipe.shipped(refit=refit_on_all),
        crop=recipe.crop,
        on_progress=on_progress,
    )
    return adapted.state, _history(adapted)


@dataclass(frozen=True)
class SliceSplit:
    """Slices that are cropped already, scored as they are: a study's cases, see `CaseSplit`."""

    evaluator: Evaluator
    training: Sequence[LabelledSlices]
    validation: Sequence[LabelledSlices]

    def outlined(self) -> Sequence[LabelledSlices]:
        return self.training

    def cropped(
        self, state: State, on_progress: Callable[[float, str], None]
    ) -> tuple[Sequence[LabelledSlices], Sequence[LabelledSlices]]:
        return self.training, self.validation

    def score(self, state: State) -> Scores:
        return Scores(mean_dice(self.evaluator.score(state, self.validation)))


def adapt_slices(
    evaluator: Evaluator,
    start: State,
    training: Sequence[LabelledSlices],
    validation: Sequence[LabelledSlices],
    recipe: Recipe,
    *,
    refit_on_all: bool,
    on_progress: Callable[[float, str], None],
) -> tuple[State, History]:
    """The same from a given state, for simulated slices that are cropped already.

    Parameters
    ----------
    validation : empty, which the service never has: every step is taken, and
        there is no history
    refit_on_all : where the adaptation was better than its start, learn once
        more, from both sets

    Returns
    -------
    the state and the validation points
    """
    if not validation:
        return refit(evaluator, start, training, recipe.tuning(), on_progress=on_progress), ()
    adapted = adapt(
        evaluator,
        SliceSplit(evaluator, training, validation),
        {"start": start},
        recipe.shipped(refit=refit_on_all),
        crop=recipe.crop,
        on_progress=on_progress,
    )
    return adapted.state, _history(adapted)


def _history(adapted: Adapted) -> History:
    return tuple((point.step, point.dice) for point in adapted.tuning.history)


def state_document(state: State, history: History) -> Document:
    """An adapted state as a stage stores it; keys as in the stages stored so far."""
    private = {"rows": state.rows, "head": state.head, "adapters": state.adapters}
    return {**private, "of": state.backbone, "looks": [list(point) for point in history]}


def stored_state(document: Document) -> tuple[State, History]:
    """Read what `state_document` has written."""
    state = State(*(document[name] for name in ("rows", "of", "head", "adapters")))
    return state, tuple((int(step), float(dice)) for step, dice in document["looks"])
