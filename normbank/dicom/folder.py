"""The files of one series, from whatever lies in a folder."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from normbank.dicom import tags
from normbank.dicom.files import DicomFile, read_file
from normbank.dicom.kinds import check_whole, is_beside_images, is_directory
from normbank.errors import DicomError, TooLargeError
from normbank.imaging.scan import Limits

_MAX_FILES = 20_000
_MAX_HEADER_BYTES = 512 << 20  # of all files; a scanner's have 10 to 200 kB
_MAX_ELEMENTS = 2_000_000  # of all headers; each takes some 200 bytes
_LISTED = 50  # series that an error names


def files_in(folder_or_file: Path, limits: Limits) -> tuple[list[DicomFile], int]:
    """DICOM files of a folder, and how many others there are."""
    paths = [folder_or_file]
    if folder_or_file.is_dir():
        paths = sorted(
            path for path in folder_or_file.rglob("*") if not path.is_symlink() and path.is_file()
        )
    if len(paths) > _MAX_FILES:
        raise TooLargeError("The folder holds more files than the service takes.")
    files = [file for file in _read_all(paths, limits) if not is_directory(file)]
    for file in files:
        check_whole(file)
    if not files:
        raise DicomError(
            "There is no DICOM image among the files. Send the images of one MR series.",
            code="no_dicom_images",
            facts={"files": len(paths)},
        )
    return files, len(paths) - len(files)


def _read_all(paths: Sequence[Path], limits: Limits) -> Iterator[DicomFile]:
    """Those of the files that are DICOM, as long as all of their headers fit into memory."""
    bytes_, header_bytes, elements = 0, 0, 0
    for path in paths:
        file = read_file(path, limits)
        if file is None:
            continue
        yield file
        bytes_ += file.bytes_
        header_bytes += sum(len(element.value or b"") for element in file.elements.values())
        elements += len(file.elements)
        if bytes_ > limits.max_volume_bytes:
            raise TooLargeError("The series has more bytes than the service takes.")
        if header_bytes > _MAX_HEADER_BYTES or elements > _MAX_ELEMENTS:
            raise TooLargeError("The headers of the series are larger than the service takes.")


def one_series(files: list[DicomFile], wanted: str | None) -> tuple[list[DicomFile], int]:
    """The images of one series, and how many reports and states lie beside them."""
    images = [file for file in files if not is_beside_images(file)]
    taken = images or files
    by_series: dict[str, list[DicomFile]] = defaultdict(list)
    for file in taken:
        by_series[file.where.text(tags.SERIES) or ""].append(file)
    listed = [_in_words(uid, members) for uid, members in list(by_series.items())[:_LISTED]]
    if wanted is None and len(by_series) > 1:
        raise DicomError(
            f"There are images of {len(by_series)} series. Send one of them, or name it.",
            code="several_series",
            facts={"series": listed},
        )
    if wanted is not None and wanted not in by_series:
        raise DicomError(
            "The series that was named is not among the images. Name one that is, or none.",
            code="no_such_series",
            facts={"series": listed},
        )
    uid = wanted if wanted is not None else next(iter(by_series))
    if not uid:
        raise DicomError(
            "The images do not say which series they belong to (SeriesInstanceUID). Export the "
            "series again.",
            code="no_series_uid",
        )
    return by_series[uid], len(files) - len(taken)


def _in_words(uid: str, files: Sequence[DicomFile]) -> dict[str, Any]:
    """A series for people, without its description: that is free text."""
    where = files[0].where
    number = where.text(tags.SERIES_NUMBER)
    return {
        "uid": uid,
        "modality": where.text(tags.MODALITY),
        "images": len(files),
        "number": int(number) if number and number.isdigit() else None,
    }
