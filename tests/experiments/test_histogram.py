"""Matching brings a scan's foreground to a domain's average histogram."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.table2.histogram import FOREGROUND, average_histogram, matched
from models.cases import LabelledSlices


def a_case(seed: int, low: float, high: float) -> LabelledSlices:
    random = np.random.default_rng(seed)
    images = random.uniform(low, high, (4, 32, 32)).astype(np.float32)
    images[:, :8] = 0.02  # air
    return LabelledSlices(images, np.zeros(images.shape, np.uint8), np.ones(2, bool))


def test_the_foreground_gets_the_average_histogram():
    histogram = average_histogram([a_case(seed, 0.5, 0.9) for seed in range(3)])
    found = matched(a_case(9, 0.2, 1.6), histogram)
    inside = found.images[found.images > FOREGROUND]
    percentiles = np.percentile(inside, [1, 25, 50, 75, 99])
    assert percentiles == pytest.approx([0.504, 0.6, 0.7, 0.8, 0.896], abs=0.01)


def test_air_is_left_alone_and_the_order_is_kept():
    case = a_case(9, 0.2, 1.6)
    found = matched(case, average_histogram([a_case(0, 0.5, 0.9)]))
    assert np.array_equal(found.images[:, :8], case.images[:, :8])
    order = np.argsort(case.images[:, 8:].ravel())
    assert (np.diff(found.images[:, 8:].ravel()[order]) >= 0).all()


def test_a_scan_keeps_its_own_histogram():
    case = a_case(9, 0.2, 1.6)
    found = matched(case, average_histogram([case]))
    assert np.abs(found.images - case.images).max() < 0.01


def test_every_scan_has_the_same_weight():
    small = a_case(0, 0.5, 0.6)
    large = a_case(1, 1.5, 1.6)
    large = LabelledSlices(
        np.repeat(large.images, 4, 0), np.repeat(large.classes, 4, 0), large.annotated
    )
    histogram = average_histogram([small, large])
    middle = len(histogram) // 4  # between the two
    assert histogram[:middle].sum() == pytest.approx(0.5)
    assert histogram.sum() == pytest.approx(1)
