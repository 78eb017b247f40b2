"""Doubts, as clients see them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from normbank.entities import Severity


class FlagBody(BaseModel):
    """One doubt; a severe one holds the answer back unless `?accept=doubtful` asks for it."""

    model_config = ConfigDict(from_attributes=True)

    code: str = Field(examples=["forms_disagree"])
    severity: Severity
    detail: str = Field(description="for people, with the numbers that were seen")
    structure: str | None = Field(None, examples=["left-hippocampus"])
