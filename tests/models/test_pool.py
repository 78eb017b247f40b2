"""Older backbones: known by name, loaded when needed, left out where they are broken."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from models.backbone import Backbone, load_backbone, read_label
from models.pool import BackbonePool, UnknownBackboneError
from models.predict import Predictor
from tests.support.networks import random_state, save_tiny_backbone


class Maker:
    """Puts backbones on the CPU and remembers which."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self, backbone: Backbone) -> Predictor:
        self.made.append(backbone.sha256)
        return Predictor(backbone, device=torch.device("cpu"))


@pytest.fixture
def current(tmp_path: Path) -> Backbone:
    return save_tiny_backbone(tmp_path / "v1", (), seed=1)


@pytest.fixture
def older(tmp_path: Path) -> Backbone:
    return save_tiny_backbone(tmp_path / "v0", (), window=(40, 48, 32))


def flip_last_bit(folder: Path) -> None:
    path = folder / "backbone.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_an_older_backbone_is_named_at_once_and_loaded_once_when_needed(
    current: Backbone, older: Backbone, tmp_path: Path
) -> None:
    make = Maker()
    pool = BackbonePool(current, [tmp_path / "v0", tmp_path / "v1"], make)
    assert make.made == [current.sha256]
    spec = pool.spec(older.sha256)
    assert spec == older.spec
    assert list(pool.loaded) == [current.sha256]
    first, second = pool.predictor(older.sha256), pool.predictor(older.sha256)
    assert first is second
    assert make.made == [current.sha256, older.sha256]
    assert list(pool.loaded) == make.made
    assert first.spec.window == (40, 48, 32)
    assert pool.current is pool.predictor(current.sha256) is not first


def test_what_an_older_backbone_answers_does_not_depend_on_the_shelf(
    current: Backbone, older: Backbone, tmp_path: Path
) -> None:
    slices = np.random.default_rng(0).random((6, 40, 48), np.float32)
    state = random_state(older, 5)

    def answer(predictor: Predictor) -> torch.Tensor:
        row = predictor.bank.add(state)
        return predictor.logits(slices[:4], np.full(4, row))

    alone = answer(Maker()(load_backbone(tmp_path / "v0")))
    pool = BackbonePool(current, [tmp_path / "v0"], Maker())
    pool.current.bank.add(random_state(current, 5))
    assert torch.equal(alone, answer(pool.predictor(older.sha256)))


@pytest.mark.parametrize("harm", ["missing", "text", "cut", "nameless"])
def test_a_folder_that_cannot_be_read_is_left_out_with_an_alarm(
    current: Backbone, older: Backbone, tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "v0" / "backbone.safetensors"
    if harm == "missing":
        file.unlink()
    else:
        data = file.read_bytes()
        changed = {"text": b"hello", "cut": data[:-100]}
        file.write_bytes(changed.get(harm, data.replace(b'"sha256"', b'"sha255"')))
    good = save_tiny_backbone(tmp_path / "good", (), seed=3)
    with caplog.at_level(logging.ERROR):
        pool = BackbonePool(current, [tmp_path / "v0", tmp_path / "good"], Maker())
    assert [record.message[:6] for record in caplog.records] == ["ALARM:"]
    assert pool.spec(older.sha256) is None
    with pytest.raises(UnknownBackboneError):
        pool.predictor(older.sha256)
    assert pool.predictor(good.sha256).spec == good.spec


def test_a_backbone_that_is_not_what_its_file_says_is_taken_off_when_it_is_needed(
    current: Backbone, older: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    flip_last_bit(tmp_path / "v0")
    assert read_label(tmp_path / "v0")[0] == older.sha256
    pool = BackbonePool(current, [tmp_path / "v0"], Maker())
    assert pool.spec(older.sha256) is not None
    for _ in range(2):
        with pytest.raises(UnknownBackboneError):
            pool.predictor(older.sha256)
    assert pool.spec(older.sha256) is None
    assert sum("ALARM" in record.message for record in caplog.records) == 1
