"""What the gate says of a state, by scores that are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch

from models.cases import LabelledSlices
from models.state import State
from normbank.entities import Recipe, Scores
from pipeline.adapt import OnProgress
from pipeline.gate import Served, Verdict, judge

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
    return Served(3, (state or ACTIVE).sha256, state, dice)


def test_the_first_state_of_a_domain_serves_unless_it_shall_not() -> None:
    assert verdict(0.5, 0.6, None)[0].promote
    assert not verdict(0.5, 0.6, None, Recipe(publish=False))[0].promote


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
