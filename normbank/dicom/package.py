"""Zips of a series, taken apart with suspicion."""

from __future__ import annotations

import stat
import struct
import zipfile
import zlib
from io import BufferedReader, FileIO
from itertools import pairwise
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

from normbank.dicom.files import is_dicom
from normbank.errors import InvalidError, TooLargeError, is_disk_full
from normbank.imaging.scan import Limits

__all__ = ["is_dicom", "is_zip", "unpack"]

_STARTS = (b"PK\x03\x04", b"PK\x05\x06", b"PK\x07\x08")
_ARCHIVES = (*_STARTS, b"\x1f\x8b", b"BZh", b"7z\xbc\xaf\x27\x1c", b"\xfd7zXZ\x00", b"Rar!\x1a\x07")
_TAR_AT, _TAR = 257, b"ustar"
_NOISE = {"DICOMDIR", "LICENSE", "LICENSE.TXT", "README", "README.TXT", "THUMBS.DB"}
_MAX_MEMBERS = 20_000
_MAX_DIRECTORY = 8 << 20  # bytes, before its members can be counted; each takes some 100
_MAX_RATIO = 1000  # DEFLATE's own limit is 1032; air of a scan packs 200 times
_FREE_BYTES = 1 << 20  # of a member, whatever its ratio
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
_START_BYTES = 512
_COPY_BYTES = 1 << 20
_DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, OSError, NotImplementedError, ValueError),
)
_PACK = "Zip the files of one series again, plainly."


def is_zip(start: bytes) -> bool:
    """Whether a file is a zip, by its first bytes.

    Examples
    --------
    >>> is_zip(b"PK\\x03\\x04...."), is_zip(b"PKZIP")
    (True, False)
    """
    return start.startswith(_STARTS)


def unpack(archive: Path, folder: Path, limits: Limits) -> int:
    """Write the members of a zip into a folder, named `0`, `1`, … in their order.

    Their own names are looked at and never used.

    Parameters
    ----------
    archive : the zip
    folder : an existing one
    limits : `max_volume_bytes` for all members together, `max_file_bytes` for each

    Returns
    -------
    how many members were left out as folder noise: empty files, DICOMDIR, licences,
    what systems put beside files

    Raises
    ------
    InvalidError
        `damaged_zip`, `encrypted_zip`, `unsupported_zip`, `unsafe_zip` (links, devices,
        names that lead elsewhere), `nested_archive`, `zip_bomb`, `empty_zip`.
    TooLargeError
        If the members are too many or have too many bytes.
    """
    try:
        with _Archive(FileIO(archive)) as file, zipfile.ZipFile(file) as opened:
            members = [one for one in opened.infolist() if not one.filename.endswith("/")]
            _check_all(members, limits)
            wanted = [member for member in members if not _is_noise(member)]
            if not wanted:
                raise InvalidError(f"The zip holds no images. {_PACK}", code="empty_zip")
            left = limits.max_volume_bytes
            for number, member in enumerate(wanted):
                left -= _extract(opened, member, folder / str(number), left, limits)
    except _DAMAGED as error:
        if is_disk_full(error):
            raise
        raise InvalidError(f"The zip is damaged. {_PACK}", code="damaged_zip") from error
    return len(members) - len(wanted)


class _Archive(BufferedReader):
    """A zip whose directory is not read where it has more members than anybody would take."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > _MAX_DIRECTORY:
            raise TooLargeError("The zip has more members than the service takes.")
        return super().read(size)


def _check_all(members: list[zipfile.ZipInfo], limits: Limits) -> None:
    """What the directory of the zip says, before anything is unpacked."""
    if len(members) > _MAX_MEMBERS:
        raise TooLargeError("The zip has more members than the service takes.")
    if sum(member.file_size for member in members) > limits.max_volume_bytes:
        raise TooLargeError("The zip holds more bytes than the service takes.")
    for member in members:
        _check_one(member, limits)
    ends = sorted((m.header_offset, m.header_offset + m.compress_size) for m in members)
    if any(end > start for (_, end), (start, _) in pairwise(ends)):
        raise InvalidError(f"Members of the zip overlap. {_PACK}", code="zip_bomb")


def _check_one(member: zipfile.ZipInfo, limits: Limits) -> None:
    if member.flag_bits & _ENCRYPTED:
        raise InvalidError(
            "The zip is encrypted. Send it without a password.", code="encrypted_zip"
        )
    mode = member.external_attr >> 16
    leads_out = any(
        path.is_absolute() or ".." in path.parts or path.drive
        for path in (PurePosixPath(member.filename), PureWindowsPath(member.filename))
    )
    if leads_out or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        raise InvalidError(
            f"The zip holds a link, a device or a name that leads elsewhere. {_PACK}",
            code="unsafe_zip",
        )
    if member.compress_type not in _METHODS:
        raise InvalidError(
            f"The zip is compressed in another way than DEFLATE. {_PACK}", code="unsupported_zip"
        )
    if member.file_size > limits.max_file_bytes:
        raise TooLargeError("A member of the zip has more bytes than the service takes.")
    _check_ratio(member.file_size, member.compress_size)


def _check_ratio(unpacked: int, packed: int) -> None:
    if unpacked > _FREE_BYTES and unpacked > _MAX_RATIO * packed:
        raise InvalidError(
            f"A member of the zip unpacks to far more than an image would. {_PACK}",
            code="zip_bomb",
        )


def _is_noise(member: zipfile.ZipInfo) -> bool:
    path = PurePosixPath(member.filename.replace("\\", "/"))
    return (
        member.file_size == 0
        or path.name.startswith(".")
        or path.name.upper() in _NOISE
        or "__MACOSX" in path.parts
    )


def _extract(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, limits: Limits
) -> int:
    """Unpack one member and count what really comes out, whatever the directory says."""
    most = min(left, limits.max_file_bytes, member.file_size)
    with opened.open(member) as source:
        start = source.read(_START_BYTES)
        if start.startswith(_ARCHIVES) or start[_TAR_AT : _TAR_AT + len(_TAR)] == _TAR:
            raise InvalidError(
                "The zip holds an archive itself. Send a zip of the images alone.",
                code="nested_archive",
            )
        with target.open("xb") as sink:
            sink.write(start)
            return len(start) + _copy(source, sink, most - len(start))  # type: ignore[arg-type]


def _copy(source: BinaryIO, sink: BinaryIO, most: int) -> int:
    written = 0
    while chunk := source.read(_COPY_BYTES):
        written += len(chunk)
        if written > most:
            raise InvalidError(
                f"A member of the zip is larger than the zip says. {_PACK}", code="zip_bomb"
            )
        sink.write(chunk)
    return written
