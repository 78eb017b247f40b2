"""`POST /segment`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from app.auth import KeyDep, allow
from app.bodies.jobs import JobBody
from app.bodies.segmentations import SegmentationBody
from app.forms import SCAN_KINDS, Form, FormShape, Upload
from app.negotiation import choose_media_type, prefers_async
from app.openapi import FILE, LABELS_ANSWER, ORIGIN_HEADERS, TEXT, form, headers, problems
from app.parts import Parts, PartsDep
from app.segmenter import AUTO, Order
from app.uploads import receive_form
from normbank.entities import Job, Role, Segmentation

router = APIRouter(tags=["segment"])

GZIP = "application/gzip"
JSON = "application/json"
SHAPE = FormShape(
    texts=frozenset({"domain", "sidecar"}), files={"scan": SCAN_KINDS, "sidecar": (".json",)}
)
BODY = form(
    ("scan",),
    scan={**FILE, "description": "`.nii`, `.nii.gz`, `.mgz` or `.mgh`"},
    domain={**TEXT, "default": AUTO, "description": "a domain id, or `auto`"},
    sidecar={**TEXT, "description": "BIDS JSON with the scanner's header facts"},
)


async def _receive(request: Request, parts: PartsDep) -> AsyncIterator[Form]:
    """The form, read only when there is a place in the queue to work on it.

    The place is held until the answer is made. A request that is answered
    with a job needs room in the table of jobs instead, and a turn, as its
    scan is read to check it.
    """
    choose_media_type(request.headers.get("accept"), (GZIP, JSON))
    if prefers_async(request.headers.get("prefer")):
        await to_thread.run_sync(parts.jobs.check_room)
        async with _form(request, parts) as received, parts.async_checks:
            yield received
        return
    with parts.segmenter.admit():
        async with _form(request, parts) as received:
            yield received


def _form(request: Request, parts: Parts) -> AbstractAsyncContextManager[Form]:
    settings = parts.settings
    return receive_form(
        request,
        SHAPE,
        parts.spool_dir,
        max_file_bytes=settings.max_upload_bytes,
        timeout_s=settings.receive_timeout_s,
    )


@router.post(
    "/segment",
    summary="Segment one scan",
    response_class=Response,
    responses={
        200: {
            **LABELS_ANSWER,
            "content": {
                **LABELS_ANSWER["content"],
                JSON: {"schema": SegmentationBody.model_json_schema()},
            },
        },
        202: {
            "description": "with `Prefer: respond-async`: the job",
            "model": JobBody,
            "headers": headers(Location="the job"),
        },
        **problems(400, 404, 406, 408, 409, 413, 415, 422),
    },
    openapi_extra=allow(Role.SEGMENT, **BODY),
)
def segment(
    request: Request,
    parts: PartsDep,
    key: KeyDep,
    received: Annotated[Form, Depends(_receive, scope="function")],
    certify: Annotated[
        bool, Query(description="add `logits_sha256`, a hash of every score, to `quality`")
    ] = False,
) -> Response:
    """Labels on the scan's own grid, or their volumes, by `Accept`.

    `application/gzip` (default) answers a `.nii.gz` with FreeSurfer ids,
    `application/json` the volumes with a link to the labels. `domain=auto`
    goes by header rules on the sidecar, else takes the only domain there is.
    """
    upload = received.upload("scan")
    order = Order(
        upload.path,
        upload.name,
        received.text("domain", AUTO),
        received.document("sidecar"),
        certify,
    )
    if prefers_async(request.headers.get("prefer")):
        job = _submit(parts, order, upload, key.id)
        accepted = {
            "Location": f"/jobs/{job.id}",
            "Preference-Applied": "respond-async",
            "Retry-After": "1",
        }
        return JSONResponse(JobBody.of(job).model_dump(mode="json"), 202, accepted)
    record, labels = parts.segmenter.segment(order)
    if choose_media_type(request.headers.get("accept"), (GZIP, JSON)) == JSON:
        body = SegmentationBody.of(record).model_dump(mode="json")
        return JSONResponse(body, headers=origin_of(record))
    return Response(labels, media_type=GZIP, headers={**origin_of(record), **download_of(record)})


def _submit(parts: Parts, order: Order, upload: Upload, actor: str) -> Job:
    """Queue a scan whose job will find its domain, its version and its file."""
    state = parts.segmenter.check(order)
    payload = {
        "scan_sha256": upload.sha256,
        "scan_name": upload.name,
        "domain": state.domain_id,
        "version": state.number,
        "certify": order.certify,
    }
    return parts.registry.keep_blobs(
        [upload.sha256],
        lambda: parts.blobs.put_file(upload.path),
        lambda: parts.jobs.submit_segment(payload, domain_id=state.domain_id, actor=actor),
    )


def origin_of(record: Segmentation) -> dict[str, str]:
    """Headers that name the domain, version and backbone of an answer."""
    values = (record.domain_id, str(record.version), record.backbone)
    return {
        **dict(zip(ORIGIN_HEADERS, values, strict=True)),
        "Vary": "Accept, Prefer",
        "Link": f'</segmentations/{record.id}>; rel="describedby"',
    }


def download_of(record: Segmentation) -> dict[str, str]:
    """A file name for who saves the answer; ours, not the client's."""
    return {"Content-Disposition": f'attachment; filename="labels-{record.id}.nii.gz"'}
