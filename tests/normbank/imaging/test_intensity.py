"""Intensities on a common scale."""

import numpy as np
import pytest

from normbank.errors import EmptyScanError
from normbank.imaging.intensity import (
    divide_by_percentile,
    intensity_unit,
    percentile_of_greatest,
)


def test_the_percentile_becomes_one_and_nothing_is_clipped():
    volume = np.arange(1001, dtype=np.float32).reshape(7, 11, 13)
    found = divide_by_percentile(volume, 98.0)
    assert found.dtype == np.float32
    assert np.percentile(found, 98) == pytest.approx(1)
    assert found.max() > 1
    assert volume[-1, -1, -1] == 1000


def test_a_scanners_gain_does_not_matter():
    volume = np.random.default_rng(0).random((8, 9, 10)).astype(np.float32)
    np.testing.assert_allclose(
        divide_by_percentile(volume * 1e6), divide_by_percentile(volume), rtol=1e-5
    )


def test_a_small_head_in_a_large_field_is_scaled_by_its_own_voxels():
    volume = np.zeros((20, 20, 20), np.float32)
    volume[:3, :3, :3] = 5
    assert divide_by_percentile(volume).max() == pytest.approx(1)


def test_nothing_positive_is_an_empty_scan():
    for value in (0, -3):
        with pytest.raises(EmptyScanError):
            divide_by_percentile(np.full((4, 4, 4), value, np.float32))


@pytest.mark.parametrize("percent", [0.1, 50, 90, 98, 99.5, 100])
@pytest.mark.parametrize("kind", ["fine", "few values", "all alike", "mostly air", "signed"])
def test_a_percentile_is_numpys_to_the_last_bit(percent, kind):
    rng = np.random.default_rng(2)
    for size in (1, 2, 37, 4_000, 300_000):
        volume = {
            "fine": rng.random(size) * 1000,
            "few values": rng.integers(0, 5, size),
            "all alike": np.full(size, 3.3),
            "mostly air": np.where(rng.random(size) < 0.97, 0, rng.random(size)),
            "signed": rng.normal(0, 5, size),
        }[kind].astype(np.float32)
        found = percentile_of_greatest(volume, size, percent)
        assert found == float(np.percentile(volume, percent))
        positive = volume[volume > 0]
        if positive.size:
            found = percentile_of_greatest(volume, positive.size, percent)
            assert found == float(np.percentile(positive, percent))


def test_how_a_volume_lies_in_memory_does_not_matter():
    volume = np.random.default_rng(3).random((20, 30, 40)).astype(np.float32)
    expected = intensity_unit(volume)
    assert intensity_unit(np.asfortranarray(volume)) == expected
    assert intensity_unit(volume[::-1, :, ::-1].transpose(2, 0, 1)) == expected
