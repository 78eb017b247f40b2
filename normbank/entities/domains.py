"""Domains, their cases and the versions of their states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from normbank.entities.adaptations import AdaptationRecord
from normbank.entities.flags import Flag
from normbank.entities.signatures import Signature


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

    @property
    def status(self) -> str:
        return "not_ready" if self.active_version is None else "ready"


@dataclass(frozen=True, slots=True)
class DomainState:
    """One immutable version of a domain's private tensors, without the bytes.

    Attributes
    ----------
    number : version, from 1
    sha256 : content hash of the tensors
    backbone : sha256 of the backbone the tensors belong to
    parent : `domain@version` it grew from; None for an initial state
    metrics : an `AdaptationRecord` as JSON; of an initial or imported state no more than
        the signature, if that
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

    @property
    def adaptation(self) -> AdaptationRecord | None:
        """How it came about; None for an initial or imported state."""
        return AdaptationRecord.from_json(self.metrics) if "after" in self.metrics else None

    @property
    def signature(self) -> Signature | None:
        """What its domain's scans look like; None where nobody has said so."""
        return AdaptationRecord.signature_of(self.metrics)


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
    def imported(
        cls, sha256: str, backbone: str, tensors: bytes, signature: Signature | None = None
    ) -> Self:
        """A state that no adaptation of this service has made: built in or imported.

        Parameters
        ----------
        signature : what came along with it
        """
        metrics = {} if signature is None else {"signature": signature.to_json()}
        return cls(sha256, backbone, None, {}, metrics, None, tensors)


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
    volumes_ml : of the labelled structures, both sides together; empty for what earlier
        releases took
    flags : what is doubtful about the labels
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
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()


@dataclass(frozen=True, slots=True)
class NewCase:
    """A case to be recorded; its two files already lie in the blob store.

    Attributes
    ----------
    voxels_sha256 : of the scan's grid and intensities, however its file is packed
    """

    scan_sha256: str
    labels_sha256: str
    scan_name: str
    labels_name: str
    label_scheme: str
    structures: tuple[str, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    voxels_sha256: str | None = None
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    flags: tuple[Flag, ...] = ()
