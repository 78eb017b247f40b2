"""Names of the files that commands write."""

from __future__ import annotations

from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")


def scan_name(scan: Path) -> str:
    """File name of a scan without its image suffix."""
    for suffix in SUFFIXES:
        if scan.name.lower().endswith(suffix):
            return scan.name[: -len(suffix)]
    return scan.stem
