"""The words of the domain as immutable values.

These cross package borders; database rows, requests and tensors do not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from enum import StrEnum
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")


class Role(StrEnum):
    SEGMENT = "segment"
    MONITOR = "monitor"
    ADMIN = "admin"


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


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of one adaptation (Karani et al., MICCAI 2018, section 2).

    Attributes
    ----------
    seed : every random draw of the run follows from it
    steps : optimiser steps at most
    batch_size : slices per step
    learning_rate : Adam's, at the start of a cosine decay
    augment : mirror the training slices at random, vary contrast and noise
    head : learn a last 1×1 convolution of the domain's own too (2 KB)
    adapters : learn 1×1 convolutions parallel to the shared ones too (432 KB)
    refit : once the validation half has judged, learn from all cases
    validate_every : steps between two looks at the validation half
    patience : looks without progress before the run ends
    slice_stride : the probe and the validation score every n-th slice
    parent : `domain@version` to start from; None: the nearest stored state
    publish : promote when the gate passes; otherwise keep as a candidate
    gate_margin : Dice the new version may lie below the active one
    """

    seed: int = 0
    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-2
    augment: bool = True
    head: bool = True
    adapters: bool = True
    refit: bool = True
    validate_every: int = 25
    patience: int = 3
    slice_stride: int = 4
    parent: str | None = None
    publish: bool = True
    gate_margin: float = 0.0

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from stored JSON; keys of older or newer recipes are ignored."""
        known = {f.name for f in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in known})


@dataclass(frozen=True, slots=True)
class Domain:
    """One scanner and protocol.

    Attributes
    ----------
    match : rules over header facts, see `normbank.services.matching`
    structures : names the cases annotate; empty: those present in each case
    active_version : the version that is served; None: not ready
    revision : grows with every change; its ETag
    backbone : sha256 of the one the active version belongs to
    """

    id: str
    name: str
    match: Mapping[str, Any]
    label_scheme: str
    structures: tuple[str, ...]
    active_version: int | None
    revision: int
    archived: bool
    case_count: int
    created_at: datetime
    updated_at: datetime
    backbone: str | None = None


@dataclass(frozen=True, slots=True)
class DomainState:
    """One immutable version of a domain's private tensors, without the bytes.

    Attributes
    ----------
    number : version, from 1
    sha256 : content hash of the tensors
    backbone : sha256 of the backbone the tensors belong to
    parent : `domain@version` it grew from; None for an initial state
    metrics : `{"before": …, "after": …, "candidates": […], "cases": …}`;
        empty for an initial or imported state
    quarantined : why the state is refused; None when it is sound
    """

    domain_id: str
    number: int
    sha256: str
    backbone: str
    parent: str | None
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    job_id: str | None
    quarantined: str | None
    created_at: datetime

    @property
    def ref(self) -> str:
        return f"{self.domain_id}@{self.number}"


@dataclass(frozen=True, slots=True)
class NewState:
    """A state to be published: its bytes and where they come from.

    Attributes
    ----------
    sha256 : content hash of the tensors, as `models` computes it
    tensors : safetensors bytes
    job_id : the adaptation that made it; None for an initial or imported one
    """

    sha256: str
    backbone: str
    parent: str | None
    recipe: Mapping[str, Any]
    metrics: Mapping[str, Any]
    job_id: str | None
    tensors: bytes

    @classmethod
    def imported(cls, sha256: str, backbone: str, tensors: bytes) -> Self:
        """A state that no adaptation of this service has made: built in or imported."""
        return cls(sha256, backbone, None, {}, {}, None, tensors)


@dataclass(frozen=True, slots=True)
class Promotion:
    """One move of a domain's active version; a rollback is one more.

    Attributes
    ----------
    from_version, to_version : None where nothing was, or is, served
    """

    domain_id: str
    from_version: int | None
    to_version: int | None
    actor: str
    reason: str
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Case:
    """A scan with reference labels, by content hash; no identities.

    Attributes
    ----------
    structures : the annotated ones, names of `normbank.anatomy`
    shape : voxels (X, Y, Z)
    spacing_mm : (X, Y, Z)
    scan_name, labels_name : file kind only, such as `scan.nii.gz`
    """

    id: str
    domain_id: str
    scan_sha256: str
    labels_sha256: str
    scan_name: str
    labels_name: str
    label_scheme: str
    structures: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Job:
    """One unit of worker work; the row is the truth, the message only its id.

    Attributes
    ----------
    payload : what to do, JSON (the recipe of an adaptation, the stored scan of
        a segmentation)
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


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What was answered for one scan.

    Attributes
    ----------
    labels_sha256 : blob of the `.nii.gz`; None once retention has passed
    summary : volumes_mm3, quality, timings_s
    """

    id: str
    domain_id: str
    version: int
    backbone: str
    state_sha256: str
    labels_sha256: str | None
    summary: Mapping[str, Any]
    job_id: str | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key without its secret; `prefix` finds the row."""

    id: str
    name: str
    role: Role
    prefix: str
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """One page of a listing; `next_cursor` is opaque, None on the last."""

    items: tuple[T, ...]
    next_cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Traffic:
    """How a domain was used in the last `window_s` seconds."""

    window_s: float
    count: int
    errors: int
    latency_p50_s: float | None
    latency_p95_s: float | None
    volumes_mm3: tuple[Mapping[str, Any], ...] = field(default=())


@dataclass(frozen=True, slots=True)
class NewCase:
    """A case to be recorded; its two files already lie in the blob store."""

    scan_sha256: str
    labels_sha256: str
    scan_name: str
    labels_name: str
    label_scheme: str
    structures: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """One link of the audit chain; `hash` covers the fields and `previous`."""

    number: int
    at: datetime
    actor: str
    action: str
    subject: str
    detail: Mapping[str, Any]
    previous: str
    hash: str
