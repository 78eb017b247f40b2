"""What was answered for a scan."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

from app.bodies.flags import FlagBody
from app.bodies.identification import IdentificationBody
from normbank.entities import Segmentation


class SegmentationBody(BaseModel):
    """Volumes, quality and origin of one segmentation."""

    id: str
    domain: str = Field(examples=["sim-t1w-3t"])
    version: int = Field(examples=[1])
    backbone: str = Field(description="sha256 of the shared weights")
    state_sha256: str = Field(description="content hash of the domain's tensors")
    volumes_mm3: dict[str, float] = Field(examples=[{"left-hippocampus": 3912.0}])
    quality: dict[str, Any]
    timings_s: dict[str, float]
    flags: list[FlagBody] = Field(description="what is doubtful about the scan or the answer")
    identification: IdentificationBody | None = Field(
        description="why this domain; None where the request named it"
    )
    labels: str | None = Field(
        description="where the `.nii.gz` is; None once retention has passed",
        examples=["/segmentations/0b1f…/labels"],
    )
    job: str | None = Field(description="the job that made it, where there was one")
    created_at: datetime
    expires_at: datetime = Field(description="the labels can be fetched until then")

    @classmethod
    def of(cls, segmentation: Segmentation) -> Self:
        kept = segmentation.labels_sha256 is not None
        return cls(
            id=segmentation.id,
            domain=segmentation.domain_id,
            version=segmentation.version,
            backbone=segmentation.backbone,
            state_sha256=segmentation.state_sha256,
            volumes_mm3=dict(segmentation.summary.volumes_mm3),
            quality=dict(segmentation.summary.quality),
            timings_s=dict(segmentation.summary.timings_s),
            identification=IdentificationBody.of(segmentation.summary.identification),
            flags=[FlagBody.model_validate(flag) for flag in segmentation.summary.flags],
            labels=f"/segmentations/{segmentation.id}/labels" if kept else None,
            job=None if segmentation.job_id is None else f"/jobs/{segmentation.job_id}",
            created_at=segmentation.created_at,
            expires_at=segmentation.expires_at,
        )
