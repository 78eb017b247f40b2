"""Which files are scans and labels of whom: a CSV that a user writes."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

from normbank.anatomy import LABEL_SCHEMES
from normbank.errors import InvalidError

COLUMNS = ("domain", "scan", "labels", "scheme", "role")
ROLES = ("train", "validate", "adapt", "test")


@dataclass(frozen=True)
class Row:
    """One labelled scan.

    Attributes
    ----------
    domain : the scanner and protocol it comes from
    scan, labels : NIfTI or MGH/MGZ
    scheme : one of `normbank.anatomy.LABEL_SCHEMES`
    role : one of `ROLES`
    """

    domain: str
    scan: Path
    labels: Path
    scheme: str
    role: str

    @property
    def name(self) -> str:
        return self.scan.name.split(".")[0]


def read_manifest(path: Path) -> list[Row]:
    """Read and check a manifest.

    Parameters
    ----------
    path : CSV with a header of `COLUMNS` in any order; `scheme` may be left
        out (`freesurfer`), `role` too (`train`); files are named from the
        manifest's own folder

    Raises
    ------
    InvalidError
        `bad_manifest`, naming the line.
    """
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file)
        missing = {"domain", "scan", "labels"} - set(reader.fieldnames or ())
        if missing:
            raise _bad(1, f"the header lacks {', '.join(sorted(missing))}")
        rows = [_row(line, values, path.parent) for line, values in enumerate(reader, start=2)]
    if not rows:
        raise _bad(1, "there is no row")
    return rows


def _row(line: int, values: dict[str, str], folder: Path) -> Row:
    row = Row(
        domain=(values["domain"] or "").strip(),
        scan=folder / (values["scan"] or "").strip(),
        labels=folder / (values["labels"] or "").strip(),
        scheme=(values.get("scheme") or "freesurfer").strip(),
        role=(values.get("role") or "train").strip(),
    )
    if not row.domain:
        raise _bad(line, "the domain is empty")
    if row.scheme not in LABEL_SCHEMES:
        raise _bad(line, f"the scheme is none of {', '.join(LABEL_SCHEMES)}")
    if row.role not in ROLES:
        raise _bad(line, f"the role is none of {', '.join(ROLES)}")
    for file in (row.scan, row.labels):
        if not file.is_file():
            raise _bad(line, f"there is no file {file.name}")
    return row


def _bad(line: int, what: str) -> InvalidError:
    return InvalidError(f"Line {line} of the manifest: {what}.", code="bad_manifest")
