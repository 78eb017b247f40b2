"""Intervals that hold the mean, and NaN that does not count."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from experiments.kit.scoring import ScanScore
from experiments.kit.tables import markdown, number, score_columns, summary, write_csv
from normbank.anatomy import EVALUATED


def test_a_summary_holds_what_it_says():
    dice = summary([0.1 * value for value in range(11)])
    assert dice.n == 11
    assert dice.mean == pytest.approx(0.5)
    assert dice.median == pytest.approx(0.5)
    assert (dice.p5, dice.p95) == (pytest.approx(0.05), pytest.approx(0.95))
    assert dice.p5 < dice.low < 0.5 < dice.high < dice.p95


def test_nan_does_not_count():
    assert summary([0.5, math.nan, 0.7]).mean == pytest.approx(0.6)
    assert summary([math.nan]).n == 0
    assert math.isnan(summary([]).mean)


def test_the_same_values_give_the_same_interval():
    assert summary([0.2, 0.4, 0.9]) == summary([0.2, 0.4, 0.9])


def test_the_interval_is_that_of_resampled_scans():
    values = np.array([0.2, 0.4, 0.9, 0.7])
    picks = np.random.default_rng(0).integers(4, size=(2000, 4))
    low, high = np.percentile(values[picks].mean(1), [2.5, 97.5])
    dice = summary(values.tolist())
    assert (dice.low, dice.high) == (pytest.approx(low), pytest.approx(high))


def test_one_scan_is_its_own_interval():
    assert summary([0.5, math.nan])[:1] + summary([0.5])[1:] == (1, *[0.5] * 6)


def test_a_scan_whose_distances_were_not_measured_has_none():
    columns = score_columns(ScanScore("a", "b", (0.5,) * 7, (), "x"))
    assert list(columns) == [*EVALUATED, *(f"{name} HD95 mm" for name in EVALUATED)]
    assert columns["thalamus"] == 0.5
    assert math.isnan(columns["thalamus HD95 mm"])


def test_a_table_keeps_its_figures_as_they_are_written():
    lines = markdown([{"name": "a", "Dice": number(0.5)}, {"name": "b", "Dice": number(math.nan)}])
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines.splitlines()]
    assert cells[0] == ["name", "Dice"]
    assert cells[2:] == [["a", "0.500"], ["b", "–"]]
    assert cells[1][1].endswith("-:")


def test_a_file_of_scores_has_every_digit_and_no_nan(tmp_path):
    write_csv(tmp_path / "a.csv", pd.DataFrame({"a": [0.1 + 0.2, math.nan], "b": ["x", "y"]}))
    assert (tmp_path / "a.csv").read_text() == "a,b\n0.30000000000000004,x\n,y\n"
