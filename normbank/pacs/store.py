"""STOW-RS: results into the PACS, and the PACS's own reasons where it does not take them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Collection, Sequence
from io import BytesIO
from typing import Any

import httpx
import pydicom
from pydicom.dataset import Dataset

from normbank.errors import StoreRejectedError
from normbank.pacs.http import PacsHttp, said_by
from normbank.pacs.query import instances_of

LISTED_WITHIN_S = 15.0
LOOK_AGAIN_S = 0.5
DUPLICATE = 0x0111

_REASONS = {
    0x0106: "an attribute has a value that it does not accept",
    0x0110: "processing failure",
    DUPLICATE: "an object of this UID is there already",
    0x0117: "the object's UID is not valid",
    0x0122: "it does not store this kind of object (SOP class)",
    0x0124: "its user may not store",
    0x0211: "it does not know this operation",
    0x0212: "an argument is mistyped",
    0xA700: "it is out of resources",
    0xA900: "the object does not match its kind (SOP class)",
    0xB000: "it changed attributes",
    0xB006: "it dropped attributes, or the object belongs to another study",
    0xB007: "the object does not match its kind (SOP class)",
    0xC000: "it cannot understand the object",
    0xC122: "it does not take this transfer syntax",
}


def store(http: PacsHttp, study: str, objects: Sequence[Dataset]) -> None:
    """Store results in their study.

    Raises
    ------
    StoreRejectedError
        With the PACS's own reason for each of them. That an object is there
        already is no reason.
    PacsUnreachableError, PacsRefusedError
    """
    body, content_type = _multipart(objects)
    response = http.ask(
        "POST",
        f"studies/{study}",
        content=body,
        content_type=content_type,
        expected=(400, 403, 405, 409, 413, 415, 422, 500, 507),
    )
    failed = _failures(response)
    others = sorted(reason for reason in failed if reason != DUPLICATE)
    if others:
        words = "; ".join(_in_words(reason) for reason in others)
        raise StoreRejectedError(f"The PACS '{http.name}' did not store the results: {words}.")
    if not failed and not response.is_success:
        raise StoreRejectedError(
            f"The PACS '{http.name}' did not store the results: it {said_by(response.status_code)}"
        )


def confirm(http: PacsHttp, study: str, objects: Sequence[Dataset]) -> None:
    """Wait until the PACS lists what was stored.

    Raises
    ------
    StoreRejectedError
        If it said that it had stored them, and does not list them.
    """
    give_up_at = time.monotonic() + LISTED_WITHIN_S
    places = {(str(one.SeriesInstanceUID), str(one.SOPInstanceUID)) for one in objects}
    while missing := not_listed(http, study, places):
        if time.monotonic() > give_up_at:
            raise StoreRejectedError(
                f"The PACS '{http.name}' said that it had stored the results, but "
                f"{len(missing)} of {len(places)} cannot be found there: its own log says why."
            )
        time.sleep(LOOK_AGAIN_S)


def not_listed(
    http: PacsHttp, study: str, places: Collection[tuple[str, str]]
) -> set[tuple[str, str]]:
    """Which of the objects, by the UIDs of series and instance, the PACS does not list."""
    listed = {
        (series, instance)
        for series in {series for series, _ in places}
        for instance in instances_of(http, study, series)
    }
    return set(places) - listed


def _multipart(objects: Sequence[Dataset]) -> tuple[bytes, str]:
    """The body of a request, and its media type."""
    boundary = uuid.uuid4().hex
    body = BytesIO()
    for one in objects:
        body.write(f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        written = BytesIO()
        pydicom.dcmwrite(written, one, enforce_file_format=True)
        body.write(written.getvalue())
        body.write(b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())
    return body.getvalue(), f'multipart/related; type="application/dicom"; boundary={boundary}'


def _failures(response: httpx.Response) -> list[int]:
    """Failure reasons (0008,1197) that an answer lists, one for each object."""
    try:
        failed: Any = response.json()["00081198"]["Value"]
        return [int(item["00081197"]["Value"][0]) for item in failed]
    except (ValueError, LookupError, TypeError):
        return []


def _in_words(reason: int) -> str:
    words = _REASONS.get(reason) or _REASONS.get(reason & 0xFF00) or "no standard reason"
    return f"{words} (failure reason {reason:04X}h)"
