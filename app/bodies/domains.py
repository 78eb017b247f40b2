"""Domains, their cases and what may be changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field

from app.bodies.flags import FlagBody
from normbank.entities import Domain
from normbank.services.matching import rule_conflicts


class DomainBody(BaseModel):
    """One scanner and protocol."""

    model_config = ConfigDict(from_attributes=True)

    id: str = Field(examples=["siemens-3t-t1"])
    name: str = Field(examples=["Siemens 3 T, T1 MPRAGE"])
    match: dict[str, Any] = Field(
        description="rules over header facts; all must hold",
        examples=[{"Manufacturer": "Siemens", "MagneticFieldStrength": {"min": 2.5, "max": 3.5}}],
    )
    label_scheme: str = Field(examples=["freesurfer"])
    structures: list[str] = Field(description="annotated in every case; empty: those present")
    status: str = Field(description="`ready`, or `not_ready` without an active version")
    active_version: int | None
    backbone: str | None = Field(description="sha256 of the one the active version belongs to")
    case_count: int
    revision: int = Field(description="grows with every change; also the ETag")
    created_at: datetime
    updated_at: datetime


class RuleConflictBody(BaseModel):
    """Two domains whose rules may both hold for one scan."""

    model_config = ConfigDict(from_attributes=True)

    domain: str
    other: str
    kind: str = Field(
        description="`equal`: the same rules; `implied`: what fits `domain` fits `other` too, and "
        "goes to the one with more rules; `ambiguous`: as many rules, and no fact tells them apart"
    )


class RegisteredDomainBody(DomainBody):
    """A domain as it was made or changed, and whose rules meet its own."""

    rule_conflicts: list[RuleConflictBody]

    @classmethod
    def of(cls, domain: Domain, others: Sequence[Domain]) -> Self:
        conflicts = [c for c in rule_conflicts(others) if domain.id in (c.domain, c.other)]
        body = DomainBody.model_validate(domain).model_dump()
        met = [RuleConflictBody.model_validate(conflict) for conflict in conflicts]
        return cls(**body, rule_conflicts=met)


class DomainPageBody(BaseModel):
    """One page of domains; pass `next_cursor` as `cursor` for the next one."""

    items: list[DomainBody]
    next_cursor: str | None


class DomainChangeBody(BaseModel):
    """What may be changed; what is left out stays."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"example": {"name": "Siemens 3 T, after the upgrade"}}
    )

    name: str | None = Field(None, min_length=1, max_length=200)
    match: dict[str, Any] | None = None
    structures: list[str] | None = Field(None, max_length=64)


class CaseBody(BaseModel):
    """A labelled case, by content hash."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    scan_sha256: str
    labels_sha256: str
    label_scheme: str
    structures: list[str] = Field(description="the annotated ones")
    shape: list[int] = Field(examples=[[176, 240, 256]])
    spacing_mm: list[float] = Field(examples=[[1.0, 1.0, 1.0]])
    volumes_ml: dict[str, float] = Field(
        description="of the labelled structures, both sides together", examples=[{"thalamus": 15.2}]
    )
    flags: list[FlagBody] = Field(description="what is doubtful about the labels")
    created_at: datetime


class CasesBody(BaseModel):
    """Cases: those that were added, in the order they were sent, or all, oldest first."""

    items: list[CaseBody]
