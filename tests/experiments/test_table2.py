"""The smallest study from end to end, through the command that a reader types."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cli.main import app
from experiments.table2 import study as table2
from experiments.table2.design import CPU, NEW, OLD, SMOKE
from experiments.table2.results import read_paper
from experiments.table2.run import NoLabelMapsError, Table2Options, run_table2
from tests.support.networks import one_thread

ARGUMENTS = ["experiment", "table2", "--preset", "smoke", "--device", "cpu"]
SMALLEST = ["--precision", "float32", "--workers", "0"]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that its budget ended once and that was then finished."""
    out = tmp_path_factory.mktemp("table2")
    stopped = CliRunner().invoke(app, [*ARGUMENTS, *SMALLEST, "--out", str(out), "--budget-s", "0"])
    assert stopped.exit_code == 75, stopped.output
    assert "Run me again" in stopped.output
    assert not (out / "report.md").exists()
    result = CliRunner().invoke(app, [*ARGUMENTS, *SMALLEST, "--out", str(out)])
    assert result.exit_code == 0, result.output
    return out


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def table_cells(report: str) -> list[list[str]]:
    lines = [line for line in report.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def test_the_report_has_every_row_of_the_paper(folder):
    report = (folder / "report.md").read_text()
    shown = {tuple(cells[:3]) for cells in table_cells(report)}
    assert set(read_paper().index) <= shown
    rows = {(r["network"], r["domain"], r["state"]) for r in rows_of(folder / "table2.csv")}
    assert set(read_paper().index) <= rows
    for domain in NEW:
        assert any(name.endswith("own mode") and d == domain for name, d, _ in rows)


def test_the_papers_figures_stand_beside_ours(folder):
    report = (folder / "report.md").read_text()
    row = next(cells for cells in table_cells(report) if cells[:3] == ["N4", "D4", "bn4"])
    assert re.fullmatch(r"\d\.\d{3} \(0\.924\)", row[3])
    assert re.fullmatch(r"\*\*\d\.\d{3} \(0\.893\)\*\*", row[-1])


def test_old_domains_are_the_same_to_the_last_digit(folder):
    scans = rows_of(folder / "scans.csv")
    before = {r["scan"]: r for r in scans if r["network"] == "Nbn123" and r["domain"] in OLD}
    for domain in NEW:
        name = f"Nbn123,k*→{domain[1]}"
        after = [r for r in scans if r["network"] == name and r["domain"] in OLD]
        assert len(after) == len(before)
        for row in after:
            kept = before[row["scan"]]
            columns = [c for c in row if c.startswith("dice") or c == "answer_sha256"]
            assert [row[c] for c in columns] == [kept[c] for c in columns]
    report = (folder / "report.md").read_text()
    assert report.count("identical in every scan's Dice and answer and in every hash") == len(NEW)


def test_the_pictures_are_there_and_named_in_the_report(folder):
    report = (folder / "report.md").read_text()
    for name in ("dice-new-domains", "dice-old-domains", "examples", "learning", "labelled-cases"):
        assert (folder / "figures" / f"{name}.png").stat().st_size > 1000
        assert f"figures/{name}.png" in report


def test_work_is_hidden_from_git(folder):
    assert (folder / "work" / ".gitignore").read_text() == "*\n"


def a_run(out: Path, **changes: object) -> Table2Options:
    return replace(Table2Options(SMOKE, None, out, torch.device("cpu"), torch.float32), **changes)


def test_a_second_run_repeats_nothing_and_writes_the_same(folder, monkeypatch):
    def refuse(*_arguments: object, **_options: object) -> None:
        raise AssertionError("done before")

    for name in ("train", "adapt_slices", "probe"):
        monkeypatch.setattr(table2, name, refuse)
    monkeypatch.setattr("experiments.kit.scoring.Scorer.score", refuse)
    monkeypatch.setattr("experiments.kit.simulation.simulate", refuse)
    before = (folder / "scans.csv").read_bytes()
    run_table2(a_run(folder))
    assert (folder / "scans.csv").read_bytes() == before


def test_a_run_goes_on_after_the_stage_at_which_it_was_killed(folder, tmp_path, monkeypatch):
    learnt = []
    real = table2.train

    def train_two(runtime, spec, *arguments, **options):
        if len(learnt) == 2:
            raise KeyboardInterrupt
        learnt.append(spec.name)
        return real(runtime, spec, *arguments, **options)

    monkeypatch.setattr(table2, "train", train_two)
    with pytest.raises(KeyboardInterrupt):
        run_table2(a_run(tmp_path))
    assert learnt == ["N1", "N2"]
    learnt.pop()  # one more may be learnt now
    with pytest.raises(KeyboardInterrupt):
        run_table2(a_run(tmp_path))
    assert learnt == ["N1", "N3"]


def test_label_maps_are_asked_for_where_they_are_needed(tmp_path):
    with pytest.raises(NoLabelMapsError, match="needs --labelmaps"):
        run_table2(a_run(tmp_path, preset=CPU))
    with pytest.raises(NoLabelMapsError, match=r"no head_01\.nii\.gz"):
        run_table2(a_run(tmp_path, preset=CPU, labelmaps=tmp_path))


def test_a_preset_that_is_none_is_refused():
    result = CliRunner().invoke(app, [*ARGUMENTS, "--out", "x", "--preset", "huge"])
    assert result.exit_code == 2
    assert all(name in result.output for name in ("smoke", "cpu", "full"))
