"""`POST /segment`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Literal

from anyio import to_thread
from fastapi import APIRouter, Depends, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import ValidationError

from app.bodies.jobs import JobBody
from app.bodies.pacs import PacsOrderBody
from app.bodies.segmentations import SegmentationBody
from app.engine.segmenter import SegmentRequest
from app.http.auth import KeyDep, allow
from app.http.dicom import answer_dicom, dicom_bytes, needs_dicom
from app.http.forms import JSON_LEVELS, Form
from app.http.negotiation import DICOM, GZIP, RELATED, choose_media_type, prefers_async
from app.http.openapi import FILE, LABELS_ANSWER, SCAN, SCAN_PARTS, TEXT, form, headers, problems
from app.http.provenance import download_of, origin_of
from app.http.series import is_dicom_upload, scan_path, without_patient
from app.services import (
    SCAN_SHAPE,
    ReceivedScan,
    Services,
    ServicesDep,
    receive_scan,
    receive_upload,
)
from normbank.cancellation import Cancellation
from normbank.dicom.provenance import SegKind
from normbank.entities import Job, Role, SegmentPayload
from normbank.entities.jobs import AUTO

router = APIRouter(tags=["segment"])

JSON = "application/json"
OFFERED = (GZIP, JSON, DICOM, RELATED)
BODY = form(
    ("scan",),
    scan={**SCAN_PARTS, "description": SCAN},
    domain={**TEXT, "default": AUTO, "description": "a domain id, or `auto`; empty: `auto`"},
    sidecar={
        **TEXT,
        "description": "BIDS JSON with the scanner's header facts, as a text or a file: UTF-8, "
        f"nested in at most {JSON_LEVELS} levels",
    },
)

BODY["requestBody"]["content"][JSON] = {"schema": PacsOrderBody.model_json_schema()}


def _is_json(request: Request) -> bool:
    kind = request.headers.get("content-type", "").split(";")[0]
    return kind.strip().lower() == JSON


async def _read_order(request: Request) -> PacsOrderBody:
    """The body of a request for a series of a PACS."""
    try:
        return PacsOrderBody.model_validate_json(await request.body())
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        raise RequestValidationError([{**e, "loc": ("body", *e["loc"])} for e in found]) from error


async def _receive(
    request: Request, services: ServicesDep
) -> AsyncIterator[ReceivedScan | PacsOrderBody]:
    """What is asked for: a series of a PACS, or the form with a scan.

    The form comes with a place in the queue from when it is whole until the answer is made.

    A queue that is full before is answered before the body is read. A request that is answered
    with a job needs room in the table of jobs instead, and a turn, as its scan is read to
    check it.
    """
    if _is_json(request):
        yield await _read_order(request)
        return
    if _is_async(request):
        await to_thread.run_sync(services.core.jobs.check_room)
        async with receive_upload(request, services, SCAN_SHAPE) as form, services.async_checks:
            yield ReceivedScan(form, Cancellation())
        return
    async with receive_scan(request, services) as scan:
        yield scan


def _media_type(request: Request) -> str:
    return choose_media_type(request.headers.get("accept"), OFFERED)


def _is_async(request: Request) -> bool:
    """Whether a job answers; what names a patient is not kept for one, so DICOM is never."""
    in_dicom = _media_type(request) in (DICOM, RELATED)
    return prefers_async(request.headers.get("prefer")) and not in_dicom


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
                DICOM: {"schema": FILE},
                RELATED: {"schema": FILE},
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
    received: Annotated[ReceivedScan | PacsOrderBody, Depends(_receive, scope="function")],
    certify: Annotated[
        bool, Query(description="add `logits_sha256`, a hash of every score, to `quality`")
    ] = False,
    accept: Annotated[
        Literal["doubtful"] | None,
        Query(description="`doubtful`: answer even where a flag is severe"),
    ] = None,
    seg: Annotated[
        SegKind,
        Query(description="of a DICOM answer: one number a voxel, or one bit a voxel and segment"),
    ] = "labelmap",
) -> Response:
    """Labels on the scan's own grid, or their volumes, by `Accept`.

    `application/gzip` (default) answers a `.nii.gz` with FreeSurfer ids,
    `application/json` the volumes with a link to the labels. For a DICOM series,
    `application/dicom` answers a SEG that refers to its images, and
    `multipart/related; type="application/dicom"` that and a TID 1500 report of
    the volumes; both exist in the answer alone, and never by a job. `domain=auto`
    goes by header rules, else by what the scan looks like, and says why in the
    JSON; see `/identify`.
    A scan that nobody can place, or an answer that is no anatomy, is 422
    `implausible` with the `flags` that say why, unless `?accept=doubtful`.
    A full queue is 503 before the body is read, or when it has come; a client
    that leaves ends its scan.

    A JSON body `{"pacs", "study", "series", "domain", "store"}` asks for a series
    that a configured PACS has: always 202, a job that fetches it by WADO-RS and,
    where `store` is true, sends SEG and report back by STOW-RS.
    """
    if isinstance(received, PacsOrderBody):
        return _accepted(services.core.jobs.submit_pacs(received.payload(), actor=key.id))
    form, media_type = received.form, _media_type(request)
    if media_type in (DICOM, RELATED) and not _is_dicom(form):
        raise needs_dicom()
    segment_request = SegmentRequest(
        scan_path(form, "scan", services.core.limits),
        form.text("domain", AUTO),
        form.document("sidecar"),
        certify,
        accept_doubtful=accept == "doubtful",
    )
    if _is_async(request):
        job = _submit(services, segment_request, form, key.id)
        return _accepted(job, {"Preference-Applied": "respond-async"})
    answer = services.segmenter.segment(segment_request, received.cancellation)
    record, provenance = answer.record, origin_of(answer.record)
    if media_type == JSON:
        body = SegmentationBody.of(record).model_dump(mode="json")
        return JSONResponse(body, headers=provenance)
    if media_type != GZIP:
        with services.core.memory.reserved(dicom_bytes(answer.source, seg)):
            return answer_dicom(answer, media_type, seg, provenance)
    return Response(answer.labels, media_type=GZIP, headers={**provenance, **download_of(record)})


def _accepted(job: Job, headers: Mapping[str, str] | None = None) -> Response:
    """202, and where the job is found."""
    found = {"Location": f"/jobs/{job.id}", "Retry-After": "1", **(headers or {})}
    return JSONResponse(JobBody.model_validate(job).model_dump(mode="json"), 202, found)


def _is_dicom(received: Form) -> bool:
    return any(map(is_dicom_upload, received.files["scan"]))


def _submit(services: Services, segment_request: SegmentRequest, received: Form, actor: str) -> Job:
    """Queue a scan whose job will find its domain, its version and its file."""
    checked = services.segmenter.check(segment_request)
    state, upload = checked.state, received.upload("scan")
    if _is_dicom(received):
        upload = without_patient(checked.scan, upload)
    payload = SegmentPayload(
        upload.sha256,
        upload.name,
        state.domain_id,
        state.number,
        segment_request.certify,
        segment_request.accept_doubtful,
        None if checked.decision is None else checked.decision.to_json(),
    )
    return services.core.files.keep(
        [upload.sha256],
        lambda: services.core.blobs.put_file(upload.path),
        lambda: services.core.jobs.submit_segment(payload, domain_id=state.domain_id, actor=actor),
    )
