"""Part B of the method: the closest state, tuned on a few labelled scans."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.stages import Document, Stage
from models.adapt import Bench, adapt, nearest
from models.cases import LabelledSlices
from models.state import State

PAPER, OWN = "paper", "own"
MODES = (PAPER, OWN)


@dataclass(frozen=True)
class Adapted:
    """A new domain's state, as a stage leaves it behind.

    Attributes
    ----------
    looks : (step, mean validation Dice), the first before any step
    """

    state: State
    looks: tuple[tuple[int, float], ...]

    def to_document(self) -> Document:
        looks = [list(look) for look in self.looks]
        return {"rows": self.state.rows, "backbone": self.state.backbone, "looks": looks}

    @classmethod
    def from_document(cls, document: Document) -> Adapted:
        looks = tuple((int(step), float(dice)) for step, dice in document["looks"])
        return cls(State(document["rows"], document["backbone"]), looks)


def probe(bench: Bench, states: Mapping[str, State], cases: Sequence[LabelledSlices]) -> Document:
    """Mean Dice of every stored state on the labelled training half, best first."""
    return {one.ref: one.dice for one in nearest(bench, states, cases)}


def tune(
    stage: Stage,
    bench: Bench,
    start: State,
    training: Sequence[LabelledSlices],
    validation: Sequence[LabelledSlices],
    recipe: Mapping[str, Any],
    seed: int,
) -> Adapted:
    """Adapt one state.

    Parameters
    ----------
    validation : empty: the run has its full length, and the scans it learns
        from stand in for those that it has not
    recipe : arguments of `models.adapt.adapt` that differ from its defaults
    """
    settings = dict(recipe)
    if not validation:
        settings["patience"] = settings.get("steps", 10_000)
    found = adapt(
        bench, start, training, validation or training, seed=seed, report=stage.at, **settings
    )
    return Adapted(found.state, tuple((look.step, look.dice) for look in found.history))


def full_recipe(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe with the defaults of `models.adapt.adapt` written out."""
    parameters = inspect.signature(adapt).parameters.values()
    defaults = {
        one.name: one.default
        for one in parameters
        if one.default is not one.empty and isinstance(one.default, bool | int | float | str)
    }
    return {**defaults, **recipe}
