"""Heads turned upright, and labels turned back."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from normbank.imaging.upright import Upright
from simulate.phantom import draw_head

SHAPE, SPACING_MM = (80, 92, 84), 2.5


@pytest.mark.parametrize("angle", [20.0, 45.0, 90.0])
@pytest.mark.parametrize("axis", "xyz")
def test_labels_come_back_to_where_they_were(axis: str, angle: float) -> None:
    labels = np.where((head := draw_head(1, SHAPE, SPACING_MM)) < 500, head, 0).astype(np.uint8)
    centre = np.argwhere(labels).mean(0)
    upright = Upright.of(Rotation.from_euler(axis, angle, degrees=True), centre, SPACING_MM)
    there = np.stack([upright.turn((labels == n).astype(np.float32)) for n in (2, 41, 10)])
    turned = np.select(list(there > 0.5), [2, 41, 10], 0).astype(np.uint8)
    back = upright.turn_back(turned, SHAPE)
    for number in (2, 41, 10):
        ours, theirs = back == number, labels == number
        assert 2 * (ours & theirs).sum() / (ours.sum() + theirs.sum()) > 0.88


def test_a_head_that_was_turned_lies_upright_again() -> None:
    volume = np.zeros((60, 60, 60), np.float32)
    volume[28:33, 30:50, 28:33] = 1  # a nose, to the front
    rotation = Rotation.from_euler("z", 90, degrees=True)
    upright = Upright.of(rotation.inv(), np.array([30.0, 30.0, 30.0]), 4.0)
    turned = upright.turn(volume)
    places = np.argwhere(turned > 0.5) - (np.array(upright.shape) - 1) / 2
    assert np.abs(places[:, 1:]).max() < 4
    assert np.abs(places[:, 0]).max() > 15  # a quarter turn on
    assert len(places) > 400


def test_nothing_stays_nothing() -> None:
    upright = Upright.of(Rotation.from_euler("x", 30, degrees=True), np.full(3, 20.0), 4.0)
    assert not upright.turn_back(np.zeros(upright.shape, np.uint8), (40, 40, 40)).any()
