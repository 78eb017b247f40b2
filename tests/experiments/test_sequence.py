"""Scanners in turn: the earlier ones stay for normbank, and are measured for both."""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from cli.main import app
from experiments.sequence.report import backward_transfer, unchanged
from tests.support.coarse import JUDGED, save_coarse_backbone
from tests.support.networks import one_thread
from tests.support.phantoms import phantom_case


def scans_of(after: str, scanner: str, dice: float, answer: str) -> dict[str, object]:
    return {"after": after, "scanner": scanner, "scan": "scan", "mean": dice, "answer": answer}


def test_what_later_steps_do_to_earlier_scanners_is_measured() -> None:
    first, last = scans_of("a", "a", 0.8, "x"), scans_of("b", "b", 0.7, "y")
    kept = pd.DataFrame([first, scans_of("b", "a", 0.8, "x"), last])
    lost = pd.DataFrame([first, scans_of("b", "a", 0.5, "z"), last])
    assert backward_transfer(kept) == 0.0
    assert backward_transfer(lost) == pytest.approx(-0.3)
    assert unchanged(kept)
    assert not unchanged(lost)


def test_two_scans_of_one_name_are_two_scans() -> None:
    first = [scans_of("a", "a", 0.8, "x"), scans_of("a", "a", 0.6, "y")]
    again = [scans_of("b", "a", 0.8, "x"), scans_of("b", "a", 0.6, "y")]
    assert unchanged(pd.DataFrame([*first, *again]))
    assert not unchanged(pd.DataFrame([*first, *again[::-1]]))


def test_two_scanners_are_learnt_in_turn(tmp_path: Path) -> None:
    lines = ["domain,scan,labels,role"]
    for scanner in ("d3-t1w-1p5t", "d1-t1w-3t"):
        for number, role in enumerate(("adapt", "adapt", "test")):
            case, name = phantom_case(number + 1, scanner), f"{scanner}-{number}"
            (tmp_path / f"{name}.nii.gz").write_bytes(case.scan)
            (tmp_path / f"{name}-labels.nii").write_bytes(case.labels)
            lines.append(f"{scanner},{name}.nii.gz,{name}-labels.nii,{role}")
    manifest = tmp_path / "cases.csv"
    manifest.write_text("\n".join(lines) + "\n")
    with one_thread():
        backbone = save_coarse_backbone(tmp_path / "backbone", steps=120, spec=JUDGED)
        words = ["experiment", "sequence", "--manifest", str(manifest), "--preset", "smoke"]
        words += ["--backbone", str(backbone), "--out", str(tmp_path / "out")]
        found = CliRunner().invoke(app, [*words, "--precision", "float32"])
    assert found.exit_code == 0, found.output
    report = (tmp_path / "out" / "report.md").read_text()
    assert "Backward transfer: +0.0000. Old answers unchanged: every bit." in report
    assert "fine-tuned in turn" in report
    with (tmp_path / "out" / "scans.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert all(0 <= float(r["mean"]) <= 1 for r in rows)
    assert len(rows) == 2 * 3  # both methods: one scanner after step 1, two after step 2
    own = [r["answer"] for r in rows if r["method"] == "normbank" and r["scanner"] == "d3-t1w-1p5t"]
    assert len(set(own)) == 1
    assert (tmp_path / "out" / "figures" / "sequence.png").stat().st_size > 5_000
