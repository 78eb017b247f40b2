"""`volumes.csv`: one row a scan, added to and never rewritten."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLUMNS = ("source", "labels", "domain", "version", "flags")
_UNIT = "_mm3"
# Paths may hold bytes that are no UTF-8; they come back as they were.
_TEXT: Mapping[str, Any] = {"newline": "", "errors": "surrogateescape"}


@dataclass(frozen=True, slots=True)
class Record:
    """What a row says of a scan.

    Attributes
    ----------
    source : full path of the scan
    labels : file name of its labels, in the table's folder
    """

    source: Path
    labels: str
    domain: str
    version: str


def read_records(folder: Path) -> dict[Path, Record]:
    """Read what the tables of a folder hold, by scan; of several rows the last one counts."""
    records: dict[Path, Record] = {}
    for table in _tables(folder):
        if not table.exists():
            break
        rows = _rows(table)
        if tuple(next(rows, ())[: len(COLUMNS)]) != COLUMNS:
            continue
        for row in rows:
            if len(row) >= len(COLUMNS) and Path(row[1]).name == row[1]:
                records[Path(row[0])] = Record(Path(row[0]), row[1], row[2], row[3])
    return records


def append_row(folder: Path, labels: str, source: Path, segmentation: Mapping[str, Any]) -> Path:
    """Add a scan's row to the first table that has its columns.

    Parameters
    ----------
    segmentation : the API's answer in JSON

    Returns
    -------
    `volumes.csv`; where that has other columns, `volumes_2.csv` and so on
    """
    volumes = {f"{name}{_UNIT}": mm3 for name, mm3 in segmentation["volumes_mm3"].items()}
    flags = ";".join(str(flag["code"]) for flag in segmentation.get("flags") or ())
    origin = (str(source), labels, segmentation["domain"], segmentation["version"], flags)
    cells = {**dict(zip(COLUMNS, origin, strict=True)), **volumes}
    for table in _tables(folder):
        header: Sequence[str] = next(_rows(table), ()) if table.exists() else ()
        if not header and (not table.exists() or not table.stat().st_size):
            header = tuple(cells)
            _write(table, header)
        if tuple(header[: len(COLUMNS)]) == COLUMNS and set(cells) <= set(header):
            _write(table, [cells.get(column, "") for column in header])
            return table
    raise AssertionError("there is always another table")


def _tables(folder: Path) -> Iterator[Path]:
    yield folder / "volumes.csv"
    for number in itertools.count(2):
        yield folder / f"volumes_{number}.csv"


def _rows(table: Path) -> Iterator[list[str]]:
    """Rows, as far as they can be read."""
    with table.open(encoding="utf-8-sig", **_TEXT) as file:
        try:
            yield from csv.reader(file)
        except csv.Error:
            return


def _write(table: Path, cells: Sequence[object]) -> None:
    """Add a row; what broke off before it stays a row of its own."""
    with table.open("ab+") as file:
        torn = file.tell() > 0 and file.seek(-1, 2) and file.read(1) != b"\n"
    with table.open("a", encoding="utf-8", **_TEXT) as file:
        if torn:
            file.write("\r\n")
        csv.writer(file).writerow(cells)
