"""Jobs, and the recipe that starts one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from normbank.entities import JobKind, JobState, Recipe

_DEFAULT = Recipe()
VERSION_REF = r"^[a-z0-9-]{1,63}@[1-9][0-9]{0,8}$"


class RecipeBody(BaseModel):
    """The settings of one adaptation; every one has a sound default."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"example": {"seed": 1}})

    seed: int = Field(default=_DEFAULT.seed, ge=0, lt=2**32)
    steps: int = Field(
        default=_DEFAULT.steps, ge=1, le=10_000, description="optimiser steps at most"
    )
    batch_size: int = Field(
        default=_DEFAULT.batch_size, ge=1, le=128, description="slices per step"
    )
    learning_rate: float = Field(default=_DEFAULT.learning_rate, gt=0, le=1)
    augment: bool = _DEFAULT.augment
    head: bool = Field(
        default=_DEFAULT.head, description="learn a last 1×1 convolution of the domain's own too"
    )
    adapters: bool = Field(
        default=_DEFAULT.adapters,
        description="learn 1×1 convolutions parallel to the shared ones too: closer to the "
        "references, for a state of 0.45 MB instead of 25 KB that shares no batch with others",
    )
    refit: bool = Field(
        default=_DEFAULT.refit,
        description="once the validation half has judged, learn from all cases",
    )
    validate_every: int = Field(default=_DEFAULT.validate_every, ge=1, le=10_000)
    patience: int = Field(default=_DEFAULT.patience, ge=1, le=1000)
    slice_stride: int = Field(default=_DEFAULT.slice_stride, ge=1, le=64)
    parent: str | None = Field(
        default=None,
        pattern=VERSION_REF,
        description="`domain@version`; left out: the nearest state",
    )
    publish: bool = Field(
        default=_DEFAULT.publish, description="serve the result when the gate passes"
    )
    gate_margin: float = Field(default=_DEFAULT.gate_margin, ge=0, le=1)
    gate_floor: float = Field(
        default=_DEFAULT.gate_floor, ge=0, le=1, description="least mean Dice of a first version"
    )
    gate_least: float = Field(
        default=_DEFAULT.gate_least, ge=0, le=1, description="the same of any one structure"
    )
    gate_loss: float = Field(
        default=_DEFAULT.gate_loss,
        ge=0,
        le=1,
        description="Dice that no version may lose of any one structure",
    )

    def recipe(self) -> Recipe:
        return Recipe(**self.model_dump())


class JobErrorBody(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    code: str = Field(examples=["worker_lost"])
    detail: str


class JobBody(BaseModel):
    """One unit of worker work."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    kind: JobKind
    domain: str | None = Field(validation_alias="domain_id", examples=["siemens-3t-t1"])
    state: JobState
    attempt: int = Field(description="starts so far; a lost worker costs one")
    progress: float = Field(ge=0, le=1)
    step: str = Field(description="what is being done", examples=["training"])
    eta_s: float | None = Field(description="seconds to the end, estimated")
    cancel_requested: bool
    result: dict[str, Any] | None
    error: JobErrorBody | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
