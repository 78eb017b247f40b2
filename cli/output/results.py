"""A folder of results: labels of many scans, to which calls add and take nothing."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from cli.output.files import LABELS_SUFFIX, distinct_names
from cli.output.volumes import Record, append_row, read_records


class ResultsFolder:
    """Where the labels and volumes of scans go, from any number of calls.

    `volumes.csv` says which file belongs to which scan, by its full path. A
    name that belongs to another scan, or to nobody that is known, is never
    taken. Calls that run side by side wait for each other.

    Parameters
    ----------
    folder : made where it is missing
    scans : full paths of the scans that this call is about
    """

    def __init__(self, folder: Path, scans: Collection[Path]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._scans = scans
        self._lock = FileLock(folder / ".volumes.lock")

    def done(self, scan: Path) -> tuple[Path, Record] | None:
        """Find a scan's labels and their row; None where there are none yet."""
        record = read_records(self._folder).get(scan)
        if record is None or not (self._folder / record.labels).exists():
            return None
        return self._folder / record.labels, record

    def add(self, scan: Path, labels: bytes, segmentation: Mapping[str, Any]) -> tuple[Path, Path]:
        """Write a scan's labels, over those it had, and its row.

        The row comes first: what is cut off between them is done again, and
        under the same name.

        Returns
        -------
        the labels' file and the table
        """
        with self._lock:
            records = read_records(self._folder)
            path = self._folder / self._name(scan, records)
            part = path.with_name(f".{path.name}.part")
            try:
                part.write_bytes(labels)
                table = append_row(self._folder, path.name, scan, segmentation)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
        return path, table

    def _name(self, scan: Path, records: Mapping[Path, Record]) -> str:
        """The labels' file name: the scan's own, else one that is free."""
        if scan in records:
            return records[scan].labels
        taken = {record.labels.casefold() for record in records.values()}
        name = ""
        for name in distinct_names(scan, {*self._scans, *records}):
            if self._is_free(name, taken):
                return name + LABELS_SUFFIX
        number = 2  # the last name has the path's hash; what lies there lost its row
        while not self._is_free(f"{name}_{number}", taken):
            number += 1
        return f"{name}_{number}{LABELS_SUFFIX}"

    def _is_free(self, name: str, taken: Collection[str]) -> bool:
        file = name + LABELS_SUFFIX
        return file.casefold() not in taken and not (self._folder / file).exists()
