"""The domains that a scan may belong to."""

from __future__ import annotations

from normbank.wiring import CoreServices
from pipeline.identify.decide import ServedDomain


def served_domains(core: CoreServices) -> list[ServedDomain]:
    """Every domain that is not archived and has a version that answers."""
    active = {state.domain_id: state for state in core.versions.all_active()}
    return [
        ServedDomain(domain, active[domain.id])
        for domain in core.domains.all()
        if domain.id in active
    ]
