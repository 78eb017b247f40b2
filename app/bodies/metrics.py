"""How good a domain's versions are and how it is used."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field


class VersionMetricsBody(BaseModel):
    """The scores of one version."""

    number: int
    active: bool
    backbone: str = Field(description="sha256 of the one it belongs to")
    parent: str | None = Field(description="which state it grew from")
    before: dict[str, Any] | None = Field(
        description="scores of the parent on the same validation cases: Dice of every structure "
        "as mean and per case, HD95 in mm"
    )
    after: dict[str, Any] | None = Field(
        description="the same of what the training half has taught; the version itself may have "
        "learnt from all cases afterwards (`details.cases.learnt`)"
    )
    candidates: list[dict[str, Any]] = Field(description="every stored state with its probe score")
    details: dict[str, Any] = Field(description="what else the job recorded")
    created_at: datetime


class TrafficBody(BaseModel):
    """Use in a window of time."""

    window_s: float
    count: int
    errors: int
    latency_p50_s: float | None
    latency_p95_s: float | None


class DriftBody(BaseModel):
    """Whether the scans still look like the domain's own."""

    state: str = Field(description="`not_monitored` in this release", examples=["not_monitored"])


class DomainMetricsBody(BaseModel):
    """Quality per version, traffic, drift, and label volumes over time."""

    domain: str
    active_version: int | None
    versions: list[VersionMetricsBody]
    traffic: TrafficBody
    drift: DriftBody
    volumes_mm3: list[dict[str, Any]] = Field(
        description="label volumes of answered scans, oldest first"
    )
