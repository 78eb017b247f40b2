"""`POST /domains/{id}/adapt`."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import Response

from app.bodies.jobs import JobBody, RecipeBody
from app.http.auth import KeyDep, allow
from app.http.openapi import headers, problems
from app.services import ServicesDep
from normbank.entities import Recipe

router = APIRouter(tags=["domains"])

ACCEPTED = headers(
    Location="the job", Idempotent_Replayed="`true` where the answer repeats an earlier one"
)


@router.post(
    "/domains/{domain_id}/adapt",
    summary="Learn a domain from its cases",
    status_code=202,
    responses={202: {"headers": ACCEPTED}, **problems(404, 408, 409, 422)},
    openapi_extra=allow(),
)
def adapt(
    domain_id: str,
    services: ServicesDep,
    key: KeyDep,
    response: Response,
    body: RecipeBody | None = None,
    idempotency_key: Annotated[
        str | None,
        Header(min_length=1, max_length=200, description="makes a repeated request harmless"),
    ] = None,
) -> JobBody:
    """Queue an adaptation; the job tells how far it is.

    Needs two labelled cases at least. While one adaptation of the domain is
    in flight another is refused with 409.
    """
    services.core.domains.served(domain_id)
    recipe = (body or RecipeBody()).recipe()
    if recipe.parent is not None:  # refuse now what the job would not find
        services.core.versions.parent(recipe.parent, lambda: services.segmenter.backbone_sha256)
    idempotency = None
    if idempotency_key is not None:
        idempotency = (idempotency_key, _fingerprint(domain_id, recipe))
    job, replayed = services.core.jobs.submit_adapt(
        domain_id, recipe, idempotency=idempotency, actor=key.id
    )
    response.headers["Location"] = f"/jobs/{job.id}"
    response.headers["Retry-After"] = "1"
    if replayed:
        response.headers["Idempotent-Replayed"] = "true"
    return JobBody.model_validate(job)


def _fingerprint(domain_id: str, recipe: Recipe) -> str:
    """What makes two requests the same, however their JSON was written."""
    text = json.dumps([domain_id, recipe.to_json()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
