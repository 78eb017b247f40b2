"""Intervals that hold the mean, and NaN that does not count."""

from __future__ import annotations

import math

import pytest

from experiments.kit.statistics import summary


def test_a_summary_holds_what_it_says():
    one = summary([0.1 * value for value in range(11)])
    assert one.n == 11
    assert one.mean == pytest.approx(0.5)
    assert one.median == pytest.approx(0.5)
    assert (one.p5, one.p95) == (pytest.approx(0.05), pytest.approx(0.95))
    assert one.p5 < one.low < 0.5 < one.high < one.p95


def test_nan_does_not_count():
    assert summary([0.5, math.nan, 0.7]).mean == pytest.approx(0.6)
    assert summary([math.nan]).n == 0
    assert math.isnan(summary([]).mean)


def test_the_same_values_give_the_same_interval():
    assert summary([0.2, 0.4, 0.9]) == summary([0.2, 0.4, 0.9])
