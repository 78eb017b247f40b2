"""A training that was broken off ends where it would have ended."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from experiments.kit.batches import SlicePool
from experiments.kit.recipes import Recipe, Training
from experiments.kit.stages import Stage, Stages, digest
from experiments.kit.training import Runtime, TrainedNetwork, train
from models.adapt import Tuning
from models.backbone import hash_network
from models.state import State
from tests.support.networks import discs, one_thread, small_backbone, small_spec

RUNTIME = Runtime(torch.device("cpu"), torch.float32)
TRAINING = Training(6, learning_rate=1e-2, warm_up=0, validate_every=2, slice_stride=1)


class BrokenOffError(Exception):
    pass


def trained(folder: Path, break_at: float = 2.0) -> TrainedNetwork:
    class Breaking:
        def begin(self, stage: str) -> None: ...
        def end(self, stage: str, seconds: float, fresh: bool) -> None: ...
        def on_progress(self, fraction: float, message: str) -> None:
            if fraction > break_at:
                raise BrokenOffError

    batches = {
        name: SlicePool([discs(seed)], seed, RUNTIME.device).draw for seed, name in enumerate("ab")
    }
    validation = {name: [discs(9)] for name in batches}

    def work(stage: Stage) -> dict[str, object]:
        return train(
            RUNTIME,
            small_spec(),
            batches,
            TRAINING,
            validation=validation,
            on_progress=stage.on_progress,
            checkpoints=stage,
        ).to_document()

    stages = Stages(folder, progress=Breaking())
    return TrainedNetwork.from_document(stages.run("network", {}, work))


def test_it_goes_on_from_its_last_validation_to_the_same_network(tmp_path):
    with one_thread():
        whole = trained(tmp_path / "whole")
        with pytest.raises(BrokenOffError):
            trained(tmp_path / "broken", break_at=0.9)
        resumed = trained(tmp_path / "broken")
    assert resumed.backbone.sha256 == whole.backbone.sha256
    assert resumed.losses == whole.losses
    assert resumed.history == whole.history
    assert [state.sha256 for state in resumed.states.values()] == [
        state.sha256 for state in whole.states.values()
    ]
    assert [step for step, _ in whole.history] == [2, 4, 6]


def test_the_best_network_is_kept_and_a_start_is_validated_too(tmp_path):
    with one_thread():
        whole = trained(tmp_path)
        start = (whole.backbone, {"a": whole.states["a"]})
        batches = {"a": SlicePool([discs(0)], 0, RUNTIME.device).draw}
        training = Training(2, learning_rate=10.0, warm_up=0, validate_every=1, slice_stride=1)

        def work(stage: Stage) -> dict[str, object]:
            return train(
                RUNTIME,
                small_spec(),
                batches,
                training,
                start=start,
                validation={"a": [discs(9)]},
                checkpoints=stage,
            ).to_document()

        tuned = TrainedNetwork.from_document(Stages(tmp_path).run("tuned", {}, work))
    assert [step for step, _ in tuned.history] == [0, 1, 2]
    assert tuned.history[0][1] == max(dice for _, dice in tuned.history)
    assert tuned.backbone.sha256 == whole.backbone.sha256


def test_a_fine_tuning_without_a_validation_set_takes_every_step_and_spares_its_start():
    backbone = small_backbone()
    start = (backbone, {"a": State.initial(small_spec(), backbone.sha256)})
    before = backbone.sha256
    batches = {"a": SlicePool([discs(0)], 0, RUNTIME.device).draw}
    with one_thread():
        result = train(RUNTIME, small_spec(), batches, TRAINING, start=start)
    assert len(result.last.losses) == 6
    assert result.history == []
    assert result.last.backbone.sha256 != before
    assert hash_network(backbone.network) == hash_network(small_backbone().network)


def test_stored_stages_are_found_under_the_words_they_were_stored_with():
    assert Training(3, crop=(4, 5)).stage_key() == {
        "steps": 3,
        "shared_steps": 3,
        "batch": 4,
        "rate": 2e-3,
        "warm_up": 30,
        "look_every": 100,
        "stride": 4,
        "crop": (4, 5),
    }
    assert digest(Recipe().stage_key()) == digest(asdict(Tuning()))
