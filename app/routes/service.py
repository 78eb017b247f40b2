"""Paths about the service itself."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.bodies.service import (
    BackboneBody,
    CheckBody,
    EngineBody,
    LiveBody,
    OlderBackboneBody,
    ReadyBody,
)
from app.http.auth import allow, allow_anyone
from app.http.openapi import TEXT, problems
from app.services import ServicesDep
from normbank.anatomy import GROUPS, label_table
from normbank.entities import Role

router = APIRouter(tags=["service"])

NOTES = (
    "Research use only. Not a medical device.",
    "The backbone does not separate the sides: each paired structure is split at the mid-sagittal "
    "plane estimated from the labels; structures whose two ids are equal are not split.",
    "Nothing is labelled where a scan is exactly 0 and open to the outside: skull stripping and "
    "masks leave that behind, and the edge of the field of view.",
)
GROUP_NOTE = "`{name}` is one class of this backbone: {members}."


@router.get("/livez", summary="Is the process alive", openapi_extra=allow_anyone())
async def livez() -> LiveBody:
    """Answers from the event loop alone: no database, no thread, no device."""
    return LiveBody()


@router.get(
    "/readyz",
    summary="Can requests be served",
    response_model=ReadyBody,
    responses={503: {"description": "one of the checks fails", "model": ReadyBody}},
    openapi_extra=allow_anyone(),
)
async def readyz(services: ServicesDep) -> JSONResponse:
    """Database, broker, migrations at head, backbone loaded and its hash checked, engine warm.

    Answers within a few seconds whatever hangs, on threads and connections of its own.
    `details` keep nothing from being served: without a worker, scans are still
    answered while the client waits, and jobs are accepted for later.
    """
    readiness = await services.readiness.check()
    body = ReadyBody(
        status="ready" if readiness.ready else "not_ready",
        checks=[CheckBody(name=c.name, ok=c.ok, detail=c.detail) for c in readiness.needs],
        details=dict(readiness.details),
    )
    retry = {} if readiness.ready else {"Retry-After": "2"}
    return JSONResponse(body.model_dump(), 200 if readiness.ready else 503, retry)


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": TEXT}}}, **problems()},
    openapi_extra=allow(Role.MONITOR),
)
def metrics(services: ServicesDep) -> Response:
    """Requests, stages of segmentations, queue, bank, jobs."""
    return Response(services.telemetry.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})


@router.get(
    "/backbone",
    summary="The shared weights",
    responses=problems(),
    openapi_extra=allow(Role.SEGMENT, Role.MONITOR),
)
def show_backbone(services: ServicesDep) -> BackboneBody:
    """Hash, label table, conventions and training facts of the current backbone.

    Domains that were adapted on an older one are served on it until they are
    adapted again; `older` lists those that are loaded.
    """
    spec = services.segmenter.spec
    return BackboneBody(
        sha256=services.segmenter.backbone_sha256,
        name=spec.name,
        classes=list(spec.classes),
        labels=label_table(spec.classes),
        notes=[*NOTES, *_group_notes(spec.classes)],
        spacing_mm=spec.spacing_mm,
        window=list(spec.window),
        plane=spec.plane,
        slice_reach=spec.slice_reach,
        training=dict(spec.training or {}),
        engine=EngineBody.model_validate(services.segmenter.describe()),
        older=[
            OlderBackboneBody.model_validate(backbone) for backbone in services.segmenter.older()
        ],
    )


def _group_notes(classes: Sequence[str]) -> list[str]:
    return [
        GROUP_NOTE.format(name=name, members=", ".join(members))
        for name, members in GROUPS.items()
        if name in classes
    ]
