"""What is asked of a PACS."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from normbank.entities import PacsPayload
from normbank.entities.jobs import AUTO


class PacsOrderBody(BaseModel):
    """A series that a configured PACS has."""

    model_config = ConfigDict(extra="forbid")

    pacs: str = Field(description="its name in the PACS file", max_length=63, examples=["main"])
    study: str = Field(description="StudyInstanceUID", max_length=64)
    series: str = Field(description="SeriesInstanceUID", max_length=64)
    domain: str = Field(
        default=AUTO, description="a domain id, or `auto`; empty: `auto`", max_length=63
    )
    store: bool = Field(default=True, description="send SEG and report back to the PACS")

    def payload(self) -> PacsPayload:
        domain = self.domain.strip() or AUTO
        return PacsPayload(self.pacs, self.study, self.series, domain, self.store)
