"""States that pass their checks, and slices as progress, for jobs of any kind."""

from __future__ import annotations

import logging
from collections.abc import Callable

from models.state import State
from normbank.entities import DomainState
from normbank.errors import StateError
from normbank.services.integrity import REJECTED_STATES
from normbank.wiring import CoreServices
from pipeline.networks import Networks

log = logging.getLogger(__name__)

TYPICAL_SLICES = 160


def sound_version(
    core: CoreServices, networks: Networks, domain_id: str, wanted: DomainState | None = None
) -> tuple[DomainState, State]:
    """A domain's version with its tensors; one that fails its checks is quarantined first.

    Parameters
    ----------
    wanted : the version that was promised; None, or where it is not sound: the served one

    Raises
    ------
    ConflictError
        `domain_not_ready`, when no sound version is left; `other_backbone`.
    """
    version = wanted or core.versions.active(domain_id)
    while True:
        if version.quarantined is None:
            try:
                return version, networks.load(version, core.versions.state_bytes)
            except StateError as error:
                refuse(core, version, error)
        version = core.versions.active(domain_id)


def refuse(core: CoreServices, version: DomainState, error: StateError) -> None:
    """Quarantine a version that failed its checks, so that the one before is served."""
    stored = core.versions.get(version.domain_id, version.number)
    if stored.quarantined is not None:
        return
    log.error("ALARM: a stored state was refused", extra={"state": version.ref, "why": str(error)})
    core.integrity.count_up(REJECTED_STATES)
    core.versions.quarantine(version.domain_id, version.number, str(error))


def counting(on_progress: Callable[[float, str], None]) -> Callable[[int], None]:
    """Hears of slices, says how far the job is, and ends it when it shall not go on."""
    done = 0

    def on_slices(count: int) -> None:
        nonlocal done
        on_progress(done / (done + TYPICAL_SLICES), "segmenting")
        done += count

    return on_slices
