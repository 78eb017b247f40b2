"""What is doubtful about a scan, its labels or an answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self


class Severity(StrEnum):
    """How much an answer suffers."""

    INFO = "info"  # worth knowing; the answer is as good as any
    WARNING = "warning"  # part of the answer may be wrong
    SEVERE = "severe"  # the answer is wrong or may be: it is held back unless asked for


@dataclass(frozen=True, slots=True)
class Flag:
    """One doubt.

    Attributes
    ----------
    code : stable, for machines, such as `forms_disagree`
    detail : a sentence with the numbers that were seen; names nobody
    structure : where it is about one, such as `left-hippocampus`
    """

    code: str
    severity: Severity
    detail: str
    structure: str | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        severity = Severity(values["severity"])
        return cls(values["code"], severity, values["detail"], values.get("structure"))

    def to_json(self) -> dict[str, Any]:
        given = {"code": self.code, "severity": str(self.severity), "detail": self.detail}
        return given | ({} if self.structure is None else {"structure": self.structure})


def info(code: str, detail: str, structure: str | None = None) -> Flag:
    return Flag(code, Severity.INFO, detail, structure)


def warning(code: str, detail: str, structure: str | None = None) -> Flag:
    return Flag(code, Severity.WARNING, detail, structure)


def severe(code: str, detail: str, structure: str | None = None) -> Flag:
    return Flag(code, Severity.SEVERE, detail, structure)


def severe_ones(flags: Iterable[Flag]) -> tuple[Flag, ...]:
    """Those that hold an answer back."""
    return tuple(flag for flag in flags if flag.severity is Severity.SEVERE)


def codes(flags: Iterable[Flag]) -> tuple[str, ...]:
    """Every code once, in the order of first appearance."""
    return tuple(dict.fromkeys(flag.code for flag in flags))
