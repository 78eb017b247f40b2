"""The service itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class LiveBody(BaseModel):
    status: str = "alive"


class CheckBody(BaseModel):
    """One of the things the service needs."""

    name: str = Field(examples=["database"])
    ok: bool
    detail: str = Field("", examples=["no answer"])


class ReadyBody(BaseModel):
    """Whether requests can be served."""

    status: str = Field(examples=["ready"])
    checks: list[CheckBody]


class OlderBackboneBody(BaseModel):
    """Shared weights of an earlier release that some domains are still served on."""

    sha256: str
    name: str
    domains_in_bank: int = Field(description="states of its own on the device")


class BackboneBody(BaseModel):
    """The shared weights: their name, their conventions and their training."""

    sha256: str
    name: str
    classes: list[str] = Field(description="structures in the order of the output channels")
    labels: list[dict[str, Any]] = Field(description="answered FreeSurfer ids per structure")
    notes: list[str]
    spacing_mm: float
    window: list[int] = Field(description="voxels the network sees")
    plane: str
    slice_reach: int = Field(
        description="slices on either side that have a say in a slice's labels; 0: none"
    )
    training: dict[str, Any]
    engine: dict[str, Any] = Field(
        description="device, precision, backend with the times of its warm-up, batch, and "
        "domains in the banks of all backbones"
    )
    older: list[OlderBackboneBody] = Field(description="older backbones that are loaded")
