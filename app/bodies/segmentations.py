"""What was answered for a scan."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, Field

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
    labels: str | None = Field(
        description="where the `.nii.gz` is; None once retention has passed",
        examples=["/segmentations/0b1f…/labels"],
    )
    job: str | None = Field(description="the job that made it, where there was one")
    created_at: datetime
    expires_at: datetime = Field(description="the labels can be fetched until then")

    @classmethod
    def of(cls, found: Segmentation) -> Self:
        kept = found.labels_sha256 is not None
        return cls(
            id=found.id,
            domain=found.domain_id,
            version=found.version,
            backbone=found.backbone,
            state_sha256=found.state_sha256,
            volumes_mm3=dict(found.summary.volumes_mm3),
            quality=dict(found.summary.quality),
            timings_s=dict(found.summary.timings_s),
            labels=f"/segmentations/{found.id}/labels" if kept else None,
            job=None if found.job_id is None else f"/jobs/{found.job_id}",
            created_at=found.created_at,
            expires_at=found.expires_at,
        )
