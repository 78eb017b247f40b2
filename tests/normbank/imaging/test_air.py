"""Whatever a file stores as air reads 0; scans in order stay as they are."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from normbank.imaging.air import zero_air
from simulate import SCANNERS, scan
from simulate.phantom import draw_head, head_affine

SHAPE = (64, 72, 64)
Volume = npt.NDArray[np.float32]


@cache
def head() -> tuple[Volume, npt.NDArray[np.bool_]]:
    """A drawn scan with noise as air, and where its head is."""
    labels = draw_head(1, SHAPE, 3.0)
    drawn = scan(labels, head_affine(SHAPE, 3.0), SCANNERS["d1-t1w-3t"], 1)
    return (1000 * drawn.data / drawn.data.max()).astype(np.float32), drawn.labels > 0


def stripped() -> Volume:
    data, inside = head()
    return np.where(inside, data + 50, 0).astype(np.float32)


def zeroed(data: Any) -> tuple[Volume, int]:
    data = np.asfortranarray(data, np.float32)
    result = zero_air(data, float(data.max()))
    return result.data, len(result.flags)


@pytest.mark.parametrize("data", [head()[0], stripped(), head()[0] / 4000, head()[0] - 3])
def test_a_scan_in_order_is_left_alone(data: Volume) -> None:
    data = np.asfortranarray(data)
    result = zero_air(data, float(data.max()))
    assert result.data is data
    assert result.flags == ()


@pytest.mark.parametrize("offset", [-1024, 500, 3000])
def test_an_offset_is_taken_away(offset: float) -> None:
    data, flags = zeroed(head()[0] + offset)
    assert flags == 1
    assert np.abs(data - head()[0]).max() < 25
    assert data.min() == 0


def test_z_scores_of_the_whole_volume_have_air_at_0() -> None:
    data, flags = zeroed((stripped() - 200) / 150)
    assert flags == 1
    assert np.allclose(data * 150, stripped(), atol=0.01)


def test_tissue_darker_than_constant_air_is_raised_above_it() -> None:
    plain, inside = stripped(), head()[1]
    mean, spread = plain[inside].mean(), plain[inside].std()
    data, flags = zeroed(np.where(inside, (plain - mean) / spread, 0))
    assert flags == 1
    assert (data[~inside] == 0).all()
    assert data.min() == 0
    order = np.argsort(plain[inside])
    assert (np.diff(data[inside][order]) >= 0).all()  # the contrast stays


def test_quotients_around_0_with_noise_as_air_are_shifted() -> None:
    plain, inside = head()
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, plain.shape)
    data, flags = zeroed(np.where(inside, plain / 1000 - 0.5, noise))
    assert flags == 1
    assert data.min() == 0
    assert np.allclose(data[inside], plain[inside] / 1000, atol=0.01)


def test_salt_and_pepper_from_0_on_is_left_alone() -> None:
    plain, inside = head()
    noise = np.random.default_rng(0).uniform(0, 1000, plain.shape)
    assert zeroed(np.where(inside, plain, noise))[1] == 0


def test_air_that_wrapped_around_is_air_again() -> None:
    plain, inside = head()
    wrapped = ~inside & (np.random.default_rng(0).random(plain.shape) < 0.3)
    data, flags = zeroed(np.where(wrapped, 32767, plain))
    assert flags == 1
    assert data[wrapped].max() <= 1
    assert np.array_equal(data[~wrapped], plain[~wrapped])


def test_tissue_that_is_saturated_is_not_air() -> None:
    assert zeroed(np.minimum(head()[0], 400))[1] == 0


def test_one_huge_voxel_does_not_dwarf_the_rest() -> None:
    plain = head()[0].copy()
    plain[20, 20, 20] = 1e30
    data, flags = zeroed(plain)
    assert flags == 1
    assert data.max() < 20_000
    assert np.array_equal(data[0], head()[0][0])
