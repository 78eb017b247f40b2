from __future__ import annotations

import pytest

from app.http.errors import NotAcceptableError, PreconditionFailedError, PreconditionRequiredError
from app.http.negotiation import choose_media_type, prefers_async, require_revision

OFFERED = ("application/gzip", "application/json")


@pytest.mark.parametrize(
    ("accept", "chosen"),
    [
        (None, "application/gzip"),
        ("", "application/gzip"),
        ("*/*", "application/gzip"),
        ("application/*", "application/gzip"),
        ("application/json", "application/json"),
        ("APPLICATION/JSON; charset=utf-8", "application/json"),
        ("application/gzip;q=0.2, application/json;q=0.9", "application/json"),
        ("application/json;q=0.5, */*;q=0.1", "application/json"),
        ("*/*, application/gzip;q=0", "application/json"),
        ("text/html, application/json;q=0.1", "application/json"),
        ("application/gzip;q=9, application/json;q=0.1", "application/json"),
    ],
)
def test_the_best_acceptable_type_is_chosen(accept: str | None, chosen: str) -> None:
    assert choose_media_type(accept, OFFERED) == chosen


@pytest.mark.parametrize("accept", ["application/dicom", "image/*", "*/*;q=0", ";;,,", "a"])
def test_nothing_acceptable_is_refused(accept: str) -> None:
    with pytest.raises(NotAcceptableError):
        choose_media_type(accept, OFFERED)


@pytest.mark.parametrize(
    ("prefer", "expected"),
    [
        (None, False),
        ("respond-async", True),
        ("wait=10, Respond-Async; x=1", True),
        ("return=minimal", False),
    ],
)
def test_respond_async_is_found_among_preferences(prefer: str | None, expected: bool) -> None:
    assert prefers_async(prefer) is expected


@pytest.mark.parametrize("if_match", ['"3"', '"1", "3"', "*"])
def test_a_matching_tag_lets_a_change_pass(if_match: str) -> None:
    assert require_revision(if_match, 3) == 3


@pytest.mark.parametrize("if_match", ['"2"', 'W/"3"', "3", '"x"', '"-3"'])
def test_another_or_weak_tag_does_not(if_match: str) -> None:
    with pytest.raises(PreconditionFailedError):
        require_revision(if_match, 3)


@pytest.mark.parametrize("if_match", [None, "", " "])
def test_a_change_without_a_tag_is_refused(if_match: str | None) -> None:
    with pytest.raises(PreconditionRequiredError):
        require_revision(if_match, 3)
