"""What the API says of a version, as a person reads it."""

from __future__ import annotations

import io

from rich.console import Console

from cli.output.adaptation import scored_version
from cli.output.tables import dice_table, probe_table, volumes_table

VERSION = {
    "number": 2,
    "parent": "b@1",
    "before": {"mean_dice": 0.5, "dice": {"thalamus": {"mean": 0.5, "cases": [0.5, None]}}},
    "after": {
        "mean_dice": 0.75,
        "dice": {"thalamus": {"mean": 0.75}, "caudate": {"mean": None}, "putamen": {"mean": 0.9}},
    },
    "candidates": [{"state": "a@1", "dice": 0.3}, {"state": "b@1", "dice": 0.4}],
}


def text_of(table) -> list[list[str]]:
    stream = io.StringIO()
    Console(file=stream, width=120).print(table)
    rows = [line.strip()[1:-1].split("│") for line in stream.getvalue().splitlines()]
    return [[cell.strip() for cell in row] for row in rows if len(row) > 1]


def test_the_best_candidate_comes_first_and_the_start_is_marked():
    assert text_of(probe_table(VERSION)) == [["b@1", "0.400", "start"], ["a@1", "0.300", ""]]


def test_dice_stands_before_and_after_with_its_change():
    assert text_of(dice_table(VERSION)) == [
        ["thalamus", "0.500", "0.750", "+0.250"],
        ["putamen", "–", "0.900", "–"],
        ["mean (judged)", "0.500", "0.750", "+0.250"],
    ]


def test_an_initial_version_has_no_scores_and_says_so():
    initial = {"number": 1, "parent": None, "before": None, "after": None, "candidates": []}
    assert text_of(dice_table(initial)) == [["mean (judged)", "–", "–", "–"]]


def test_the_version_a_job_made_is_found_and_none_is_invented():
    metrics = {"versions": [{"number": 1}, {"number": 2}]}
    assert scored_version(metrics, {"version": 2}) == {"number": 2}
    assert scored_version(metrics, {}) is None


def test_both_sides_of_a_structure_share_a_row_in_millilitres():
    volumes = {"left-hippocampus": 4000.0, "right-hippocampus": 3000.0, "brain-stem": 21000.0}
    assert text_of(volumes_table("x", volumes)) == [
        ["hippocampus", "4.0", "3.0", "7.0"],
        ["brain-stem", "–", "–", "21.0"],
    ]
