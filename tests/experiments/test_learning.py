"""A training that was broken off ends where it would have ended."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from experiments.kit.batches import Pool
from experiments.kit.stages import Stage, Stages
from experiments.kit.training import Learned, Place, learn
from experiments.table2.presets import Learning
from tests.support.networks import discs, one_thread, small_spec

PLACE = Place(torch.device("cpu"), torch.float32)
PLAN = Learning(6, 6, batch=4, rate=1e-2, warm_up=0, look_every=2, stride=1)


class BrokenOffError(Exception):
    pass


def train(folder: Path, break_at: float = 2.0) -> Learned:
    class Breaking:
        def begin(self, stage: str) -> None: ...
        def end(self, stage: str, seconds: float, fresh: bool) -> None: ...
        def at(self, fraction: float, words: str) -> None:
            if fraction > break_at:
                raise BrokenOffError

    draws = {name: Pool([discs(seed)], seed, PLACE.device).draw for seed, name in enumerate("ab")}
    held = {name: [discs(9)] for name in draws}

    def work(stage: Stage) -> dict[str, object]:
        return learn(stage, PLACE, small_spec(), draws, held, PLAN, steps=6, seed=0)

    stages = Stages(folder, progress=Breaking())
    return Learned.from_document(stages.run("network", {}, work))


def test_it_goes_on_from_its_last_look_to_the_same_network(tmp_path):
    with one_thread():
        whole = train(tmp_path / "whole")
        with pytest.raises(BrokenOffError):
            train(tmp_path / "broken", break_at=0.9)
        resumed = train(tmp_path / "broken")
    assert resumed.backbone.sha256 == whole.backbone.sha256
    assert resumed.losses == whole.losses
    assert resumed.looks == whole.looks
    assert [state.sha256 for state in resumed.states.values()] == [
        state.sha256 for state in whole.states.values()
    ]
    assert [step for step, _ in whole.looks] == [2, 4, 6]


def test_the_best_look_is_kept_and_a_start_is_looked_at_too(tmp_path):
    with one_thread():
        whole = train(tmp_path)
        start = (whole.backbone, {"a": whole.states["a"]})
        draws, held = {"a": Pool([discs(0)], 0, PLACE.device).draw}, {"a": [discs(9)]}

        def work(stage: Stage) -> dict[str, object]:
            plan = Learning(2, 2, batch=4, rate=10.0, warm_up=0, look_every=1, stride=1)
            return learn(
                stage, PLACE, small_spec(), draws, held, plan, steps=2, seed=0, start=start
            )

        tuned = Learned.from_document(Stages(tmp_path).run("tuned", {}, work))
    assert [step for step, _ in tuned.looks] == [0, 1, 2]
    assert tuned.looks[0][1] == max(dice for _, dice in tuned.looks)
    assert tuned.backbone.sha256 == whole.backbone.sha256
