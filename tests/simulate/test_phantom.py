import numpy as np
import pytest

from simulate.phantom import SMALL_SHAPE, SMALL_SPACING_MM, draw_head, head_affine
from simulate.tissue import brain_mask, tissue_of

PAIRS = ((2, 41), (3, 42), (4, 43), (7, 46), (8, 47), (10, 49), (11, 50), (12, 51), (13, 52))
MORE_PAIRS = ((17, 53), (18, 54), (26, 58), (28, 60))
HEAD = (506, 507, 509, 511, 512, 515, 516)


@pytest.fixture(scope="module")
def head() -> np.ndarray:
    return draw_head(1, SMALL_SHAPE, SMALL_SPACING_MM)


def test_the_seed_decides(head: np.ndarray) -> None:
    np.testing.assert_array_equal(head, draw_head(1, SMALL_SHAPE, SMALL_SPACING_MM))
    assert (head != draw_head(2, SMALL_SHAPE, SMALL_SPACING_MM)).any()


def test_every_structure_and_head_tissue_is_there(head: np.ndarray) -> None:
    wanted = {i for pair in (*PAIRS, *MORE_PAIRS) for i in pair} | {14, 15, 16, 24, *HEAD}

    assert wanted <= set(np.unique(head))
    tissue_of(head)


@pytest.mark.parametrize(("left", "right"), [*PAIRS, *MORE_PAIRS])
def test_left_lies_left_and_is_as_large_as_right(head: np.ndarray, left: int, right: int) -> None:
    middle = (SMALL_SHAPE[0] - 1) / 2
    x_left, x_right = (np.argwhere(head == i)[:, 0] for i in (left, right))

    assert (x_left < middle).mean() > 0.95
    assert (x_right > middle).mean() > 0.95
    assert 0.7 < len(x_left) / len(x_right) < 1.4


def test_the_brain_has_a_persons_size(head: np.ndarray) -> None:
    brain = brain_mask(head) & ~np.isin(head, (16,))
    extent = (np.ptp(np.argwhere(brain), axis=0) + 1) * SMALL_SPACING_MM

    np.testing.assert_allclose(extent, (142, 182, 142), atol=16)
    assert 1.0e6 < brain.sum() * SMALL_SPACING_MM**3 < 2.1e6


def test_the_head_leaves_air_on_both_sides(head: np.ndarray) -> None:
    assert not head[0].any()
    assert not head[-1].any()
    assert not head[:, :, -1].any()


def test_a_finer_grid_shows_the_same_head() -> None:
    coarse = draw_head(4, (20, 25, 25), 9.0)
    fine = draw_head(4, (60, 75, 75), 3.0)

    agree = (coarse > 0) == (fine[1::3, 1::3, 1::3] > 0)
    assert agree.mean() > 0.98
    np.testing.assert_allclose(
        head_affine((60, 75, 75), 3.0) @ (1, 1, 1, 1), head_affine((20, 25, 25), 9.0)[:, 3]
    )
