"""What a multipart form holds, once its files lie on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normbank.errors import InvalidError

FIELD_BYTES = 256 * 1024
SCAN_KINDS = (".nii.gz", ".nii", ".mgz", ".mgh")


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a form.

    Attributes
    ----------
    path : where its bytes lie while the request lasts
    name : field and kind, such as `scan.nii.gz`; nothing of the client's
    """

    path: Path
    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class FormShape:
    """The fields a path knows; anything else is refused, as it would be ignored.

    Attributes
    ----------
    texts : names of text fields
    files : name -> endings of the file kinds it takes
    """

    texts: frozenset[str]
    files: Mapping[str, tuple[str, ...]]


@dataclass
class Form:
    """What a multipart body held, in the order it was sent."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[Upload]] = field(default_factory=dict)

    def text(self, name: str, default: str | None = None) -> str:
        """The one value of a field.

        Raises
        ------
        InvalidError
            If it is missing without a default, or given more than once.
        """
        values = self.fields.get(name, [])
        if len(values) == 1:
            return values[0].strip()
        if values or default is None:
            raise _wrong_count(name, len(values))
        return default

    def texts(self, name: str) -> tuple[str, ...]:
        """Values of a field, sent repeatedly or separated by commas."""
        values = [part.strip() for text in self.fields.get(name, []) for part in text.split(",")]
        return tuple(value for value in values if value)

    def upload(self, name: str) -> Upload:
        """The one file of a field; InvalidError when there is not exactly one."""
        uploads = self.files.get(name, [])
        if len(uploads) != 1:
            raise _wrong_count(name, len(uploads))
        return uploads[0]

    def document(self, name: str) -> dict[str, Any]:
        """A JSON object, sent as a text or as a small file; empty when left out.

        Raises
        ------
        InvalidError
            With code `bad_json` if it is anything else.
        """
        if name in self.files:
            upload = self.upload(name)
            text = upload.path.read_text("utf-8", "replace") if upload.size <= FIELD_BYTES else ""
        else:
            text = self.text(name, "{}")
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise field_error(name, "bad_json", "This field is not readable as JSON.") from error
        if not isinstance(value, dict):
            raise field_error(name, "bad_json", "This field must be a JSON object.")
        return value


def _wrong_count(name: str, count: int) -> InvalidError:
    if count:
        return field_error(name, "repeated_field", "This field may be given only once.")
    return field_error(name, "missing_field", "This field is required.")


def field_error(name: str, code: str, message: str) -> InvalidError:
    detail = {"field": name, "code": code, "message": message}
    return InvalidError(f"Field {name}: {message}", code=code, facts={"errors": [detail]})
