"""What was found out about a scan: where it belongs, how sure that is, and why."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from normbank.entities import Flag
from normbank.errors import NoCloseDomainError

NO_CLOSE_DOMAIN, NOT_A_BRAIN = "no_close_domain", "not_a_brain_mr"
_RANKED = 200  # domains in an error's facts


class Reason(StrEnum):
    """What decided."""

    RULES = "rules"  # header facts fit the domain's rules
    STATISTICS = "statistics"  # what the scan looks like
    ONLY_DOMAIN = "only_domain"  # there is no other one
    ABSTAINED = "abstained"  # nothing is near


@dataclass(frozen=True, slots=True)
class Candidate:
    """A served domain.

    Attributes
    ----------
    distance : standard deviations between the scan and the middle of the domain's own; 1 is
        ordinary; None where nobody knows what the domain's scans look like
    probability : among the served domains, if it is one of them
    failed_rules : facts whose rules do not hold
    """

    domain: str
    distance: float | None
    probability: float
    failed_rules: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "domain": self.domain,
            "distance": None if self.distance is None else round(self.distance, 3),
            "probability": round(self.probability, 4),
            "failed_rules": list(self.failed_rules),
        }


@dataclass(frozen=True, slots=True)
class Identification:
    """Where a scan belongs.

    Attributes
    ----------
    domain : None when nothing is near
    margin : by how much the domain is more probable than the next one; None without statistics
    ranking : every served domain, the most probable first
    flags : what is doubtful about the choice
    refusal : code of the error where there is no domain
    """

    domain: str | None
    reason: Reason
    margin: float | None
    ranking: tuple[Candidate, ...]
    flags: tuple[Flag, ...] = ()
    refusal: str = ""

    def to_json(self) -> dict[str, Any]:
        return {
            "domain": self.domain,
            "reason": str(self.reason),
            "margin": None if self.margin is None else round(self.margin, 4),
            "ranking": [candidate.to_json() for candidate in self.ranking],
            "flags": [flag.to_json() for flag in self.flags],
        }

    def chosen(self) -> str:
        """The domain's id.

        Raises
        ------
        NoCloseDomainError
            `no_close_domain` or `not_a_brain_mr` where there is none; facts hold the ranking.
        """
        if self.domain is not None:
            return self.domain
        said = (
            "This does not look like an MR scan of a brain."
            if self.refusal == NOT_A_BRAIN
            else "No served domain is close to this scan."
        )
        ranking = [candidate.to_json() for candidate in self.ranking[:_RANKED]]
        raise NoCloseDomainError(
            f"{said} If it is one, name one of the domains as `domain`.",
            code=self.refusal or NO_CLOSE_DOMAIN,
            facts={"ranking": ranking},
        )
