"""`/domains/{id}/versions`: history, promotion, rollback."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import Response

from app.bodies.domains import DomainBody
from app.bodies.versions import PromotionReasonBody, VersionBody, VersionNumber, VersionsBody
from app.http.auth import KeyDep, allow
from app.http.negotiation import IfMatch, etag, require_revision
from app.http.openapi import ETAG, problems
from app.services import ServicesDep
from normbank.entities import Role

router = APIRouter(tags=["versions"])


@router.get(
    "/domains/{domain_id}/versions",
    summary="Versions of a domain",
    responses=problems(404),
    openapi_extra=allow(Role.MONITOR),
)
def list_versions(domain_id: str, services: ServicesDep, response: Response) -> VersionsBody:
    """Every state the domain ever had, oldest first."""
    domain = services.core.domains.served(domain_id)
    states = services.core.versions.of(domain_id)
    moves = services.core.versions.promotions(domain_id)
    response.headers["ETag"] = etag(domain.revision)
    return VersionsBody(items=[VersionBody.of(state, domain, moves) for state in states])


@router.post(
    "/domains/{domain_id}/versions/{number}/promote",
    summary="Promote or roll back",
    responses={200: {"headers": ETAG}, **problems(404, 409, 412, 422, 428)},
    openapi_extra=allow(),
)
def promote(
    domain_id: str,
    number: VersionNumber,
    services: ServicesDep,
    key: KeyDep,
    response: Response,
    body: PromotionReasonBody | None = None,
    if_match: IfMatch = None,
) -> DomainBody:
    """Serve this version from the next request on; a rollback is one more promotion."""
    revision = require_revision(if_match, services.core.domains.served(domain_id).revision)
    reason = body.reason if body else ""
    domain = services.core.versions.promote(
        domain_id, number, revision, actor=key.id, reason=reason
    )
    response.headers["ETag"] = etag(domain.revision)
    return DomainBody.model_validate(domain)
