"""The scans that a command line names, by file or by folder."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.output.files import LABELS_SUFFIX, SUFFIXES


@dataclass
class ScanSelection:
    """Scans to work on, and what could not be looked into.

    Attributes
    ----------
    scans : full paths, links kept as they are named, each once
    problems : path and reason
    """

    scans: list[Path] = field(default_factory=list)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def find_scans(paths: Sequence[Path]) -> ScanSelection:
    """Find files as they are named, and what lies in folders, sorted.

    Of a folder: every `.nii`, `.nii.gz`, `.mgz` and `.mgh` at any depth, but
    hidden ones, AppleDouble files (`._scan.nii`) among them, and `*_labels.nii.gz`,
    which this program writes. Links are followed, to each folder once.
    """
    selection = ScanSelection()
    for path in paths:
        # Not resolved: a link's own name says more than that of the store it leads to.
        full = Path(os.path.abspath(path))
        scans = _in_folder(full, selection.problems) if full.is_dir() else [full]
        selection.scans += scans
        if not scans and not any(full == problem for problem, _ in selection.problems):
            selection.problems.append((full, f"the folder holds no scan ({', '.join(SUFFIXES)})"))
    selection.scans = list(dict.fromkeys(selection.scans))
    return selection


def _in_folder(folder: Path, problems: list[tuple[Path, str]]) -> list[Path]:
    scans: list[Path] = []
    seen: set[tuple[int, int]] = set()
    pending = deque([folder])
    while pending:
        current = pending.popleft()
        try:
            status = current.stat()
            entries = list(current.iterdir())
        except OSError as error:
            problems.append((current, f"the folder cannot be read: {error.strerror}"))
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                scans += [entry] if _is_scan(entry.name) else []
            elif entry.is_symlink():
                pending.append(entry)  # after every folder that is none: those have better names
            else:
                pending.appendleft(entry)
    return sorted(scans)


def _is_scan(name: str) -> bool:
    lowered = name.lower()
    return lowered.endswith(SUFFIXES) and not lowered.endswith(LABELS_SUFFIX)
