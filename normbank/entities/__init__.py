"""The words of the domain as immutable values.

These cross package borders; database rows, requests and tensors do not. What
PostgreSQL holds as JSON has `to_json` and `from_json`, which read what earlier
releases have written too.
"""

from normbank.entities.access import ApiKey, AuditEvent, AuditHead, Role
from normbank.entities.adaptations import (
    AdaptationRecord,
    CaseScores,
    HistoryPoint,
    ProbeScore,
    Recipe,
    Replaced,
    Scores,
    UsedCases,
)
from normbank.entities.domains import Case, Domain, DomainState, NewCase, NewState, Promotion
from normbank.entities.flags import Flag, Severity
from normbank.entities.jobs import Job, JobKind, JobState, PacsPayload, SegmentPayload
from normbank.entities.pages import Page
from normbank.entities.segmentations import Segmentation, SegmentationSummary, Traffic
from normbank.entities.signatures import Signature
from normbank.entities.workers import WorkerHeartbeat, WorkerProcess

__all__ = [
    "AdaptationRecord",
    "ApiKey",
    "AuditEvent",
    "AuditHead",
    "Case",
    "CaseScores",
    "Domain",
    "DomainState",
    "Flag",
    "HistoryPoint",
    "Job",
    "JobKind",
    "JobState",
    "NewCase",
    "NewState",
    "PacsPayload",
    "Page",
    "ProbeScore",
    "Promotion",
    "Recipe",
    "Replaced",
    "Role",
    "Scores",
    "SegmentPayload",
    "Segmentation",
    "SegmentationSummary",
    "Severity",
    "Signature",
    "Traffic",
    "UsedCases",
    "WorkerHeartbeat",
    "WorkerProcess",
]
