"""What is done is not done again; what was begun goes on."""

from __future__ import annotations

import pytest
import torch

from experiments.kit.stages import OutOfTimeError, Stage, Stages, digest


def test_a_finished_stage_is_read_and_not_repeated(tmp_path):
    calls = []

    def work(_stage: Stage) -> dict[str, object]:
        calls.append(1)
        return {"rows": torch.arange(3), "name": "a", "nested": [{"x": 1.5}]}

    first = Stages(tmp_path)
    made = first.run("one", {"seed": 0}, work)
    second = Stages(tmp_path)
    read = second.run("one", {"seed": 0}, work)
    assert calls == [1]
    assert torch.equal(made["rows"], read["rows"])
    assert read["nested"] == [{"x": 1.5}]
    assert first.fresh == ["one"]
    assert second.fresh == []


def test_other_settings_are_another_stage(tmp_path):
    stages = Stages(tmp_path)
    for seed in (0, 1):
        stages.run("one", {"seed": seed}, lambda _stage, seed=seed: {"seed": seed})
    assert stages.run("one", {"seed": 0}, lambda _stage: {})["seed"] == 0
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 1, "b": 3})


def count_to(stage: Stage, last: int, stop_at: int | None = None) -> dict[str, object]:
    counted = list(stage.unfinished["counted"]) if stage.unfinished else []
    while len(counted) < last:
        counted.append(len(counted))
        stage.keep({"counted": counted})
        if len(counted) == stop_at:
            raise KeyboardInterrupt
    return {"counted": counted}


def test_a_stage_that_was_killed_goes_on_where_it_was(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        Stages(tmp_path).run("count", {}, lambda stage: count_to(stage, 4, stop_at=3))
    seen = []

    def resumed(stage: Stage) -> dict[str, object]:
        assert stage.unfinished is not None
        seen.append(stage.unfinished["counted"])
        return count_to(stage, 4)

    assert Stages(tmp_path).run("count", {}, resumed) == {"counted": [0, 1, 2, 3]}
    assert seen == [[0, 1, 2]]
    assert not list(tmp_path.glob("*unfinished*"))


def test_a_budget_ends_the_run_and_keeps_what_is_done(tmp_path):
    stages = Stages(tmp_path, budget_s=-1)
    with pytest.raises(OutOfTimeError):
        stages.run("one", {}, lambda _stage: {})
    with pytest.raises(OutOfTimeError):
        Stages(tmp_path, budget_s=-1).run("one", {}, lambda _stage: {})
    assert Stages(tmp_path).run("one", {}, lambda _stage: {"a": 1}) == {"a": 1}
    assert Stages(tmp_path, budget_s=-1).run("one", {}, lambda _stage: {}) == {"a": 1}


def test_a_stage_pauses_once_its_work_is_kept(tmp_path):
    stages = Stages(tmp_path, budget_s=0.05)

    def slowly(stage: Stage) -> dict[str, object]:
        for turn in range(1_000_000):
            stage.keep({"turn": turn})
        return {}

    with pytest.raises(OutOfTimeError):
        stages.run("slow", {}, slowly)
    taken_up = Stages(tmp_path).run("slow", {}, lambda stage: dict(stage.unfinished or {}))
    assert taken_up["turn"] >= 0
