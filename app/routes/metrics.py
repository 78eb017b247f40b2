"""`GET /domains/{id}/metrics`."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query

from app.bodies.metrics import DomainMetricsBody, DriftBody, TrafficBody, VersionMetricsBody
from app.http.auth import allow
from app.http.openapi import problems
from app.services import ServicesDep
from normbank.entities import Domain, DomainState, Role

router = APIRouter(tags=["domains"])

DAY_S = 86_400
SHOWN_APART = ("before", "after", "candidates")


@router.get(
    "/domains/{domain_id}/metrics",
    summary="Quality and use of a domain",
    responses=problems(404, 422),
    openapi_extra=allow(Role.MONITOR),
)
def domain_metrics(
    domain_id: str,
    services: ServicesDep,
    window_s: Annotated[float, Query(ge=1, le=400 * DAY_S)] = DAY_S,
) -> DomainMetricsBody:
    """Dice and HD95 per version, traffic in the last `window_s`, volumes over time."""
    domain = services.core.domains.served(domain_id)
    traffic = services.core.segmentations.traffic(domain_id, window_s)
    return DomainMetricsBody(
        domain=domain.id,
        active_version=domain.active_version,
        versions=[_scores(state, domain) for state in services.core.versions.of(domain_id)],
        traffic=TrafficBody(
            window_s=traffic.window_s,
            count=traffic.count,
            errors=traffic.errors,
            latency_p50_s=traffic.latency_p50_s,
            latency_p95_s=traffic.latency_p95_s,
        ),
        drift=DriftBody(state="not_monitored"),
        volumes_mm3=[dict(row) for row in traffic.volumes_mm3],
    )


def _scores(state: DomainState, domain: Domain) -> VersionMetricsBody:
    scores: dict[str, Any] = dict(state.metrics)
    return VersionMetricsBody(
        number=state.number,
        active=state.number == domain.active_version,
        backbone=state.backbone,
        parent=state.parent,
        before=scores.get("before"),
        after=scores.get("after"),
        candidates=scores.get("candidates", []),
        details={name: value for name, value in scores.items() if name not in SHOWN_APART},
        created_at=state.created_at,
    )
