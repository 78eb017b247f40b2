"""`POST /identify`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.bodies.identification import IdentificationBody
from app.engine.segmenter import AUTO, SegmentRequest
from app.http.auth import allow
from app.http.disconnect import on_disconnect
from app.http.forms import Form, FormShape
from app.http.openapi import SCAN, SCAN_PARTS, TEXT, form, problems
from app.http.series import scan_path
from app.services import Services, ServicesDep, receive_upload
from normbank.cancellation import Cancellation
from normbank.entities import Role

router = APIRouter(tags=["segment"])

SHAPE = FormShape(
    texts=frozenset({"sidecar"}),
    images=frozenset({"scan"}),
    dicom=frozenset({"scan"}),
    series=frozenset({"scan"}),
    files=frozenset({"sidecar"}),
)
BODY = form(
    ("scan",),
    scan={**SCAN_PARTS, "description": SCAN},
    sidecar={**TEXT, "description": "BIDS JSON with the scanner's header facts"},
)


async def _receive(
    request: Request, services: ServicesDep
) -> AsyncIterator[tuple[Form, Cancellation]]:
    """The form, with a place in the queue: a network may be asked."""
    services.segmenter.check_room()
    cancellation = Cancellation()
    async with receive_upload(request, services, SHAPE) as received:
        with services.segmenter.admit():
            async with on_disconnect(request, cancellation.cancel):
                yield received, cancellation


@router.post(
    "/identify",
    summary="Which domain a scan belongs to",
    responses=problems(400, 408, 413, 415, 422, 429, 507),
    openapi_extra=allow(Role.SEGMENT, **BODY),
)
def identify(
    services: ServicesDep,
    spooled: Annotated[tuple[Form, Cancellation], Depends(_receive, scope="function")],
) -> IdentificationBody:
    """What `domain=auto` would decide, and why; nothing is stored.

    Header rules go first, then the distance between the scan's own batch-norm statistics and
    those of each domain's scans. `domain` is null, `reason` `abstained`, where nothing is near.
    """
    received, cancellation = spooled
    return _identify(services, received, cancellation)


def _identify(services: Services, received: Form, cancellation: Cancellation) -> IdentificationBody:
    path = scan_path(received, "scan", services.core.limits)
    asked = SegmentRequest(path, AUTO, received.document("sidecar"))
    decision = services.segmenter.identify(asked, cancellation)
    return IdentificationBody.model_validate(decision.to_json())
