from __future__ import annotations

import csv
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from experiments.kit.manifest import folds_of
from tests.support.coarse import JUDGED, save_coarse_backbone
from tests.support.networks import one_thread
from tests.support.phantoms import phantom_case
from training.manifest import Row, read_manifest

ROLES = ("adapt", "adapt", "test", "test")


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four scans of one drawn scanner."""
    folder = tmp_path_factory.mktemp("cases")
    lines = ["domain,scan,labels,role"]
    for number, role in enumerate(ROLES):
        case = phantom_case(number + 1, "d3-t1w-1p5t")
        (folder / f"scan{number}.nii.gz").write_bytes(case.scan)
        (folder / f"labels{number}.nii").write_bytes(case.labels)
        lines.append(f"ward-7,scan{number}.nii.gz,labels{number}.nii,{role}")
    path = folder / "cases.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def row(name: str, role: str) -> Row:
    return Row("a", Path(name), Path(name), "freesurfer", role)


def test_each_case_is_a_test_case_once_where_a_scanner_is_rotated() -> None:
    rows = [row(str(n), "adapt" if n < 4 else "test") for n in range(6)]
    (plain,) = folds_of(rows)
    assert [r.scan.name for r in plain.test] == ["4", "5"]
    folds = folds_of(rows, ["a"])
    assert [[r.scan.name for r in fold.test] for fold in folds] == [
        ["4", "5"],
        ["0", "1"],
        ["2", "3"],
    ]
    for fold in folds:
        assert not {r.scan for r in fold.adapt} & {r.scan for r in fold.test}
        assert len(fold.adapt) == 4


def test_the_study_of_own_scans_reports_every_method(manifest: Path, tmp_path: Path) -> None:
    with one_thread():
        backbone = save_coarse_backbone(tmp_path / "backbone", steps=120, spec=JUDGED)
        words = ["experiment", "scanners", "--manifest", str(manifest), "--preset", "smoke"]
        words += ["--backbone", str(backbone), "--out", str(tmp_path / "out"), "--rotate", "ward-7"]
        first = CliRunner().invoke(app, [*words, "--precision", "float32"])
    assert first.exit_code == 0, first.output
    report = (tmp_path / "out" / "report.md").read_text()
    for words_ in (
        "nearest state, as is",
        "whole network",
        "from scratch",
        "every bit",
        "recalibrated",
    ):
        assert words_ in report
    assert "CHANGED" not in report
    with (tmp_path / "out" / "scans.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(float(r["thalamus"]) >= 0 for r in rows)
    assert {r["scan"] for r in rows if r["fold"] == "ward-7-0"} == {"scan2", "scan3"}
    assert {r["scan"] for r in rows if r["fold"] == "ward-7-1"} == {"scan0", "scan1"}
    assert (tmp_path / "out" / "figures" / "scanners.png").stat().st_size > 10_000
    assert len(read_manifest(manifest)) == 4
