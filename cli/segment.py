"""`normbank segment`: scans in, labels and volumes out."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import DEFAULT_URL, ApiError, Client
from cli.options import Data, Key, Url, open_client
from cli.output.files import scan_name
from cli.output.tables import volumes_table
from cli.output.terminal import console, note


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
    volumes_by_scan: dict[str, Mapping[str, float]] = {}
    with open_client(url, key, data) as client:
        for name, scan in _by_name(scans).items():
            segmentation = _segment_one(client, scan, domain, sidecar)
            if segmentation is None:
                continue
            labels = output / f"{name}_labels.nii.gz"
            labels.write_bytes(client.labels(segmentation["id"]))
            volumes_by_scan[name] = segmentation["volumes_mm3"]
            version = f"{segmentation['domain']} version {segmentation['version']}"
            title = f"{scan.name} · {version} · {labels}"
            console().print(volumes_table(title, segmentation["volumes_mm3"]))
    if volumes_by_scan:
        _write_volumes(output / "volumes.csv", volumes_by_scan)
    if len(volumes_by_scan) < len(scans):
        raise typer.Exit(1)


def _by_name(scans: Sequence[Path]) -> dict[str, Path]:
    """Give every scan a name of its own, even where files share one."""
    paths: dict[str, Path] = {}
    for scan in scans:
        name = scan_name(scan)
        if name in paths:
            name = f"{scan.resolve().parent.name}_{name}"
        number = 2
        while name in paths:
            name, number = f"{scan_name(scan)}_{number}", number + 1
        paths[name] = scan
    return paths


def _segment_one(
    client: Client, scan: Path, domain: str, sidecar: Path | None
) -> Mapping[str, Any] | None:
    """Segment one scan; None, with a line on stderr, when it is refused."""
    try:
        return client.segment(scan, domain, sidecar=sidecar)
    except ApiError as error:
        note(f"normbank: {scan}: {error}")
        return None


def _write_volumes(path: Path, volumes_by_scan: Mapping[str, Mapping[str, float]]) -> None:
    """Write a CSV with one row per scan, mm³ per structure."""
    names = list(dict.fromkeys(name for volumes in volumes_by_scan.values() for name in volumes))
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["scan", *(f"{name}_mm3" for name in names)])
        for scan, volumes in volumes_by_scan.items():
            writer.writerow([scan, *(volumes.get(name, "") for name in names)])
