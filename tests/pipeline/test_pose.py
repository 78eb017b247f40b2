"""Heads that are turned, seen upright; halves; and what is no anatomy."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from normbank.anatomy import answered_ids
from normbank.entities import Severity
from normbank.imaging.metrics import dice
from pipeline.pose import find_pose
from pipeline.segment import SegmentedScan, segment_scan
from tests.support.painted import (
    MIDDLE,
    SPACE,
    SPACING_MM,
    STRUCTURES,
    nearest_only,
    painted_brain,
    read_classes,
    scan_of,
    turned,
)

BRAIN = painted_brain()


@pytest.fixture(autouse=True)
def _sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    nearest_only(monkeypatch)


def answer(classes: npt.NDArray[np.uint8], *, look_around: bool = True) -> SegmentedScan:
    return segment_scan(scan_of(classes), read_classes, SPACE, look_around=look_around)


def severe(segmented: SegmentedScan) -> set[str]:
    return {flag.code for flag in segmented.flags if flag.severity is Severity.SEVERE}


def dices(segmented: SegmentedScan, classes: npt.NDArray[np.uint8]) -> list[float]:
    """Of the larger structures, both sides together."""
    values = []
    for name in ("thalamus", "putamen", "cerebellum-gm", "brain-stem"):
        ids = answered_ids(name)
        assert ids is not None
        ours = np.isin(segmented.ids, (ids.left, ids.right))
        values.append(dice(ours, classes == STRUCTURES.index(name)) or 0.0)
    return values


def test_a_brain_that_lies_upright_is_left_as_it_lies() -> None:
    segmented = answer(BRAIN)
    assert severe(segmented) == set()
    assert segmented.quality["turned_deg"] < 3
    assert "pose" not in {flag.code for flag in segmented.flags}
    assert np.array_equal(segmented.ids, answer(BRAIN, look_around=False).ids)


@pytest.mark.parametrize(("axis", "angle"), [("x", 30), ("y", 45), ("z", 45)])
def test_a_turned_head_is_found_and_its_labels_come_back(axis: str, angle: float) -> None:
    there = turned(BRAIN, Rotation.from_euler(axis, angle, degrees=True))
    segmented = answer(there)
    assert severe(segmented) == set()
    assert segmented.quality["turned_deg"] == pytest.approx(angle, abs=3)
    assert "pose" in {flag.code for flag in segmented.flags}
    assert min(dices(segmented, there)) > 0.85


def test_a_head_that_nobody_could_lie_like_is_answered_and_held_back() -> None:
    there = turned(BRAIN, Rotation.from_euler("x", 180, degrees=True))
    segmented = answer(there)
    assert severe(segmented) == {"orientation_contradicted"}
    assert min(dices(segmented, there)) > 0.85


@pytest.mark.parametrize("angles", [(0, 0, 0), (40, 0, 0), (100, -20, 30)])
def test_the_pose_is_found_without_any_guess(angles: tuple[float, float, float]) -> None:
    rotation = Rotation.from_euler("xyz", angles, degrees=True)
    volume = scan_of(turned(BRAIN, rotation)).data
    pose = find_pose(volume, read_classes, SPACE, None)
    assert pose is not None
    assert np.degrees((pose.rotation * rotation.inv()).magnitude()) < 4
    assert np.allclose(pose.centre_mm, MIDDLE * SPACING_MM, atol=4)


def test_a_head_that_was_turned_a_little_wrong_says_so_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rotation = Rotation.from_euler("x", 30, degrees=True)
    there = turned(BRAIN, rotation)
    off = Rotation.from_euler("x", 46, degrees=True)
    found = find_pose(scan_of(there).data, read_classes, SPACE, None)
    assert found is not None
    wrong = replace(found, rotation=off)
    monkeypatch.setattr("pipeline.answer.find_pose", lambda *_: wrong)
    flags = [flag for flag in answer(there).flags if flag.code == "pose"]
    assert [flag.severity for flag in flags] == [Severity.INFO]


def test_where_no_view_shows_a_brain_there_is_no_pose() -> None:
    noise = np.random.default_rng(0).random(BRAIN.shape).astype(np.float32)
    assert find_pose(noise, read_classes, SPACE, None) is None


@pytest.mark.parametrize("side", ["left", "right"])
def test_half_a_head_has_the_labels_of_its_side_alone(side: str) -> None:
    half = BRAIN.copy()
    middle = BRAIN.shape[0] // 2
    half[slice(middle, None) if side == "left" else slice(None, middle)] = 0
    segmented = answer(half)
    assert "half_head" in {flag.code for flag in segmented.flags}
    for name in ("thalamus", "putamen", "cerebral-gm"):
        ids = answered_ids(name)
        assert ids is not None
        mine, other = (ids.left, ids.right) if side == "left" else (ids.right, ids.left)
        assert (segmented.ids == mine).any()
        assert not (segmented.ids == other).any()


def test_a_brain_too_small_is_no_brain() -> None:
    scan = scan_of(BRAIN)
    tiny = type(scan)(scan.data, np.diag([SPACING_MM * 0.6] * 3 + [1.0]))
    space = type(SPACE)(**{**vars(SPACE), "spacing_mm": SPACING_MM * 0.6})
    assert "implausible_volume" in severe(segment_scan(tiny, read_classes, space))
