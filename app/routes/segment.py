"""`POST /segment`."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse, Response

from app.bodies.jobs import JobBody
from app.bodies.segmentations import SegmentationBody
from app.engine.segmenter import AUTO, SegmentRequest
from app.http.auth import KeyDep, allow
from app.http.disconnect import on_disconnect
from app.http.forms import JSON_LEVELS, Form, FormShape, Upload
from app.http.negotiation import GZIP, choose_media_type, prefers_async
from app.http.openapi import FILE, IMAGE, LABELS_ANSWER, TEXT, form, headers, problems
from app.http.provenance import download_of, origin_of
from app.services import Services, ServicesDep, receive_upload
from normbank.cancellation import Cancellation
from normbank.entities import Job, Role, SegmentPayload

router = APIRouter(tags=["segment"])

JSON = "application/json"
SHAPE = FormShape(
    texts=frozenset({"domain", "sidecar"}),
    images=frozenset({"scan"}),
    files=frozenset({"sidecar"}),
)
BODY = form(
    ("scan",),
    scan={**FILE, "description": IMAGE},
    domain={**TEXT, "default": AUTO, "description": "a domain id, or `auto`; empty: `auto`"},
    sidecar={
        **TEXT,
        "description": "BIDS JSON with the scanner's header facts, as a text or a file: UTF-8, "
        f"nested in at most {JSON_LEVELS} levels",
    },
)


@dataclass(frozen=True, slots=True)
class ReceivedScan:
    """A form that lies there whole, and what tells that its client has left."""

    form: Form
    cancellation: Cancellation


async def _receive(request: Request, services: ServicesDep) -> AsyncIterator[ReceivedScan]:
    """The form, with a place in the queue from when it is whole until the answer is made.

    A queue that is full before is answered before the body is read. A request that is answered
    with a job needs room in the table of jobs instead, and a turn, as its scan is read to
    check it.
    """
    choose_media_type(request.headers.get("accept"), (GZIP, JSON))
    cancellation = Cancellation()
    if prefers_async(request.headers.get("prefer")):
        await to_thread.run_sync(services.core.jobs.check_room)
        async with receive_upload(request, services, SHAPE) as received, services.async_checks:
            yield ReceivedScan(received, cancellation)
        return
    services.segmenter.check_room()
    async with receive_upload(request, services, SHAPE) as received:
        with services.segmenter.admit():
            async with on_disconnect(request, cancellation.cancel):
                yield ReceivedScan(received, cancellation)


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
        **problems(400, 404, 406, 408, 409, 413, 415, 422, 429, 507),
    },
    openapi_extra=allow(Role.SEGMENT, **BODY),
)
def segment(
    request: Request,
    services: ServicesDep,
    key: KeyDep,
    spooled: Annotated[ReceivedScan, Depends(_receive, scope="function")],
    certify: Annotated[
        bool, Query(description="add `logits_sha256`, a hash of every score, to `quality`")
    ] = False,
    accept: Annotated[
        Literal["doubtful"] | None,
        Query(description="`doubtful`: answer even where a flag is severe"),
    ] = None,
) -> Response:
    """Labels on the scan's own grid, or their volumes, by `Accept`.

    `application/gzip` (default) answers a `.nii.gz` with FreeSurfer ids,
    `application/json` the volumes with a link to the labels. `domain=auto`
    goes by header rules on the sidecar, else takes the only domain there is.
    A scan that nobody can place, or an answer that is no anatomy, is 422
    `implausible` with the `flags` that say why, unless `?accept=doubtful`.
    A full queue is 503 before the body is read, or when it has come; a client
    that leaves ends its scan.
    """
    received = spooled.form
    upload = received.upload("scan")
    segment_request = SegmentRequest(
        upload.path,
        received.text("domain", AUTO),
        received.document("sidecar"),
        certify,
        accept_doubtful=accept == "doubtful",
    )
    if prefers_async(request.headers.get("prefer")):
        job = _submit(services, segment_request, upload, key.id)
        accepted = {
            "Location": f"/jobs/{job.id}",
            "Preference-Applied": "respond-async",
            "Retry-After": "1",
        }
        return JSONResponse(JobBody.model_validate(job).model_dump(mode="json"), 202, accepted)
    record, labels = services.segmenter.segment(segment_request, spooled.cancellation)
    if choose_media_type(request.headers.get("accept"), (GZIP, JSON)) == JSON:
        body = SegmentationBody.of(record).model_dump(mode="json")
        return JSONResponse(body, headers=origin_of(record))
    return Response(labels, media_type=GZIP, headers={**origin_of(record), **download_of(record)})


def _submit(services: Services, segment_request: SegmentRequest, upload: Upload, actor: str) -> Job:
    """Queue a scan whose job will find its domain, its version and its file."""
    state = services.segmenter.check(segment_request)
    payload = SegmentPayload(
        upload.sha256,
        upload.name,
        state.domain_id,
        state.number,
        segment_request.certify,
        segment_request.accept_doubtful,
    )
    return services.core.files.keep(
        [upload.sha256],
        lambda: services.core.blobs.put_file(upload.path),
        lambda: services.core.jobs.submit_segment(payload, domain_id=state.domain_id, actor=actor),
    )
