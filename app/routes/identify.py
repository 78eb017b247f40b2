"""`POST /identify`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Depends, Request

from app.bodies.identification import IdentificationBody
from app.engine.segmenter import SegmentRequest
from app.http.auth import allow
from app.http.openapi import SCAN, SCAN_PARTS, TEXT, form, problems
from app.http.series import scan_path
from app.services import SCAN_SHAPE, ReceivedScan, ServicesDep, receive_scan
from normbank.entities import Role
from normbank.entities.jobs import AUTO

router = APIRouter(tags=["segment"])

SHAPE = replace(SCAN_SHAPE, texts=frozenset({"sidecar"}))
BODY = form(
    ("scan",),
    scan={**SCAN_PARTS, "description": SCAN},
    sidecar={**TEXT, "description": "BIDS JSON with the scanner's header facts"},
)


async def _receive(request: Request, services: ServicesDep) -> AsyncIterator[ReceivedScan]:
    async with receive_scan(request, services, SHAPE) as received:
        yield received


@router.post(
    "/identify",
    summary="Which domain a scan belongs to",
    responses=problems(400, 408, 413, 415, 422, 429, 507),
    openapi_extra=allow(Role.SEGMENT, **BODY),
)
def identify(
    services: ServicesDep,
    received: Annotated[ReceivedScan, Depends(_receive, scope="function")],
) -> IdentificationBody:
    """What `domain=auto` would decide, and why; nothing is stored.

    Header rules go first, then the distance between the scan's own batch-norm statistics and
    those of each domain's scans. `domain` is null, `reason` `abstained`, where nothing is near.
    """
    path = scan_path(received.form, "scan", services.core.limits)
    asked = SegmentRequest(path, AUTO, received.form.document("sidecar"))
    decision = services.segmenter.identify(asked, received.cancellation)
    return IdentificationBody.model_validate(decision.to_json())
