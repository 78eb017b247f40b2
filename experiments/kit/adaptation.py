"""Part B of the method: the closest state, tuned on a few labelled scans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experiments.kit.stages import Document, Stage
from models.adapt import Tuning, adapt, refit
from models.bench import Bench
from models.cases import LabelledSlices
from models.nearest import nearest
from models.state import State

PAPER, OWN = "paper", "own"
MODES = (PAPER, OWN)


@dataclass(frozen=True)
class Mode:
    """One way of adapting.

    Attributes
    ----------
    again : once the validation half has judged, learn from both halves
    """

    tuning: Tuning
    again: bool


@dataclass(frozen=True)
class Adapted:
    """A new domain's state, as a stage leaves it behind.

    Attributes
    ----------
    looks : (step, mean validation Dice), the first before any step; none
        without a validation half
    """

    state: State
    looks: tuple[tuple[int, float], ...]

    def to_document(self) -> Document:
        state = self.state
        looks = [list(look) for look in self.looks]
        own = {"head": state.head, "adapters": state.adapters}
        return {"rows": state.rows, **own, "of": state.backbone, "looks": looks}

    @classmethod
    def from_document(cls, document: Document) -> Adapted:
        looks = tuple((int(step), float(dice)) for step, dice in document["looks"])
        return cls(State(*(document[name] for name in ("rows", "of", "head", "adapters"))), looks)


def probe(bench: Bench, states: Mapping[str, State], cases: Sequence[LabelledSlices]) -> Document:
    """Mean Dice of every stored state on the labelled training half, best first."""
    return {one.ref: one.dice for one in nearest(bench, states, cases)}


def tune(
    stage: Stage,
    bench: Bench,
    start: State,
    training: Sequence[LabelledSlices],
    validation: Sequence[LabelledSlices],
    mode: Mode,
) -> Adapted:
    """Adapt one state.

    Parameters
    ----------
    validation : empty: every step is taken, and nothing is chosen
    """
    if not validation:
        return Adapted(refit(bench, start, training, mode.tuning, report=stage.at), ())
    found = adapt(bench, start, training, validation, mode.tuning, report=stage.at)
    looks = tuple((look.step, look.dice) for look in found.history)
    if not mode.again or not found.best_step:
        return Adapted(found.state, looks)
    everything = [*training, *validation]
    state = refit(bench, start, everything, mode.tuning, report=stage.at)
    return Adapted(state, looks)
