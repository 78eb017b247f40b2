"""`GET /segmentations/{id}` and its labels, while retention lasts."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter
from fastapi.responses import Response

from app.bodies.segmentations import SegmentationBody
from app.http.auth import allow
from app.http.errors import GoneError
from app.http.negotiation import GZIP
from app.http.openapi import LABELS_ANSWER, problems
from app.http.provenance import download_of, origin_of
from app.services import Services, ServicesDep
from normbank.entities import Role, Segmentation
from normbank.errors import CorruptBlobError, NotFoundError

router = APIRouter(tags=["segment"])


@router.get(
    "/segmentations/{segmentation_id}",
    summary="What was answered",
    responses=problems(404),
    openapi_extra=allow(Role.SEGMENT),
)
def show_segmentation(
    segmentation_id: str, services: ServicesDep, response: Response
) -> SegmentationBody:
    """Volumes, quality, timings and origin; they outlive the labels."""
    record = services.core.segmentations.get(segmentation_id)
    response.headers.update(origin_of(record))
    body = SegmentationBody.of(record)
    return body.model_copy(update={"labels": None}) if _expired(record) else body


@router.get(
    "/segmentations/{segmentation_id}/labels",
    summary="The labels that were answered",
    response_class=Response,
    responses={200: LABELS_ANSWER, **problems(404, 410, 502)},
    openapi_extra=allow(Role.SEGMENT),
)
def fetch_labels(segmentation_id: str, services: ServicesDep) -> Response:
    """The same `.nii.gz` once more; 410 `labels_expired` after the retention.

    502 `corrupt_blob` where the store has lost them or given something else
    back: segment the scan again, which stores them anew.
    """
    record = services.core.segmentations.get(segmentation_id)
    if record.labels_sha256 is None or _expired(record):
        raise expired_labels()
    labels = _stored_labels(services, record.id, record.labels_sha256)
    return Response(labels, media_type=GZIP, headers={**origin_of(record), **download_of(record)})


def _stored_labels(services: Services, segmentation_id: str, sha256: str) -> bytes:
    try:
        return services.core.blobs.get_bytes(sha256)
    except NotFoundError as error:
        if services.core.segmentations.get(segmentation_id).labels_sha256 is None:
            raise expired_labels() from error  # a moment ago
        services.core.blobs.report_corrupt(sha256)
        raise CorruptBlobError("The stored labels are gone.") from error


def expired_labels() -> GoneError:
    return GoneError("These labels are kept no longer.", code="labels_expired")


def _expired(record: Segmentation) -> bool:
    return record.expires_at <= datetime.now(UTC)
