"""What an adaptation asks of the services, in memory: a bare machine has no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from models.state import State
from normbank.budget import MemoryBudget
from normbank.config import Settings
from normbank.entities import Case, Domain, DomainState, NewState
from normbank.imaging.scan import Limits
from normbank.storage.blobs import BlobStore


class MemoryVersions:
    """Stored states, and what is published.

    Parameters
    ----------
    states : served, each as version 1 of the domain it is named after
    """

    def __init__(self, states: Mapping[str, State]) -> None:
        self._bytes = {state.sha256: state.to_bytes() for state in states.values()}
        self._versions = {
            name: [_version(name, 1, state.sha256, state.backbone)]
            for name, state in states.items()
        }
        self.active = dict.fromkeys(states, 1)

    def all_active(self) -> tuple[DomainState, ...]:
        return tuple(self.get(name, number) for name, number in sorted(self.active.items()))

    def get(self, domain_id: str, number: int) -> DomainState:
        return self._versions[domain_id][number - 1]

    def of_job(self, job_id: str) -> DomainState | None:
        every = [version for versions in self._versions.values() for version in versions]
        return next((version for version in every if version.job_id == job_id), None)

    def state_bytes(self, sha256: str) -> bytes:
        return self._bytes[sha256]

    def publish(
        self, domain_id: str, *, state: NewState, promote: bool, **_facts: Any
    ) -> DomainState:
        versions = self._versions.setdefault(domain_id, [])
        number = len(versions) + 1
        versions.append(
            _version(
                domain_id, number, state.sha256, state.backbone,
                parent=state.parent, recipe=state.recipe, metrics=state.metrics,
                job_id=state.job_id,
            )
        )  # fmt: skip
        self._bytes[state.sha256] = state.tensors
        if promote:
            self.active[domain_id] = number
        return versions[-1]

    def quarantine(self, domain_id: str, number: int, why: str) -> None:
        raise RuntimeError(f"{domain_id}@{number} is refused: {why}")


@dataclass(frozen=True)
class MemoryCases:
    """The labelled cases of one new domain."""

    cases: Sequence[Case]

    def of(self, _domain_id: str) -> tuple[Case, ...]:
        return tuple(self.cases)


@dataclass(frozen=True)
class MemoryDomains:
    """Domains that have whatever versions there are."""

    versions: MemoryVersions

    def get(self, domain_id: str) -> Domain:
        now, active = datetime.now(UTC), self.versions.active.get(domain_id)
        return Domain(domain_id, domain_id, {}, "freesurfer", (), active, 1, False, 0, now, now)


class MemoryServices:
    """The part of `normbank.wiring.CoreServices` that an adaptation uses."""

    def __init__(
        self,
        settings: Settings,
        blobs: BlobStore,
        states: Mapping[str, State],
        cases: Sequence[Case],
    ) -> None:
        self.settings = settings
        self.limits = Limits.of(settings)
        self.memory = MemoryBudget(settings.memory_budget_bytes, settings.memory_wait_s)
        self.blobs = blobs
        self.versions = MemoryVersions(states)
        self.cases = MemoryCases(cases)
        self.domains = MemoryDomains(self.versions)


def _version(name: str, number: int, sha256: str, backbone: str, **facts: Any) -> DomainState:
    defaults: dict[str, Any] = {
        "parent": None,
        "recipe": {},
        "metrics": {},
        "job_id": None,
        "quarantined": None,
    }
    return DomainState(
        domain_id=name,
        number=number,
        sha256=sha256,
        backbone=backbone,
        created_at=datetime.now(UTC),
        **{**defaults, **facts},
    )
