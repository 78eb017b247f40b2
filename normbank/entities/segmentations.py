"""What was answered."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from normbank.entities.flags import Flag


@dataclass(frozen=True, slots=True)
class SegmentationSummary:
    """What is kept of an answer beside its labels.

    Attributes
    ----------
    volumes_mm3 : per side and structure
    quality : what a reader may judge the answer by, JSON
    timings_s : per stage
    flags : what is doubtful about the scan or the answer
    identification : why this domain, JSON; None where it was named
    """

    volumes_mm3: Mapping[str, float] = field(default_factory=dict)
    quality: Mapping[str, Any] = field(default_factory=dict)
    timings_s: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
    identification: Mapping[str, Any] | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(
            dict(values.get("volumes_mm3", {})),
            dict(values.get("quality", {})),
            dict(values.get("timings_s", {})),
            tuple(Flag.from_json(flag) for flag in values.get("flags", ())),
            values.get("identification"),
        )

    def to_json(self) -> dict[str, Any]:
        why = {} if self.identification is None else {"identification": self.identification}
        return {
            "volumes_mm3": dict(self.volumes_mm3),
            "quality": dict(self.quality),
            "timings_s": dict(self.timings_s),
            "flags": [flag.to_json() for flag in self.flags],
            **why,
        }


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What was answered for one scan.

    Attributes
    ----------
    labels_sha256 : blob of the `.nii.gz`; None once retention has passed
    """

    id: str
    domain_id: str
    version: int
    backbone: str
    state_sha256: str
    labels_sha256: str | None
    summary: SegmentationSummary
    job_id: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Traffic:
    """How a domain was used in the last `window_s` seconds."""

    window_s: float
    count: int
    errors: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    volumes_mm3: tuple[Mapping[str, Any], ...] = field(default=())
