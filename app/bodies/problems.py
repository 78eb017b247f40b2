"""Problem documents (RFC 9457)."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class FieldErrorBody(BaseModel):
    """What is wrong with one field."""

    field: str = Field(examples=["body.steps"])
    code: str = Field(examples=["greater_than_equal"])
    message: str = Field(examples=["Input should be greater than or equal to 1"])


class ProblemBody(BaseModel):
    """Every answer that is not a success; kinds of problem add members of their own."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(examples=["urn:normbank:problem:unknown_domain"])
    title: str = Field(examples=["Unknown domain"])
    status: int = Field(examples=[404])
    detail: str = Field(description="for people", examples=["There is no such domain."])
    instance: str = Field(
        description="this occurrence; ends with the X-Request-Id",
        examples=["urn:normbank:request:5f0c3f0a-8d4e-4f52-9a35-b0d3f6f1a5d7"],
    )
    code: str = Field(description="stable, for machines", examples=["unknown_domain"])
    errors: list[FieldErrorBody] | None = None
