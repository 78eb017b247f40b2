from __future__ import annotations

import numpy as np
import pytest

from normbank.imaging.metrics import dice, dice_by_structure, hd95_mm

SPACING = (1.0, 2.0, 0.5)


def ball(centre: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    axes = (np.arange(n) * s for n, s in zip((40, 20, 80), SPACING, strict=True))
    grid = np.meshgrid(*axes, indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre, strict=True)) <= radius_mm**2


def test_dice_of_equal_half_and_disjoint_masks() -> None:
    a = np.zeros((4, 4, 4), bool)
    a[:2] = True
    b = np.zeros_like(a)
    b[1:3] = True
    assert dice(a, a) == 1.0
    assert dice(a, b) == 0.5
    assert dice(a, ~a) == 0.0


def test_hausdorff_distance_is_in_mm_along_every_axis() -> None:
    a = ball((20, 20, 20), 8)
    assert hd95_mm(a, a, SPACING) == 0
    for shift in ((3.0, 0, 0), (0, 4.0, 0), (0, 0, 2.5)):
        moved = ball(tuple(c + s for c, s in zip((20, 20, 20), shift, strict=True)), 8)
        assert hd95_mm(a, moved, SPACING) == pytest.approx(max(shift), abs=1.0)


def test_hausdorff_distance_of_nested_balls_is_their_gap() -> None:
    a, b = ball((20, 20, 20), 6), ball((20, 20, 20), 10)
    assert hd95_mm(a, b, SPACING) == pytest.approx(4, abs=1.0)


def test_empty_masks_follow_the_published_rules() -> None:
    a, none = ball((20, 20, 20), 8), np.zeros((40, 20, 80), bool)
    assert dice(none, none) is None
    assert hd95_mm(none, none, SPACING) is None
    assert dice(a, none) == 0
    assert hd95_mm(a, none, SPACING) == pytest.approx(np.linalg.norm((40, 40, 40)))


def test_a_group_is_all_its_members_and_what_is_in_neither_has_no_dice() -> None:
    classes = ("background", "lateral-ventricle", "third-ventricle", "thalamus")
    reference = np.array([[[1, 1, 2, 2, 0, 0]]], np.uint8)
    answer = np.array([[[1, 2, 2, 0, 0, 0]]], np.uint8)
    found = dice_by_structure(answer, reference, classes, ("ventricles", "thalamus"))
    assert found == {"ventricles": pytest.approx(2 * 3 / 7), "thalamus": None}
