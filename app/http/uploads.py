"""Multipart bodies, streamed to capped files on disk.

The parser runs in the event loop on one chunk at a time; hashing and writing
go to a thread, a MiB at a time, so that a large upload stalls nobody. A part's
first bytes decide its kind. Its file name decides nothing, whatever a client
makes of an umlaut in it, and no path on disk and no log line ever holds it.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

import anyio
from anyio import to_thread
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app.http.errors import MalformedRequestError, UnsupportedMediaError, UploadTimeoutError
from app.http.forms import (
    FIELD_BYTES,
    TEXTS_BYTES,
    Form,
    FormShape,
    Upload,
    field_error,
)
from app.http.gate import Arrival, UploadGate
from normbank.config import Settings
from normbank.errors import NormbankError, TooLargeError, UnknownFileKindError
from normbank.imaging.headers import START_BYTES
from normbank.services.matching import is_storable
from normbank.source import DICOM, ZIP, ending_of

FLUSH_BYTES = 1024 * 1024
MAX_PARTS = 4096
# RFC 5987's `filename*=`, which multipart forms should not use and .NET and httpie do.
_ENCODED_FILE_NAME = re.compile(rb";\s*filename\*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class UploadLimits:
    """What one upload may be like.

    Attributes
    ----------
    file_bytes : of one part
    timeout_s : for the whole body to arrive
    least_bytes_per_s, patience_s : see `_Pace`
    """

    file_bytes: int
    timeout_s: float
    least_bytes_per_s: int
    patience_s: float

    @classmethod
    def of(cls, settings: Settings) -> UploadLimits:
        return cls(
            settings.max_upload_bytes,
            settings.receive_timeout_s,
            settings.least_upload_bytes_per_s,
            settings.upload_patience_s,
        )


@asynccontextmanager
async def receive_form(
    request: Request, shape: FormShape, spool_dir: Path, limits: UploadLimits, gate: UploadGate
) -> AsyncIterator[Form]:
    """Stream a request's multipart body to disk and clean up afterwards.

    Parameters
    ----------
    shape : what the path knows
    spool_dir : an existing folder; each request gets its own below it
    gate : lets the request's key in

    Raises
    ------
    UploadTimeoutError
        If it does not arrive in time, or too slowly.
    TooManyUploadsError, BusyError
        If the gate lets no more in.
    UnsupportedMediaError
        If the body is not multipart/form-data.
    MalformedRequestError
        If it is broken or cut off.
    TooLargeError
        If a part is larger than it may be, or there are too many.
    UnknownFileKindError
        At the first image that is none, as soon as its first bytes are there.
    """
    content_type, parameters = parse_options_header(request.headers.get("content-type"))
    if content_type != b"multipart/form-data":
        raise UnsupportedMediaError(
            "This path takes multipart/form-data.", facts={"offered": ["multipart/form-data"]}
        )
    boundary = parameters.get(b"boundary")
    if not boundary:
        raise MalformedRequestError("The multipart body names no boundary.")
    length = request.headers.get("content-length", "")
    request.state.body.expect_form()
    with gate.enter(request.state.key.id, int(length) if length.isdigit() else 0) as arrival:
        folder = Path(tempfile.mkdtemp(prefix="request-", dir=spool_dir))
        try:
            receiver = _Receiver(shape, folder, limits.file_bytes)
            await receiver.read(_chunks(request, limits, arrival), boundary)
            receiver.check_series()
            arrival.is_whole()
            yield receiver.form
        finally:
            with anyio.CancelScope(shield=True):
                await to_thread.run_sync(shutil.rmtree, folder)


async def _chunks(request: Request, limits: UploadLimits, arrival: Arrival) -> AsyncIterator[bytes]:
    """The body as it arrives, counted; UploadTimeoutError when it takes too long."""
    stream, pace = aiter(request.stream()), _Pace(limits)
    ends = monotonic() + limits.timeout_s
    while True:
        asked = monotonic()
        try:
            with anyio.fail_after(min(pace.left_s, ends - asked)):
                chunk = await anext(stream)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            raise UploadTimeoutError("The upload did not arrive in time; send it again.") from error
        pace.count(len(chunk), monotonic() - asked)
        arrival.add(len(chunk))
        yield chunk


class _Pace:
    """For how long a client may be silent: each byte wins time, waiting for it takes it.

    Only the client's time counts, not what this side needs to write the bytes down.

    Attributes
    ----------
    left_s : from now on; `patience_s` at the start and at most
    """

    def __init__(self, limits: UploadLimits) -> None:
        self._limits = limits
        self.left_s = limits.patience_s

    def count(self, size: int, waited_s: float) -> None:
        """So many bytes have come after so many seconds."""
        won_s = size / self._limits.least_bytes_per_s
        self.left_s = min(self.left_s - waited_s + won_s, self._limits.patience_s)


@dataclass
class _Part:
    """One part of the body.

    Attributes
    ----------
    number : which of its field's parts it is, from 0, without empty ones
    named : whether it carries a file name that is not empty
    ending : of its kind, such as `.nii.gz`; None: not known yet
    """

    name: str
    path: Path
    is_file: bool
    number: int = 0
    named: bool = False
    ending: str | None = None
    buffer: bytearray = field(default_factory=bytearray)
    digest: hashlib._Hash = field(default_factory=hashlib.sha256)
    size: int = 0
    done: bool = False


class _Receiver:
    """Takes the parser's callbacks and moves the bytes on."""

    def __init__(self, shape: FormShape, folder: Path, max_file_bytes: int) -> None:
        self.form = Form()
        self._shape = shape
        self._folder = folder
        self._max_file_bytes = max_file_bytes
        self._part: _Part | None = None
        self._parts = 0
        self._counts: Counter[str] = Counter()
        self._whole: set[str] = set()
        self._faults: dict[str, NormbankError] = {}
        self._texts_size = 0
        self._pending: list[_Part] = []
        self._headers: dict[bytes, bytes] = {}
        self._header_name = bytearray()
        self._header_value = bytearray()
        self._ended = False

    async def read(self, chunks: AsyncIterator[bytes], boundary: bytes) -> None:
        try:
            parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._headers.clear,
                    "on_header_field": self._on_header_field,
                    "on_header_value": self._on_header_value,
                    "on_header_end": self._on_header_end,
                    "on_headers_finished": self._on_headers_finished,
                    "on_part_data": self._on_part_data,
                    "on_part_end": self._on_part_end,
                    "on_end": self._on_end,
                },
            )
            async for chunk in chunks:
                parser.write(chunk)
                await self._flush()
            parser.finalize()
        except FormParserError as error:
            raise MalformedRequestError("The multipart body is broken.") from error
        if not self._ended:
            raise MalformedRequestError("The multipart body is cut off.")

    async def _flush(self) -> None:
        """Hand full buffers, and those of ended parts, to a thread."""
        ready = [part for part in self._pending if part.done or len(part.buffer) >= FLUSH_BYTES]
        for part in ready:
            if part.is_file:
                await to_thread.run_sync(_write, part)
            if part.done:
                self._pending.remove(part)
                self._keep(part)

    def _keep(self, part: _Part) -> None:
        if not part.is_file:
            text = part.buffer.decode("utf-8", "replace")
            if not is_storable(text):
                raise field_error(part.name, "bad_text", "This field holds a NUL character.")
            self.form.fields.setdefault(part.name, []).append(text)
        elif part.size or part.named:  # a browser sends neither where no file was chosen
            name = part.name + (part.ending or "")
            upload = Upload(part.path, name, part.digest.hexdigest(), part.size)
            self.form.files.setdefault(part.name, []).append(upload)

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header_name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._header_value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[bytes(self._header_name).lower()] = bytes(self._header_value)
        self._header_name.clear()
        self._header_value.clear()

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if not name:
            raise MalformedRequestError("A part of the multipart body has no name.")
        if self._parts >= MAX_PARTS:
            raise TooLargeError("The form has too many parts.", code="too_many_parts")
        encoded = _ENCODED_FILE_NAME.search(disposition) is not None
        has_name = encoded or b"filename" in options
        part = _Part(
            name,
            self._folder / str(self._parts),
            is_file=self._is_file(name, has_name),
            number=self._counts[name],
            named=encoded or bool(options.get(b"filename")),
        )
        if part.named:
            self._count(part)
        self._part = part
        self._parts += 1
        self._pending.append(part)

    def _count(self, part: _Part) -> None:
        """Refuse one too many of a field where it begins; empty ones do not count."""
        self._counts[part.name] += 1
        many = self._shape.takes_many(part.name) and part.name not in self._whole
        if self._counts[part.name] > 1 and not many:
            raise _repeated(part.name)

    def _is_file(self, name: str, has_name: bool) -> bool:
        """Whether a part is a file: by its file name, else by a type that is no text's."""
        shape = self._shape
        if not shape.takes(name):
            raise field_error(name[:64], "unknown_field", "This path has no such field.")
        if has_name and not shape.takes_file(name):
            raise field_error(name, "not_a_text", "This field is a text, not a file.")
        content_type = self._headers.get(b"content-type", b"text/plain").strip().lower()
        is_file = shape.takes_file(name) and (has_name or not content_type.startswith(b"text/"))
        if not is_file and name not in shape.texts:
            message = (
                "This field is a file: send it with a file name, or with a content type such as "
                "application/octet-stream."
            )
            raise field_error(name, "not_a_file", message)
        return is_file

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        assert part is not None, "data before the part's headers"
        if not part.size and not part.named:
            self._count(part)
        part.size += end - start
        limit = self._max_file_bytes if part.is_file else FIELD_BYTES
        if part.size > limit:
            raise TooLargeError(
                "A part of the form is too large.", facts={"field": part.name, "limit_bytes": limit}
            )
        if not part.is_file:
            self._check_texts(end - start)
        part.buffer += data[start:end]
        if part.ending is None and len(part.buffer) >= START_BYTES:
            part.ending = self._ending_of(part)

    def _check_texts(self, size: int) -> None:
        """Texts stay in memory until the answer, so there is a cap on all of them."""
        self._texts_size += size
        if self._texts_size > TEXTS_BYTES:
            raise TooLargeError(
                "The texts of the form are too large together.",
                facts={"limit_bytes": TEXTS_BYTES},
            )

    def _on_part_end(self) -> None:
        part = self._part
        assert part is not None, "an end before the part's headers"
        if part.ending is None and (part.size or part.named):
            part.ending = self._ending_of(part)
        part.done = True

    def _ending_of(self, part: _Part) -> str:
        """The ending of an image's kind, by what has come of it; none for what is no image."""
        shape = self._shape
        if not part.is_file or part.name not in shape.images:
            return ""
        try:
            ending = ending_of(bytes(part.buffer[:START_BYTES]))
            if ending in (DICOM, ZIP) and part.name not in shape.dicom:
                raise _no_volume()
        except NormbankError as error:
            error.facts["field"] = part.name
            if part.name in shape.pairs:
                error.facts |= {"pair": part.number, "file": shape.pairs[part.name]}
            if part.name not in shape.series or len(part.buffer) >= START_BYTES:
                raise
            self._faults.setdefault(part.name, error)  # little, and may lie beside a series
            return ""
        if part.name in shape.series and ending != DICOM:
            if part.number:
                raise _repeated(part.name)
            self._whole.add(part.name)
        return ending

    def _on_end(self) -> None:
        self._ended = True

    def check_series(self) -> None:
        """What is no image is forgiven beside the images of a series, and nowhere else."""
        for name, fault in self._faults.items():
            if not any(upload.name.endswith(DICOM) for upload in self.form.files[name]):
                raise fault


def _no_volume() -> UnknownFileKindError:
    return UnknownFileKindError(
        "This field takes no DICOM.", facts={"offered": [".nii.gz", ".nii", ".mgz", ".mgh"]}
    )


def _repeated(name: str) -> NormbankError:
    return field_error(name, "repeated_field", "This field may be given only once.")


def _write(part: _Part) -> None:
    part.digest.update(part.buffer)
    with part.path.open("ab") as file:
        file.write(part.buffer)
    part.buffer.clear()
