"""What a worker does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Self

AUTO = "auto"
"""In place of a domain's id: the one that the scan belongs to."""


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class JobKind(StrEnum):
    ADAPT = "adapt"
    SEGMENT = "segment"
    PACS = "pacs"


@dataclass(frozen=True, slots=True)
class JobError:
    """Why a job has failed: a code for machines, a sentence for people."""

    code: str
    detail: str


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of worker work; the row is the truth, the message only its id.

    Attributes
    ----------
    payload : what to do, JSON (the recipe of an adaptation, the stored scan of
        a segmentation, the series of a PACS); what identifies a series is
        dropped when the job has finished
    postponements : attempts that ended with "later", as a PACS was away
    progress : 0 to 1
    eta_s : seconds to the end, estimated; None when unknown
    """

    id: str
    kind: JobKind
    domain_id: str | None
    state: JobState
    attempt: int
    progress: float
    step: str
    eta_s: float | None
    payload: Mapping[str, Any]
    result: Mapping[str, Any] | None
    error_code: str | None
    error_detail: str | None
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    postponements: int = 0

    @property
    def error(self) -> JobError | None:
        """None unless it has failed."""
        return (
            None if self.error_code is None else JobError(self.error_code, self.error_detail or "")
        )


@dataclass(frozen=True, slots=True)
class _Payload:
    """What a job shall do, as its row keeps it."""

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """What `to_json` wrote, also of a release that knew more or fewer members."""
        names = {attribute.name for attribute in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class SegmentPayload(_Payload):
    """What the job `segment` shall do; `Job.payload` holds it as JSON.

    Attributes
    ----------
    scan_sha256 : blob of the scan
    scan_name : its kind, such as `scan.nii.gz`
    domain, version : what was promised to answer
    certify : add the hash of every score to the quality
    accept_doubtful : answer even where there are severe flags
    identification : why this domain, JSON; None where it was named
    """

    scan_sha256: str
    scan_name: str
    domain: str
    version: int
    certify: bool = False
    accept_doubtful: bool = False
    identification: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class PacsPayload(_Payload):
    """What the job `pacs` shall do; `Job.payload` holds it as JSON.

    Attributes
    ----------
    pacs : its name in the PACS file
    study, series : UIDs; kept while the job is unfinished
    domain : an id, or `auto`
    store : whether the results go into the PACS
    instances : how many the series had when this was asked for; None: whatever is there
    seed : the results' UIDs are made of it, so that a repetition stores the same
        objects; empty: the job's id
    draft : the result as it will be once the PACS lists what is being stored
    """

    pacs: str
    study: str
    series: str
    domain: str = AUTO
    store: bool = True
    instances: int | None = None
    seed: str = ""
    draft: Mapping[str, Any] | None = None


IDENTIFYING = ("study", "series", "draft")
"""Members of a payload that a finished job no longer needs."""
