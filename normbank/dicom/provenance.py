"""Who made an answer, as DICOM objects say it."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Literal

from pydicom.uid import UID

from normbank.entities import Segmentation

SegKind = Literal["labelmap", "binary"]

MANUFACTURER = "normbank"
SERIES_DESCRIPTION = "normbank segmentation (research use)"
REPORT_DESCRIPTION = "normbank volumes (research use)"
_UIDS = uuid.UUID("0a3c9e2e-5f0b-5a57-9d0e-7b1f6f1f6a51")


@dataclass(frozen=True)
class AnswerOrigin:
    """What made an answer.

    Attributes
    ----------
    domain, version : which state, such as `ward-7` and 2
    backbone, state : their content hashes
    key : who gives the same one again gets objects with the same UIDs; None: new ones each time
    """

    domain: str
    version: int
    backbone: str
    state: str
    key: str | None = None

    @classmethod
    def of_record(cls, record: Segmentation) -> AnswerOrigin:
        """What a recorded answer was made by; its id gives the objects their UIDs."""
        by = (record.domain_id, record.version, record.backbone, record.state_sha256)
        return cls(*by, record.id)

    @cached_property
    def _key(self) -> str:
        return self.key or uuid.uuid4().hex

    @property
    def software_version(self) -> str:
        return version("normbank")

    @property
    def parameters(self) -> dict[str, str]:
        """For the algorithm's identification."""
        return {
            "domain": f"{self.domain}@{self.version}",
            "backbone": self.backbone,
            "state": self.state,
        }

    @property
    def serial_number(self) -> str:
        """A device's serial number, of which software has none: what computed, in short."""
        return f"{self.backbone[:12]}-{self.state[:12]}"

    def uid(self, what: str) -> UID:
        """The UID of one object of this answer, such as `seg`, as UUID under 2.25."""
        return UID(f"2.25.{uuid.uuid5(_UIDS, f'{self._key}:{what}').int}")
