"""Which series some files belong to, before any of them is judged."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from normbank.dicom import tags
from normbank.dicom.files import DicomFile, read_file
from normbank.dicom.kinds import is_beside_images, is_directory
from normbank.errors import NormbankError
from normbank.imaging.scan import Limits


@dataclass(frozen=True, slots=True)
class ListedSeries:
    """Images with the same SeriesInstanceUID.

    Attributes
    ----------
    number : SeriesNumber; 0 where there is none
    files : sorted by name, then damaged ones
    """

    uid: str
    number: int
    files: tuple[Path, ...]


def series_of_files(files: Iterable[Path], limits: Limits) -> list[ListedSeries]:
    """Series of images among the files, by number; reports and segmentations are left out.

    A damaged file goes with every series: nobody knows whose it is, and without it a series
    may look whole that is not.
    """
    members: dict[str, list[Path]] = defaultdict(list)
    numbers: dict[str, int] = {}
    damaged: list[Path] = []
    for path in sorted(files):
        try:
            file = read_file(path, limits)
        except NormbankError:
            damaged.append(path)
            continue
        if file is None or is_directory(file) or is_beside_images(file):
            continue
        uid = file.where.text(tags.SERIES) or ""
        members[uid].append(path)
        numbers.setdefault(uid, _number(file))
    if damaged and not members:
        members[""], numbers[""] = [], 0
    listed = [ListedSeries(uid, numbers[uid], (*paths, *damaged)) for uid, paths in members.items()]
    return sorted(listed, key=lambda one: (one.number, one.uid))


def _number(file: DicomFile) -> int:
    """SeriesNumber; 0 where there is none that can be understood."""
    try:
        return file.where.whole(tags.SERIES_NUMBER) or 0
    except NormbankError:
        return 0
