"""The PACS file: which PACS there are, how they are reached, and what is taken from them.

    [[pacs]]
    name = "main"
    dicomweb_url = "https://pacs.example/dicom-web"

NORMBANK_PACS_FILE names it. Passwords never stand in it: it names the
environment variables that hold them.
"""

from __future__ import annotations

import os
import re
import ssl
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from normbank.entities.jobs import AUTO
from normbank.errors import InvalidError, NormbankError, NotFoundError
from normbank.services.matching import validate_rules

_BIDS_NAMES = ("ManufacturersModelName",)  # beside the keywords, see `normbank.dicom.facts`
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")

Seconds = Annotated[float, Field(gt=0, le=86_400)]


def is_uid(text: str) -> bool:
    """Whether a text is a DICOM UID: digits and single dots, at most 64."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


class _Table(BaseModel):
    """A table of the file: unknown keys are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Route(_Table):
    """Which series is taken, and what becomes of it.

    Attributes
    ----------
    match : rules over the header's facts, see `normbank.services.matching`;
        keys are DICOM keywords such as `SeriesDescription`; empty: every MR series
    domain : a domain's id, or `auto`
    store : whether the results are stored in the PACS
    """

    match: dict[str, Any] = {}
    domain: str = Field(default=AUTO, pattern="^[a-z0-9-]{1,63}$")
    store: bool = True

    @field_validator("match")
    @classmethod
    def _can_be_applied(cls, rules: dict[str, Any]) -> dict[str, Any]:
        try:
            validate_rules(rules)
        except InvalidError as error:
            raise ValueError(str(error)) from error
        from pydicom.datadict import tag_for_keyword  # what has no routes does not wait for it

        for name in rules:
            if name not in _BIDS_NAMES and tag_for_keyword(name) is None:
                raise ValueError(f"'{name}' is no DICOM keyword, such as SeriesDescription")
        return rules


class Pacs(_Table):
    """One PACS, as the file describes it.

    Attributes
    ----------
    dicomweb_url : root of its DICOMweb services
    username_env, password_env : names of the environment variables with the credentials
    ca_file : certificates that its own is checked with; None: those of the system
    seg : kind of the stored SEG
    report : store the volumes as a TID 1500 report beside the SEG
    watch : whether the listener follows it
    follow : how: by Orthanc's list of changes, by repeated QIDO-RS queries, or
        `auto`: the first where there is one
    watch_days : the listener takes what Orthanc has received, or by QIDO-RS what was
        acquired, so many days ago at most; 0: everything
    poll_s : seconds between two looks of the listener
    settle_s : a series whose number of instances stands still so long is whole
    complete_within_s : how long more is waited for images that the header promises
    connect_timeout_s, read_timeout_s : of each request
    patience_s : a job waits so long, all in all, for a PACS that is away
    """

    name: str = Field(pattern="^[A-Za-z0-9_.-]{1,63}$")
    dicomweb_url: str
    username_env: str | None = None
    password_env: str | None = None
    ca_file: Path | None = None
    seg: Literal["labelmap", "binary"] = "labelmap"
    report: bool = True
    watch: bool = False
    follow: Literal["auto", "orthanc", "qido"] = "auto"
    watch_days: int = Field(default=7, ge=0, le=36_500)
    poll_s: Seconds = 5.0
    settle_s: Seconds = 10.0
    complete_within_s: Seconds = 300.0
    connect_timeout_s: Seconds = 5.0
    read_timeout_s: Seconds = 60.0
    patience_s: Seconds = 900.0
    route: tuple[Route, ...] = ()

    @field_validator("dicomweb_url")
    @classmethod
    def _is_a_plain_url(cls, text: str) -> str:
        url = urlsplit(text)
        if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
            raise ValueError("must be an address such as http://host:8042/dicom-web")
        if url.username or url.password:
            raise ValueError("must hold no credentials; use username_env and password_env")
        _ = url.port  # ValueError where it is none
        return text.rstrip("/")

    @field_validator("ca_file")
    @classmethod
    def _holds_certificates(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        if not path.is_file():
            raise ValueError("there is no such file")
        try:
            ssl.create_default_context(cafile=path)
        except (ssl.SSLError, OSError) as error:
            raise ValueError("holds no certificates that can be read (PEM)") from error
        return path

    @model_validator(mode="after")
    def _has_its_credentials(self) -> Self:
        if (self.username_env is None) != (self.password_env is None):
            raise ValueError("username_env and password_env go together")
        for name in filter(None, (self.username_env, self.password_env)):
            if not os.environ.get(name):
                raise ValueError(f"the environment variable {name} is not set")
        return self

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password, read from the environment; None: the PACS asks for none."""
        if self.username_env is None or self.password_env is None:
            return None
        return os.environ[self.username_env], os.environ[self.password_env]


class PacsFile(_Table):
    """Every PACS of the file, in its order."""

    pacs: tuple[Pacs, ...] = ()

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [pacs.name for pacs in self.pacs]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"the name '{name}' is used twice")
        return self

    def get(self, name: str) -> Pacs:
        """The PACS of that name; NotFoundError `unknown_pacs`."""
        for pacs in self.pacs:
            if pacs.name == name:
                return pacs
        known = ", ".join(f"'{pacs.name}'" for pacs in self.pacs) or "none"
        raise NotFoundError(
            f"There is no PACS of that name; the PACS file (NORMBANK_PACS_FILE) names {known}.",
            code="unknown_pacs",
        )

    @property
    def watched(self) -> tuple[Pacs, ...]:
        """Those that the listener follows."""
        return tuple(pacs for pacs in self.pacs if pacs.watch)


def read_pacs_file(path: Path | None) -> PacsFile:
    """Read and check the PACS file.

    Parameters
    ----------
    path : None: there is no file, and so no PACS

    Raises
    ------
    NormbankError
        `bad_pacs_file`, with one line that says where.
    """
    if path is None:
        return PacsFile()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise _bad_file(path, error.strerror or "cannot be read") from error
    except ValueError as error:  # of TOML or of UTF-8
        raise _bad_file(path, str(error)) from error
    try:
        return PacsFile.model_validate(tables)
    except ValidationError as error:
        raise _bad_file(path, _first_fault(tables, error)) from error


def _bad_file(path: Path, why: str) -> NormbankError:
    line = " ".join(f"PACS file {path.name} (NORMBANK_PACS_FILE): {why}".split())
    return InvalidError(line, code="bad_pacs_file")


def _first_fault(tables: dict[str, Any], error: ValidationError) -> str:
    """Where the first fault lies, and what it is; never a value, which may be a password."""
    fault = error.errors(include_url=False, include_input=False)[0]
    where: list[str] = []
    for step in fault["loc"]:
        if isinstance(step, int):
            where[-1] += f" {step + 1}"
        else:
            where.append(str(step))
    name = _name_at(tables, fault["loc"])
    if name and where:
        where[0] += f" '{name}'"
    what = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "extra_forbidden":
        what = "there is no such key"
    return f"{', '.join(where)}: {what}" if where else what


def _name_at(tables: dict[str, Any], place: tuple[int | str, ...]) -> str | None:
    """The name of the PACS that a fault lies in, where it has a sound one."""
    if len(place) < 2 or not isinstance(place[1], int):
        return None
    table = tables["pacs"][place[1]]
    name = table.get("name") if isinstance(table, dict) else None
    return name if isinstance(name, str) and len(name) <= 63 and name.isprintable() else None
