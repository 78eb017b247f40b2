"""Segmentations on the screen: the bar, each scan's volumes, and the list at the end."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from cli.client import flag_sentence
from cli.output.tables import volumes_table
from cli.output.terminal import console

Reason = tuple[Path, str]


@dataclass
class SegmentReport:
    """What became of every scan of a call.

    Attributes
    ----------
    written : scan and its labels
    skipped, failed : scan and why
    not_tried : scans after a failure that the next ones would share
    tables : files that got rows
    """

    written: list[tuple[Path, Path]] = field(default_factory=list)
    skipped: list[Reason] = field(default_factory=list)
    failed: list[Reason] = field(default_factory=list)
    not_tried: list[Path] = field(default_factory=list)
    tables: set[Path] = field(default_factory=set)


def scan_progress() -> Progress:
    """Make a bar that counts scans; invisible where nobody watches."""
    screen = console()
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=screen,
        disable=not screen.is_terminal,
    )


def shown(path: Path) -> str:
    """Format a path, also one whose bytes are no text."""
    return os.fsencode(path).decode("utf-8", "replace")


CHOSEN_BY = {
    "rules": ", by its header",
    "statistics": ", by what the scan looks like",
    "only_domain": ", the only domain",
}


def print_segmentation(
    screen: Console, scan: Path, labels: Path, segmentation: Mapping[str, Any]
) -> None:
    """Print the volumes of one scan, and its flags in words."""
    decision = segmentation.get("identification") or {}
    why = CHOSEN_BY.get(str(decision.get("reason")), "")
    version = f"{segmentation['domain']} version {segmentation['version']}{why}"
    title = f"{shown(Path(scan.name))} · {version} · {shown(labels)}"
    screen.print(volumes_table(escape(title), segmentation["volumes_mm3"]))
    for flag in segmentation.get("flags") or ():
        _line(screen, f"  {flag_sentence(flag)}")


def print_report(report: SegmentReport) -> None:
    """Print what was written, what was skipped and what failed, with the reasons."""
    screen = console()
    counts = {
        "written": len(report.written),
        "skipped": len(report.skipped),
        "failed": len(report.failed),
        "not tried": len(report.not_tried),
    }
    _line(screen, ", ".join(f"{count} {what}" for what, count in counts.items() if count))
    for scan, labels in report.written:
        _line(screen, f"written {shown(labels)} of {shown(scan)}")
    _reasons(screen, "skipped", report.skipped)
    _reasons(screen, "failed", report.failed)
    _tables(screen, sorted(report.tables))


def _reasons(screen: Console, what: str, reasons: Sequence[Reason]) -> None:
    for scan, why in reasons:
        _line(screen, f"{what} {shown(scan)}: {why}")


def _tables(screen: Console, tables: Sequence[Path]) -> None:
    for table in tables:
        first = table.with_name("volumes.csv")
        other = "" if table == first else f"; {first.name} has other columns and stays as it is"
        _line(screen, f"volumes in {shown(table)}{other}")


def _line(screen: Console, text: str) -> None:
    screen.print(text, markup=False, soft_wrap=True)
