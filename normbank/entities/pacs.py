"""Series of a PACS, as the listener knows them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SeenSeries:
    """A series that a PACS has told of.

    Attributes
    ----------
    study, series : UIDs
    instances : how many it has; None: the PACS does not say
    changed : the PACS says that it is new or has changed
    """

    study: str
    series: str
    instances: int | None = None
    changed: bool = False


@dataclass(frozen=True, slots=True)
class SettlingSeries:
    """A series of which more may come.

    Attributes
    ----------
    instances : how many it had when it was last looked at; None: not counted yet
    quiet_s : seconds since that number changed
    """

    study: str
    series: str
    instances: int | None
    quiet_s: float
