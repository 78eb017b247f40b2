"""What an adaptation asks of the registry, in memory: a bare machine has no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from models.state import State
from normbank.entities import Case, Domain, DomainState, NewState


class Ledger:
    """Stored states, the labelled cases of one new domain, and what is published for it.

    Parameters
    ----------
    states : served, each as version 1 of the domain it is named after
    cases : of the new domain
    """

    def __init__(self, states: Mapping[str, State], cases: Sequence[Case]) -> None:
        self._cases = tuple(cases)
        self._bytes = {state.sha256: state.to_bytes() for state in states.values()}
        self._versions = {
            name: [_version(name, 1, state.sha256, state.backbone)]
            for name, state in states.items()
        }
        self._active = dict.fromkeys(states, 1)

    def cases(self, _domain_id: str) -> tuple[Case, ...]:
        return self._cases

    def active_states(self) -> tuple[DomainState, ...]:
        return tuple(self._versions[name][at - 1] for name, at in sorted(self._active.items()))

    def version(self, domain_id: str, number: int) -> DomainState:
        return self._versions[domain_id][number - 1]

    def version_of_job(self, job_id: str) -> DomainState | None:
        every = [one for versions in self._versions.values() for one in versions]
        return next((one for one in every if one.job_id == job_id), None)

    def state_bytes(self, sha256: str) -> bytes:
        return self._bytes[sha256]

    def domain(self, domain_id: str) -> Domain:
        now, active = datetime.now(UTC), self._active.get(domain_id)
        return Domain(
            domain_id, domain_id, {}, "freesurfer", (), active, 1, False, len(self._cases), now, now
        )

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
            self._active[domain_id] = number
        return versions[-1]

    def quarantine(self, domain_id: str, number: int, why: str) -> None:
        raise RuntimeError(f"{domain_id}@{number} is refused: {why}")


def _version(name: str, number: int, sha256: str, backbone: str, **facts: Any) -> DomainState:
    given: dict[str, Any] = {
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
        **{**given, **facts},
    )
