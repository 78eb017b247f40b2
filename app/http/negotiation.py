"""Content negotiation, preferences and preconditions (RFC 9110, RFC 7240)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated

from fastapi import Header

from app.http.errors import NotAcceptableError, PreconditionFailedError, PreconditionRequiredError

GZIP = "application/gzip"
DICOM = "application/dicom"
RELATED = "multipart/related"
IfMatch = Annotated[str | None, Header(description="the ETag the change is meant for")]

_REVISION = re.compile(r'^"(\d{1,9})"$')


def choose_media_type(accept: str | None, offered: Sequence[str]) -> str:
    """Pick the offered media type a client likes best.

    Parameters
    ----------
    accept : the header's value; None or empty accepts everything
    offered : media types, the server's favourite first

    Raises
    ------
    NotAcceptableError
        If none of them is acceptable.

    Notes
    -----
    RFC 9110, 12.5.1: the most specific range that fits decides a type's q;
    q=0 refuses it.
    """
    if not accept or not accept.strip():
        return offered[0]
    ranges = [_parse_range(item) for item in accept.split(",") if item.strip()]
    scores = [(_quality(kind, ranges), -index) for index, kind in enumerate(offered)]
    quality, negative_index = max(scores)
    if quality <= 0:
        raise NotAcceptableError(
            "None of the media types this path answers is acceptable to the client.",
            facts={"offered": list(offered)},
        )
    return offered[-negative_index]


def _parse_range(text: str) -> tuple[str, float]:
    media_range, *parameters = (part.strip().lower() for part in text.split(";"))
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip() == "q":
            quality = _parse_quality(value.strip())
    return media_range, quality


def _parse_quality(value: str) -> float:
    """A q-value between 0 and 1; what is none counts as 0."""
    return float(value) if re.fullmatch(r"0(\.\d{0,3})?|1(\.0{0,3})?", value) else 0.0


def _quality(kind: str, ranges: Sequence[tuple[str, float]]) -> float:
    family = kind.split("/")[0] + "/*"
    for pattern in (kind, family, "*/*"):
        qualities = [quality for media_range, quality in ranges if media_range == pattern]
        if qualities:
            return max(qualities)
    return 0.0


def prefers_async(prefer: str | None) -> bool:
    """Whether `Prefer` holds `respond-async` (RFC 7240)."""
    return any(
        item.split(";")[0].strip().lower() == "respond-async" for item in (prefer or "").split(",")
    )


def etag(revision: int) -> str:
    return f'"{revision}"'


def require_revision(if_match: str | None, current: int) -> int:
    """The revision a change may build on.

    Raises
    ------
    PreconditionRequiredError
        Without `If-Match`.
    PreconditionFailedError
        If the header names no tag equal to the current one.
    """
    if not if_match or not if_match.strip():
        raise PreconditionRequiredError(
            "This change needs If-Match with the ETag of the domain it is meant for."
        )
    if if_match.strip() == "*":
        return current
    tags = [_REVISION.match(tag.strip()) for tag in if_match.split(",")]
    if current not in [int(tag.group(1)) for tag in tags if tag]:
        raise PreconditionFailedError(
            "The domain has changed since that ETag was read.", facts={"etag": etag(current)}
        )
    return current
