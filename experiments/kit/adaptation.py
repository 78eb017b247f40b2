"""Part B of the method: the nearest state, adapted on a few labelled scans.

Karani et al., MICCAI 2018, section 2. The only place where studies adapt.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from experiments.kit.recipes import Recipe
from experiments.kit.stages import Document
from models.adapt import adapt, refit
from models.bench import Bench
from models.cases import LabelledSlices
from models.nearest import nearest
from models.state import State

History = tuple[tuple[int, float], ...]
"""Validation points, (step, mean Dice), the first before any step."""


def probe(
    bench: Bench,
    states: Mapping[str, State],
    cases: Sequence[LabelledSlices],
    slice_stride: int = 1,
) -> dict[str, float]:
    """Mean Dice of every stored state on the training set, best first."""
    candidates = nearest(bench, states, cases, stride=slice_stride)
    return {candidate.ref: candidate.dice for candidate in candidates}


def adapt_state(
    bench: Bench,
    start: State,
    training: Sequence[LabelledSlices],
    validation: Sequence[LabelledSlices],
    recipe: Recipe,
    *,
    refit_on_all: bool,
    on_progress: Callable[[float, str], None],
) -> tuple[State, History]:
    """Adapt a state with early stopping, then refit it on all cases.

    Parameters
    ----------
    validation : empty: every step is taken, and there is no history
    refit_on_all : where the adaptation was better than its start, learn once
        more, from both sets

    Returns
    -------
    the state and the validation points
    """
    tuning = recipe.tuning()
    if not validation:
        return refit(bench, start, training, tuning, report=on_progress), ()
    adaptation = adapt(bench, start, training, validation, tuning, report=on_progress)
    history = tuple((point.step, point.dice) for point in adaptation.history)
    if not refit_on_all or not adaptation.best_step:
        return adaptation.state, history
    cases = [*training, *validation]
    return refit(bench, start, cases, tuning, report=on_progress), history


def state_document(state: State, history: History) -> Document:
    """An adapted state as a stage stores it; keys as in the stages stored so far."""
    private = {"rows": state.rows, "head": state.head, "adapters": state.adapters}
    return {**private, "of": state.backbone, "looks": [list(point) for point in history]}


def stored_state(document: Document) -> tuple[State, History]:
    """Read what `state_document` has written."""
    state = State(*(document[name] for name in ("rows", "of", "head", "adapters")))
    return state, tuple((int(step), float(dice)) for step, dice in document["looks"])
