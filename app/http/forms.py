"""What a multipart form holds, once its files lie on disk."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from normbank.errors import InvalidError

FIELD_BYTES = 256 * 1024
TEXTS_BYTES = 1024 * 1024  # of all texts of a form together
BYTE_ORDER_MARK = "\ufeff"  # what Windows puts before UTF-8
JSON_LEVELS = 8  # how deep a document may be nested


@dataclass(frozen=True, slots=True)
class Upload:
    """One file of a form.

    Attributes
    ----------
    path : where its bytes lie while the request lasts
    name : field, and for an image its kind, such as `scan.nii.gz`; nothing of
        the client's
    """

    path: Path
    name: str
    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class FormShape:
    """The fields a path knows, each once; anything else is refused, as it would be ignored.

    Attributes
    ----------
    texts : names of text fields
    images : of fields that take NIfTI and MGH files
    dicom : of image fields that take DICOM too, as one file or as a zip
    series : of those whose many parts are the images of one DICOM series
    files : of fields that take other files, which their readers judge
    repeated : texts that may be given more than once
    pairs : image fields that may be too, whose n-th files belong together -> what a
        problem calls one of them
    """

    texts: frozenset[str]
    images: frozenset[str] = frozenset()
    dicom: frozenset[str] = frozenset()
    series: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    pairs: Mapping[str, str] = field(default_factory=dict)

    def takes_file(self, name: str) -> bool:
        return name in self.images or name in self.files

    def takes(self, name: str) -> bool:
        return name in self.texts or self.takes_file(name)

    def takes_many(self, name: str) -> bool:
        return name in self.repeated or name in self.pairs or name in self.series


@dataclass
class Form:
    """What a multipart body held, in the order it was sent."""

    fields: dict[str, list[str]] = field(default_factory=dict)
    files: dict[str, list[Upload]] = field(default_factory=dict)

    def text(self, name: str, default: str | None = None) -> str:
        """The one value of a field; an empty one counts as left out.

        Raises
        ------
        InvalidError
            If it is missing without a default.
        """
        value = next((value for value in self.fields.get(name, []) if value), None)
        if value is not None:
            return value.strip() or default or ""
        if default is None:
            raise _missing(name)
        return default

    def texts(self, name: str) -> tuple[str, ...]:
        """Values of a field, sent repeatedly or separated by commas."""
        values = [part.strip() for text in self.fields.get(name, []) for part in text.split(",")]
        return tuple(value for value in values if value)

    def upload(self, name: str) -> Upload:
        """The one file of a field; InvalidError when there is none."""
        uploads = self.files.get(name)
        if not uploads:
            raise _missing(name)
        return uploads[0]

    def document(self, name: str) -> dict[str, Any]:
        """A JSON object, sent as a text or as a small file; empty when left out.

        Raises
        ------
        InvalidError
            With code `bad_json` if it is anything else, or nested deeper
            than `JSON_LEVELS`.
        """
        if name in self.files:
            upload = self.upload(name)
            text = upload.path.read_text("utf-8", "replace") if upload.size <= FIELD_BYTES else ""
        else:
            text = self.text(name, "{}")
        try:
            value = json.loads(text.removeprefix(BYTE_ORDER_MARK))
        except (ValueError, RecursionError) as error:
            raise field_error(name, "bad_json", "This field is not readable as JSON.") from error
        if not isinstance(value, dict):
            raise field_error(name, "bad_json", "This field must be a JSON object.")
        if _is_deeper(value, JSON_LEVELS):
            message = f"This field is nested deeper than {JSON_LEVELS} levels."
            raise field_error(name, "bad_json", message)
        return value


def _is_deeper(value: Any, levels: int) -> bool:
    """Whether objects and lists are nested in more than so many levels."""
    if not isinstance(value, dict | list):
        return False
    members = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(member, levels - 1) for member in members)


def _missing(name: str) -> InvalidError:
    return field_error(name, "missing_field", "This field is required.")


def field_error(name: str, code: str, message: str) -> InvalidError:
    detail = {"field": name, "code": code, "message": message}
    return InvalidError(f"Field {name}: {message}", code=code, facts={"errors": [detail]})
