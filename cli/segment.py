"""`normbank segment`: scans in, labels and volumes out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import DEFAULT_URL, ApiError, Client, Data, Key, Url, connect
from cli.output.terminal import console, note, volumes_table

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")


def segment(
    scans: Annotated[
        list[Path], typer.Argument(exists=True, dir_okay=False, help=".nii, .nii.gz, .mgz, .mgh")
    ],
    domain: Annotated[str, typer.Option(help="Domain id, or `auto`.")] = "auto",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the labels.")] = Path(),
    sidecar: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="BIDS JSON with the header's facts."),
    ] = None,
    url: Url = DEFAULT_URL,
    key: Key = "",
    data: Data = None,
) -> None:
    """Segment scans: one NAME_labels.nii.gz each, and volumes.csv for all."""
    output.mkdir(parents=True, exist_ok=True)
    answers: dict[str, Mapping[str, float]] = {}
    with connect(url, key, data) as client:
        for name, scan in _named(scans).items():
            answer = _segment_one(client, scan, domain, sidecar)
            if answer is None:
                continue
            labels = output / f"{name}_labels.nii.gz"
            labels.write_bytes(client.labels(answer["id"]))
            answers[name] = answer["volumes_mm3"]
            title = f"{scan.name} · {answer['domain']} version {answer['version']} · {labels}"
            console().print(volumes_table(title, answer["volumes_mm3"]))
    if answers:
        _write_volumes(output / "volumes.csv", answers)
    if len(answers) < len(scans):
        raise typer.Exit(1)


def scan_name(scan: Path) -> str:
    """A scan's file name without the ending that says its kind."""
    for suffix in SUFFIXES:
        if scan.name.lower().endswith(suffix):
            return scan.name[: -len(suffix)]
    return scan.stem


def _named(scans: Sequence[Path]) -> dict[str, Path]:
    """Names that tell the scans apart, even where their files share one."""
    named: dict[str, Path] = {}
    for scan in scans:
        name = scan_name(scan)
        if name in named:
            name = f"{scan.resolve().parent.name}_{name}"
        number = 2
        while name in named:
            name, number = f"{scan_name(scan)}_{number}", number + 1
        named[name] = scan
    return named


def _segment_one(
    client: Client, scan: Path, domain: str, sidecar: Path | None
) -> Mapping[str, Any] | None:
    """The answer for one scan; None, after saying why, when it was refused."""
    try:
        return client.segment(scan, domain, sidecar=sidecar)
    except ApiError as error:
        note(f"normbank: {scan}: {error}")
        return None


def _write_volumes(path: Path, answers: Mapping[str, Mapping[str, float]]) -> None:
    """One row per scan, mm³ per structure."""
    names = list(dict.fromkeys(name for volumes in answers.values() for name in volumes))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", *(f"{name}_mm3" for name in names)])
        for scan, volumes in answers.items():
            writer.writerow([scan, *(volumes.get(name, "") for name in names)])
