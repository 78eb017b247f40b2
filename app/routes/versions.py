"""`/domains/{id}/versions`: history, promotion, rollback; and whether they are sound."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import APIRouter
from fastapi.responses import Response

from app.bodies.domains import DomainBody
from app.bodies.versions import PromotionReasonBody, VersionBody, VersionNumber, VersionsBody
from app.http.auth import KeyDep, allow
from app.http.negotiation import IfMatch, etag, require_revision
from app.http.openapi import ETAG, problems
from app.services import Services, ServicesDep
from normbank.entities import DomainState, Role

router = APIRouter(tags=["versions"])


@router.get(
    "/domains/{domain_id}/versions",
    summary="Versions of a domain",
    responses=problems(404),
    openapi_extra=allow(Role.MONITOR),
)
def list_versions(domain_id: str, services: ServicesDep, response: Response) -> VersionsBody:
    """Every state the domain ever had, oldest first."""
    services.core.domains.served(domain_id)
    return _versions(services, services.core.versions.of(domain_id), domain_id, response)


@router.post(
    "/domains/{domain_id}/verify",
    summary="Check the stored states of a domain",
    responses={200: {"headers": ETAG}, **problems(404)},
    openapi_extra=allow(),
)
def verify(domain_id: str, services: ServicesDep, key: KeyDep, response: Response) -> VersionsBody:
    """Read and check every version again: quarantine what is bad, lift what is good again.

    A domain that served nothing goes back to the newest sound version that was
    promoted; where an earlier version is served meanwhile, promote the other one.
    """
    services.core.domains.served(domain_id)
    states = services.segmenter.verify(domain_id, actor=key.id)
    return _versions(services, states, domain_id, response)


def _versions(
    services: Services, states: Sequence[DomainState], domain_id: str, response: Response
) -> VersionsBody:
    domain = services.core.domains.served(domain_id)
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
