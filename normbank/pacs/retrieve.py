"""WADO-RS: a series, received into files one by one."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import httpx
from python_multipart.exceptions import MultipartParseError
from python_multipart.multipart import MultipartParser

from normbank.errors import PacsRefusedError, SeriesError, TooLargeError
from normbank.imaging.scan import Limits
from normbank.pacs.http import PacsHttp

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PREAMBLE = bytes(128)
MAGIC = b"DICM"
MOST_INSTANCES = 20_000
_AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_AS_IT_LIKES = 'multipart/related; type="application/dicom"'

OnInstance = Callable[[int], None]
"""Hears how many instances there are so far; may raise to end the work."""


def fetch_series(
    http: PacsHttp,
    study: str,
    series: str,
    folder: Path,
    limits: Limits,
    *,
    on_instance: OnInstance = lambda _count: None,
) -> int:
    """Receive every instance of a series, as it is stored, into `folder`.

    Returns
    -------
    how many files were written; each has a preamble, whatever the PACS sent

    Raises
    ------
    SeriesError
        `series_empty`.
    TooLargeError
        If it has more bytes than a volume may have.
    PacsUnreachableError, PacsRefusedError
    """
    path = f"studies/{study}/series/{series}"

    def receive(accept: str) -> int:
        for left_over in folder.iterdir():  # of an attempt that broke off
            left_over.unlink()
        with http.streamed(path, accept) as response:
            return _receive(http, response, folder, limits, on_instance)

    def attempt() -> int:
        try:
            return receive(_AS_STORED)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            if status == 404:
                return 0
            if status in (400, 406):  # it does not know the wildcard
                return receive(_AS_IT_LIKES)
            raise

    count = http.repeated(attempt)
    if count == 0:
        raise SeriesError(
            f"The PACS '{http.name}' has no instances of this series: look at study and series.",
            code="series_empty",
        )
    return count


def _receive(
    http: PacsHttp,
    response: httpx.Response,
    folder: Path,
    limits: Limits,
    on_instance: OnInstance,
) -> int:
    if response.status_code == 204:
        return 0
    header = Message()
    header["Content-Type"] = response.headers.get("content-type", "")
    boundary = header.get_param("boundary")
    if header.get_content_maintype() != "multipart" or not isinstance(boundary, str):
        raise PacsRefusedError(
            f"The PACS '{http.name}' did not send DICOM files: is dicomweb_url the root of its "
            "DICOMweb services?"
        )
    parts = _Parts(folder, limits.max_volume_bytes, on_instance)
    parser = MultipartParser(boundary, parts.callbacks())
    try:
        for chunk in response.iter_bytes():
            parser.write(chunk)
    except MultipartParseError as error:
        raise PacsRefusedError(f"The PACS '{http.name}' sent a broken multipart.") from error
    finally:
        parts.close()
    if not parts.ended:
        raise httpx.RemoteProtocolError("the answer was cut off")
    return parts.count


class _Parts:
    """Writes the parts of a multipart answer to files that are numbered.

    Parameters
    ----------
    folder : where
    most_bytes : of all parts together
    """

    def __init__(self, folder: Path, most_bytes: int, on_instance: OnInstance) -> None:
        self.count, self.ended = 0, False
        self._folder, self._left, self._on_instance = folder, most_bytes, on_instance
        self._file: BinaryIO | None = None
        self._head = b""

    def callbacks(self) -> MultipartCallbacks:
        return {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._finish,
            "on_end": self._end,
        }

    def close(self) -> None:
        if self._file is not None:
            self._file.close()

    def _begin(self) -> None:
        self.count += 1
        if self.count > MOST_INSTANCES:
            raise TooLargeError(f"A series has at most {MOST_INSTANCES} instances.")
        self._file = (self._folder / f"{self.count:06}.dcm").open("wb")
        self._head = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        assert self._file is not None
        self._left -= end - start
        if self._left < 0:
            raise TooLargeError("The series has more bytes than a volume may have.")
        piece = data[start:end]
        if len(self._head) < len(PREAMBLE) + len(MAGIC):
            self._head += piece
            if len(self._head) < len(PREAMBLE) + len(MAGIC):
                return
            piece = with_preamble(self._head)
        self._file.write(piece)

    def _finish(self) -> None:
        assert self._file is not None
        if len(self._head) < len(PREAMBLE) + len(MAGIC):
            self._file.write(self._head)
        self._file.close()
        self._file = None
        self._on_instance(self.count)

    def _end(self) -> None:
        self.ended = True


def with_preamble(head: bytes) -> bytes:
    """The first bytes of a DICOM file, with the preamble that some PACS leave out.

    Parameters
    ----------
    head : at least 132 bytes from the start of what was sent
    """
    if head[len(PREAMBLE) :].startswith(MAGIC):
        return head
    if head.startswith(MAGIC):
        return PREAMBLE + head
    if head.startswith(b"\x02\x00"):  # the file's meta information at once
        return PREAMBLE + MAGIC + head
    return head
