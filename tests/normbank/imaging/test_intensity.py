"""Intensities on a common scale."""

import numpy as np
import pytest

from normbank.errors import EmptyScanError
from normbank.imaging.intensity import divide_by_percentile


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
