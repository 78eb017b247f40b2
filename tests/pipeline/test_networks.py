"""Stored bytes become states on a device, or are refused in one way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from models.state import State
from normbank.config import Settings
from normbank.entities import DomainState
from normbank.errors import ConflictError, StateError
from pipeline.networks import Networks, load_current
from tests.support.networks import one_thread, random_state, save_tiny_backbone


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    save_tiny_backbone(tmp_path / "tiny", ["plain"])
    return Settings(
        backbone_dir=tmp_path / "tiny",
        older_backbone_dirs=(),
        backend="eager",
        precision="float32",
        threads=1,
    )


@pytest.fixture
def networks(settings: Settings) -> Networks:
    return Networks.open(settings)


def version_of(state: State, number: int = 1) -> DomainState:
    now = datetime.now(UTC)
    return DomainState(
        "ward-7", number, state.sha256, state.backbone, None, {}, {}, None, None, now
    )


def test_a_state_has_one_slot_however_often_it_is_asked_for(networks: Networks) -> None:
    states = [random_state(networks.backbone, seed) for seed in (1, 2)]
    stored = {state.sha256: state.to_bytes() for state in states}
    read: list[str] = []

    def bytes_of(sha256: str) -> bytes:
        read.append(sha256)
        return stored[sha256]

    first, second, again = (
        networks.place(version_of(state), bytes_of) for state in (states[0], states[1], states[0])
    )
    assert first == again
    assert first.row != second.row
    assert read == [state.sha256 for state in states]


def test_bytes_that_are_not_what_the_row_says_are_refused(networks: Networks) -> None:
    state, other = (random_state(networks.backbone, seed) for seed in (1, 2))
    for data in (other.to_bytes(), state.to_bytes()[:-3], b""):
        with pytest.raises(StateError, match="ward-7@1 is refused"):
            networks.load(version_of(state), lambda _sha256, data=data: data)  # type: ignore[misc]
        with pytest.raises(StateError):
            networks.place(version_of(state), lambda _sha256, data=data: data)  # type: ignore[misc]
    assert len(networks.current.bank) == 0


def test_a_backbone_that_cannot_be_served_says_which_one_is(
    networks: Networks, tmp_path: Path
) -> None:
    elsewhere = save_tiny_backbone(tmp_path / "other", [], seed=9)
    state = random_state(elsewhere, 1)
    with pytest.raises(ConflictError) as refused:
        networks.load(version_of(state), lambda _sha256: state.to_bytes())
    assert refused.value.code == "other_backbone"
    assert refused.value.facts == {"backbone": networks.backbone.sha256}


def test_an_older_backbone_answers_for_its_states(settings: Settings, tmp_path: Path) -> None:
    older = save_tiny_backbone(tmp_path / "older", [], seed=9)
    networks = Networks.open(
        settings.model_copy(update={"older_backbone_dirs": (tmp_path / "older",)})
    )
    state = random_state(older, 1)
    version = version_of(state)
    assert networks.load(version, lambda _sha256: state.to_bytes()).sha256 == state.sha256
    slices = np.random.default_rng(0).random((3, 48, 56), np.float32)
    ours = networks.predict_with(state)(slices)
    alone = Networks.open(settings.model_copy(update={"backbone_dir": tmp_path / "older"}))
    np.testing.assert_array_equal(ours, alone.predict_with(state)(slices))


def test_slices_are_counted_before_they_are_computed(networks: Networks) -> None:
    counted: list[int] = []
    predict = networks.predict_with(random_state(networks.backbone, 1), on_slices=counted.append)
    predict(np.zeros((6, 48, 56), np.float32))
    assert sum(counted) == 6


def test_the_backbone_that_was_loaded_already_is_not_loaded_again(settings: Settings) -> None:
    backbone = load_current(settings)
    assert Networks.open(settings, backbone).backbone is backbone
