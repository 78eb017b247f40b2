"""What a network names in a few slices tells a brain from what only looks like one."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from models.spec import BackboneSpec
from normbank.anatomy import STRUCTURES, labels_to_classes
from normbank.entities import DomainState
from normbank.imaging.brain import NetworkSpace, SlicePredictor
from normbank.imaging.scan import Scan
from pipeline.identify.looks import Looker
from simulate.phantom import draw_head, head_affine

SHAPE = (176, 208, 200)
SPACE = BackboneSpec(name="painted", classes=STRUCTURES)
STATE = DomainState("d", 1, "s", "b", None, {}, {}, None, None, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture(scope="module")
def painted() -> Scan:
    """A head whose brightness is its class number, and dim around the brain."""
    labels = draw_head(1, SHAPE)
    inner = np.where(labels >= 500, 0, labels).astype(np.int32)
    bright = labels_to_classes(inner, "freesurfer", STRUCTURES).astype(np.float32)
    bright[labels >= 500] = 0.3
    return Scan(bright, head_affine(SHAPE))


def reader(state: DomainState) -> tuple[SlicePredictor, NetworkSpace]:
    """A network that needs no learning: the brightest is the last class, the rest in proportion."""

    def predict(slices: np.ndarray, *, consecutive: bool = False) -> np.ndarray:
        return np.rint(slices / slices.max() * (len(STRUCTURES) - 1)).astype(np.uint8)

    return predict, SPACE


def test_a_head_in_its_place_is_a_brain(painted: Scan) -> None:
    anatomy = Looker(painted, reader).anatomy(STATE)
    assert anatomy is not None
    assert anatomy.is_brain
    assert anatomy.misplaced_mm < 12


def test_the_same_structures_in_other_places_are_none(painted: Scan) -> None:
    shuffled = painted.data.copy()
    shuffled[:, 40:160] = shuffled[:, 40:160][:, ::-1]
    shuffled = shuffled[:, :, ::-1]
    anatomy = Looker(Scan(shuffled, painted.affine), reader).anatomy(STATE)
    assert anatomy is not None
    assert not anatomy.is_brain


def test_a_mask_is_saturated_and_a_head_is_not(painted: Scan) -> None:
    mask = Scan((painted.data > 0).astype(np.float32), painted.affine)
    assert Looker(mask, reader).saturated()
    noisy = painted.data + np.random.default_rng(0).random(painted.shape, np.float32)
    assert not Looker(Scan(noisy, painted.affine), reader).saturated()


def test_nothing_is_said_where_no_network_can_be_asked(painted: Scan) -> None:
    assert Looker(painted, lambda _state: None).anatomy(STATE) is None
    few = replace(SPACE, classes=("background", "thalamus"))
    assert Looker(painted, lambda state: (reader(state)[0], few)).anatomy(STATE) is None


def test_an_empty_scan_shows_no_brain() -> None:
    anatomy = Looker(Scan(np.zeros(SHAPE, np.float32), np.eye(4)), reader).anatomy(STATE)
    assert anatomy is not None
    assert not anatomy.is_brain
