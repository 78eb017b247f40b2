"""What the gate says of a state, by scores that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch

from models.cases import LabelledSlices
from models.state import State
from normbank.entities import CaseScores, Recipe, Scores
from pipeline.adapt import OnProgress
from pipeline.gate import (
    Served,
    Verdict,
    _objections_to_a_first,
    _objections_to_a_next,
    judge,
)

START, TUNED, ACTIVE = (State(torch.full((4, 2), float(n)), "b" * 64) for n in range(3))


class Scored:
    """Cases that every state has a known Dice on."""

    def __init__(self, dice: Mapping[str, float]) -> None:
        self._dice = dice
        self.asked: list[str] = []

    def outlined(self) -> Sequence[LabelledSlices]:
        return ()

    def cropped(
        self, state: State, on_progress: OnProgress
    ) -> tuple[Sequence[LabelledSlices], Sequence[LabelledSlices]]:
        return (), ()

    def score(self, state: State) -> Scores:
        self.asked.append(state.sha256)
        return Scores(self._dice[state.sha256])


def verdict(
    start: float,
    tuned: float,
    served: Served | None,
    recipe: Recipe | None = None,
    active: float = 0.0,
) -> tuple[Verdict, Scored]:
    cases = Scored({START.sha256: start, TUNED.sha256: tuned, ACTIVE.sha256: active})
    said = judge(
        cases, START, TUNED, recipe or Recipe(), lambda: served, lambda _progress, _step: None
    )
    return said, cases


def served(state: State | None, dice: float | None = None) -> Served:
    scores = None if dice is None else Scores(dice)
    return Served(3, (state or ACTIVE).sha256, state, scores)


def test_the_first_state_of_a_domain_serves_unless_it_shall_not() -> None:
    assert verdict(0.5, 0.65, None)[0].promote
    said = verdict(0.5, 0.65, None, Recipe(publish=False))[0]
    assert not said.promote
    assert said.objections == ("The recipe asks for a candidate.",)


def test_a_first_version_needs_a_floor_and_a_gain() -> None:
    low = verdict(0.001, 0.0025, None)[0]
    assert not low.promote
    assert "0.003, below 0.6. Do the labels belong to the scans?" in low.objections[0]
    assert verdict(0.001, 0.0025, None, Recipe(gate_floor=0))[0].promote
    same = verdict(0.7, 0.7, None)[0]
    assert same.objections == ("It is no better than its start, 0.700.",)


def scores(**dice: float) -> Scores:
    means = {name: CaseScores.of([value]) for name, value in dice.items()}
    return Scores(sum(dice.values()) / len(dice), means)


def test_no_structure_may_be_bad_in_a_first_version() -> None:
    after = scores(thalamus=0.95, amygdala=0.28)
    said = _objections_to_a_first(scores(thalamus=0.9, amygdala=0.27), after, Recipe())
    assert said == ["The Dice of amygdala is 0.280, below 0.3."]


def test_no_structure_may_lose_much() -> None:
    before, after = scores(thalamus=0.8, amygdala=0.8), scores(thalamus=0.95, amygdala=0.765)
    next_one = _objections_to_a_next(served(ACTIVE), before, TUNED, after, Recipe())
    assert next_one == ["The Dice of amygdala falls from 0.800, of version 3, to 0.765."]
    assert _objections_to_a_next(served(ACTIVE), before, TUNED, after, Recipe(gate_loss=0.04)) == []
    first = _objections_to_a_first(before, after, Recipe())
    assert first == ["The Dice of amygdala falls from 0.800, of its start, to 0.765."]


def test_where_tuning_did_not_help_the_start_is_kept() -> None:
    said, _ = verdict(0.6, 0.6, None)
    assert said.state is START
    assert said.after == said.before


@pytest.mark.parametrize(
    ("active", "margin", "promoted"),
    [(0.59, 0.0, True), (0.6, 0.0, False), (0.61, 0.0, False), (0.61, 0.02, True)],
)
def test_what_is_served_has_to_be_beaten(active: float, margin: float, promoted: bool) -> None:
    recipe = Recipe(gate_margin=margin)
    said, _ = verdict(0.5, 0.6, served(ACTIVE), recipe, active)
    assert (said.promote, said.served_dice) == (promoted, active)


def test_what_is_served_and_started_from_is_scored_once() -> None:
    said, cases = verdict(0.5, 0.6, served(START))
    assert cases.asked == [START.sha256, TUNED.sha256]
    assert (said.promote, said.served_dice) == (True, 0.5)


def test_a_start_that_is_served_and_not_beaten_is_not_promoted_again() -> None:
    said, _ = verdict(0.6, 0.5, served(START))
    assert said.state is START
    assert not said.promote


def test_what_has_learnt_from_the_validation_half_keeps_the_score_it_had_before() -> None:
    said, cases = verdict(0.5, 0.6, served(ACTIVE, dice=0.65), active=0.99)
    assert ACTIVE.sha256 not in cases.asked
    assert (said.promote, said.served_dice) == (False, 0.65)


def test_what_nobody_can_score_any_longer_is_replaced() -> None:
    said, _ = verdict(0.5, 0.6, served(None))
    assert (said.promote, said.served_dice) == (True, None)
