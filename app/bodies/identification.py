"""Which domain a scan belongs to, and why."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, Field

from app.bodies.flags import FlagBody


class CandidateBody(BaseModel):
    """A served domain."""

    domain: str = Field(examples=["sim-t1w-3t"])
    distance: float | None = Field(
        description="standard deviations between the scan and the domain's own; 1 is ordinary; "
        "None where nobody knows what those look like"
    )
    probability: float = Field(description="among the served domains, if it is one of them")
    failed_rules: list[str] = Field(description="facts whose rules do not hold")


class IdentificationBody(BaseModel):
    """Where a scan belongs."""

    domain: str | None = Field(description="None when nothing is near")
    reason: Literal["rules", "statistics", "only_domain", "abstained"]
    margin: float | None = Field(
        description="by how much it is more probable than the next one; None without statistics"
    )
    ranking: list[CandidateBody] = Field(description="every served domain, the most probable first")
    flags: list[FlagBody] = Field(description="what is doubtful about the choice")

    @classmethod
    def of(cls, decision: Mapping[str, Any] | None) -> Self | None:
        """A decision as rows keep it."""
        return None if decision is None else cls.model_validate(decision)
