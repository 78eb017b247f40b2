"""Names of the files that commands write."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Collection, Iterator
from pathlib import Path

SUFFIXES = (".nii.gz", ".nii", ".mgz", ".mgh")
LABELS_SUFFIX = "_labels.nii.gz"
NAME_BYTES = 200  # of a name; a file system takes 255 with what is put behind it


def scan_name(scan: Path) -> str:
    """File name of a scan without its image suffix."""
    for suffix in SUFFIXES:
        if scan.name.lower().endswith(suffix):
            return scan.name[: -len(suffix)]
    return scan.stem


def distinct_names(scan: Path, others: Collection[Path]) -> Iterator[str]:
    """Names that tell a scan from the others, the shortest first.

    A name is the file's, after as many of its folders as differ from those of
    the others; with the file's suffix where scans lie beside each other that
    differ in it alone; at last, and always, one with a hash of the path.

    Parameters
    ----------
    scan, others : full paths

    Examples
    --------
    >>> first, second = Path("/data/sub-01/mri/T1.mgz"), Path("/data/sub-02/mri/T1.mgz")
    >>> next(distinct_names(first, [second]))
    'sub-01_mri_T1'
    """
    for keep_suffix in (False, True):
        last = _key(_joined(scan, 0, keep_suffix))
        alike = [o for o in others if o != scan and _key(_joined(o, 0, keep_suffix)) == last]
        for depth in range(len(scan.parts) - 1):
            name = _joined(scan, depth, keep_suffix)
            if len(name.encode("utf-8", "surrogateescape")) > NAME_BYTES:
                break
            if all(_key(_joined(o, depth, keep_suffix)) != _key(name) for o in alike):
                yield name
    digest = hashlib.sha256(str(scan).encode("utf-8", "surrogateescape")).hexdigest()
    yield f"{scan_name(scan).lstrip('.')[:40]}_{digest[:16]}"


def _joined(scan: Path, depth: int, keep_suffix: bool) -> str:
    """The last `depth` folders and the file, as one name that is not hidden."""
    folders = scan.parent.parts[1:]
    last = scan.name if keep_suffix else scan_name(scan)
    return "_".join([*folders[max(len(folders) - depth, 0) :], last]).lstrip(".") or "scan"


def _key(name: str) -> str:
    """What two names share that some file system takes for one."""
    return unicodedata.normalize("NFC", name).casefold()
