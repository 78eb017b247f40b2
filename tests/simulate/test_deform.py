import numpy as np
import pytest

from simulate import NO_DEFORMATION, WIDE_DEFORMATION, Deformation, deform


@pytest.fixture
def ball() -> np.ndarray:
    x, y, z = np.indices((48, 56, 52))
    radius = np.sqrt((x - 24.0) ** 2 + (y - 28.0) ** 2 + (z - 26.0) ** 2)
    return ((radius < 14) * 2 + (radius < 7) * 15).astype(np.int32)


def test_no_deformation_returns_the_same_labels(ball: np.ndarray) -> None:
    np.testing.assert_array_equal(deform(ball, 0, NO_DEFORMATION), ball)


def test_the_seed_decides(ball: np.ndarray) -> None:
    first = deform(ball, 1)

    np.testing.assert_array_equal(first, deform(ball, 1))
    assert (first != deform(ball, 2)).any()


def test_no_new_labels_appear_and_none_is_lost(ball: np.ndarray) -> None:
    moved = deform(ball, 3, WIDE_DEFORMATION)

    assert set(np.unique(moved)) == {0, 2, 17}
    assert moved.dtype == ball.dtype


def test_a_deformed_ball_keeps_its_size_within_the_limits(ball: np.ndarray) -> None:
    volume = (deform(ball, 4) > 0).sum() / (ball > 0).sum()

    assert 0.6 < volume < 1.6


def test_the_shift_is_in_mm(ball: np.ndarray) -> None:
    only_shift = Deformation(0, 0, 0, shift_mm=8, bends=())

    fine = deform(ball, 5, only_shift)
    coarse = deform(ball, 5, only_shift, spacing_mm=(2.0, 2.0, 2.0))

    moved = [np.argwhere(v > 0).mean(0) - np.argwhere(ball > 0).mean(0) for v in (fine, coarse)]
    np.testing.assert_allclose(moved[0], 2 * moved[1], atol=1.01)
    assert np.abs(moved[0]).max() > 1


def test_what_comes_from_outside_is_air() -> None:
    full = np.full((20, 20, 20), 2, np.int16)

    moved = deform(full, 6, Deformation(0, 0, 0, shift_mm=15, bends=()))

    assert set(np.unique(moved)) == {0, 2}


def test_memory_order_does_not_matter(ball: np.ndarray) -> None:
    np.testing.assert_array_equal(deform(np.asfortranarray(ball), 7), deform(ball, 7))
