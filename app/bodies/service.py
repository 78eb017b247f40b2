"""The service itself."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


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
    details: dict[str, str] = Field(
        description="what else there is to know; it keeps nothing from being served",
        examples=[{"workers": "1 alive, seen 1 s ago"}],
    )


class OlderBackboneBody(BaseModel):
    """Shared weights of an earlier release that some domains are still served on."""

    model_config = ConfigDict(from_attributes=True)

    sha256: str
    name: str
    domains_in_bank: int = Field(description="states of its own on the device")


class EngineBody(BaseModel):
    """Where and how the networks run."""

    model_config = ConfigDict(from_attributes=True)

    device: str = Field(examples=["cpu"])
    precision: str = Field(description="of the convolutions", examples=["int8"])
    backend: str = Field(description="what computes, with its version")
    ms_per_slice: dict[str, float] = Field(description="what the warm-up has measured")
    backends_refused: dict[str, str] = Field(description="why, by name")
    batch_slices: int = Field(description="slices per forward pass")
    threads: int = Field(description="of the CPU")
    domains_in_bank: int = Field(description="in the banks of all backbones")
    bytes_per_domain: int = Field(description="on the device, without adapters")
    torch: str = Field(description="its version")


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
    engine: EngineBody
    older: list[OlderBackboneBody] = Field(description="older backbones that are loaded")
