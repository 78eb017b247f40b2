"""Versions of a domain's state."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Self

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from normbank.entities import Domain, DomainState, Promotion

VersionNumber = Annotated[int, Path(ge=1, lt=2**31)]


class PromotionBody(BaseModel):
    """One time a version was put into service."""

    model_config = ConfigDict(from_attributes=True)

    from_version: int | None = Field(description="what was served before")
    actor: str = Field(description="id of the key, or `system`")
    reason: str
    created_at: datetime


class VersionBody(BaseModel):
    """One immutable state."""

    number: int
    active: bool = Field(description="whether it is served")
    sha256: str
    backbone: str
    parent: str | None = Field(examples=["sim-t1w-3t@1"])
    recipe: dict[str, Any]
    job: str | None
    quarantined: str | None = Field(description="why it is refused; None when it is sound")
    promotions: list[PromotionBody] = Field(description="when it went into service, oldest first")
    created_at: datetime
    pack: str = Field(examples=["/domains/siemens-3t-t1/versions/2/pack"])

    @classmethod
    def of(cls, state: DomainState, domain: Domain, promotions: Iterable[Promotion]) -> Self:
        return cls(
            number=state.number,
            active=state.number == domain.active_version,
            sha256=state.sha256,
            backbone=state.backbone,
            parent=state.parent,
            recipe=dict(state.recipe),
            job=None if state.job_id is None else f"/jobs/{state.job_id}",
            quarantined=state.quarantined,
            promotions=[
                PromotionBody.model_validate(move)
                for move in promotions
                if move.to_version == state.number
            ],
            created_at=state.created_at,
            pack=f"/domains/{domain.id}/versions/{state.number}/pack",
        )


class VersionsBody(BaseModel):
    """All versions of a domain, oldest first."""

    items: list[VersionBody]


class PromotionReasonBody(BaseModel):
    """Why a version is promoted, for the record."""

    reason: str = Field("", max_length=500, examples=["better on the new protocol"])
