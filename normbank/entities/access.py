"""Keys, what they may do, and what was done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from normbank.errors import InvalidError


class Role(StrEnum):
    SEGMENT = "segment"
    MONITOR = "monitor"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret; `prefix` finds the row.

    Attributes
    ----------
    bootstrap : it stands in until there is a first admin key that somebody asked for
    """

    id: str
    name: str
    role: Role
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None
    bootstrap: bool = False


@dataclass(frozen=True, slots=True)
class AuditHead:
    """The newest event of an audit trail at some moment, written down elsewhere.

    Attributes
    ----------
    hash : all of it, or its first digits (`MIN_DIGITS` or more)
    """

    number: int
    hash: str

    MIN_DIGITS: ClassVar[int] = 12

    @classmethod
    def parse(cls, text: str) -> AuditHead:
        """Read `N:HASH`.

        Raises
        ------
        InvalidError
            `bad_audit_head`.
        """
        number, _, digest = text.strip().partition(":")
        short = len(digest) < cls.MIN_DIGITS
        if not number.isdecimal() or short or not set(digest) <= set("0123456789abcdef"):
            raise InvalidError(
                f"A head is NUMBER:HASH, with {cls.MIN_DIGITS} or more digits of the hash.",
                code="bad_audit_head",
            )
        return cls(int(number), digest)

    def __str__(self) -> str:
        return f"{self.number}:{self.hash}"


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One link of the audit chain; `hash` covers the fields and `previous`."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    previous: str
    hash: str
