"""The scans that a command line names, by file or by folder."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cli.output.files import LABELS_SUFFIX, SUFFIXES
from normbank.config import Settings
from normbank.imaging.scan import Limits

START_BYTES = 512


@dataclass
class ScanSelection:
    """Scans to work on, and what could not be looked into.

    Attributes
    ----------
    scans : full paths, links kept as they are named, each once. A DICOM series goes by its
        folder, or by `series-<number>` in a folder that holds several
    series : the files of those that are DICOM series
    problems : path and reason
    """

    scans: list[Path] = field(default_factory=list)
    series: dict[Path, tuple[Path, ...]] = field(default_factory=dict)
    problems: list[tuple[Path, str]] = field(default_factory=list)


def find_scans(paths: Sequence[Path]) -> ScanSelection:
    """Find files as they are named, and what lies in folders, sorted.

    Of a folder: every `.nii`, `.nii.gz`, `.mgz` and `.mgh` at any depth, and every series of
    the DICOM files that lie in one folder, whatever they are called; but
    hidden ones, AppleDouble files (`._scan.nii`) among them, and `*_labels.nii.gz`,
    which this program writes. Links are followed, to each folder once.
    """
    selection = ScanSelection()
    for path in paths:
        # Not resolved: a link's own name says more than that of the store it leads to.
        full = Path(os.path.abspath(path))
        scans = _in_folder(full, selection) if full.is_dir() else [full]
        selection.scans += scans
        if not scans and not any(full == problem for problem, _ in selection.problems):
            selection.problems.append(
                (full, f"the folder holds no scan ({', '.join(SUFFIXES)}, DICOM)")
            )
    selection.scans = list(dict.fromkeys(selection.scans))
    return selection


def _in_folder(folder: Path, selection: ScanSelection) -> list[Path]:
    scans: list[Path] = []
    seen: set[tuple[int, int]] = set()
    pending = deque([folder])
    while pending:
        current = pending.popleft()
        try:
            status = current.stat()
            entries = list(current.iterdir())
        except OSError as error:
            selection.problems.append((current, f"the folder cannot be read: {error.strerror}"))
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        images = []
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                scans += [entry] if _is_scan(entry.name) else []
                images += [entry] if _is_image(entry) else []
            elif entry.is_symlink():
                pending.append(entry)  # after every folder that is none: those have better names
            else:
                pending.appendleft(entry)
        found = _series_in(current, images)
        selection.series |= found
        scans += found
    return sorted(scans)


def _series_in(folder: Path, images: list[Path]) -> dict[Path, tuple[Path, ...]]:
    """The DICOM series whose files lie in a folder, by the name that each goes by."""
    if not images:
        return {}
    from normbank.dicom.listing import series_of_files  # other commands do not wait for pydicom

    found = series_of_files(images, Limits.of(Settings()))
    if len(found) == 1:
        return {folder: found[0].files}
    numbers = [one.number for one in found]
    return {
        folder / f"series-{one.number if numbers.count(one.number) == 1 else one.uid}": one.files
        for one in found
    }


def _is_image(path: Path) -> bool:
    """Whether a file is DICOM; one that cannot be read is none, the service says why."""
    if path.name.lower().endswith(SUFFIXES):
        return False
    from normbank.dicom.files import is_dicom

    try:
        with path.open("rb") as file:
            return is_dicom(file.read(START_BYTES))
    except OSError:
        return False


def _is_scan(name: str) -> bool:
    lowered = name.lower()
    return lowered.endswith(SUFFIXES) and not lowered.endswith(LABELS_SUFFIX)
