"""`/jobs/{id}`: state, events, cancel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from anyio import to_thread
from fastapi import APIRouter, Depends
from fastapi.sse import EventSourceResponse, ServerSentEvent

from app.bodies.jobs import JobBody
from app.http.auth import KeyDep, allow
from app.http.errors import ForbiddenError
from app.http.openapi import problems
from app.services import ServicesDep
from normbank.entities import Job, JobKind, Role

router = APIRouter(tags=["jobs"])

POLL_S = 0.5


def _find_job(job_id: str, services: ServicesDep) -> Job:
    return services.core.jobs.get(job_id)


JobDep = Annotated[Job, Depends(_find_job)]


@router.get(
    "/jobs/{job_id}",
    summary="One job",
    responses=problems(404),
    openapi_extra=allow(Role.SEGMENT, Role.MONITOR),
)
def show_job(job: JobDep) -> JobBody:
    """How far a job is, and what came of it."""
    return JobBody.model_validate(job)


@router.get(
    "/jobs/{job_id}/events",
    summary="One job, as it goes on",
    response_class=EventSourceResponse,
    responses=problems(404),
    openapi_extra=allow(Role.SEGMENT, Role.MONITOR),
)
async def job_events(job: JobDep, services: ServicesDep) -> AsyncIterator[ServerSentEvent]:
    """Server-sent events `job`: its JSON now and at every change, until it has finished."""
    shown: JobBody | None = None
    number = 0
    while True:
        body = JobBody.model_validate(job)
        if body != shown:
            shown = body
            yield ServerSentEvent(data=body, event="job", id=str(number))
            number += 1
        if job.state.finished:
            return
        await anyio.sleep(POLL_S)
        job = await to_thread.run_sync(services.core.jobs.get, job.id)


@router.delete(
    "/jobs/{job_id}",
    summary="Cancel a job",
    responses=problems(404, 409),
    openapi_extra=allow(Role.SEGMENT),
)
def cancel_job(job: JobDep, services: ServicesDep, key: KeyDep) -> JobBody:
    """A queued job ends at once, a running one at its next step.

    The role `segment` may cancel segmentations only.
    """
    if key.role is not Role.ADMIN and job.kind is JobKind.ADAPT:
        raise ForbiddenError("Only an admin may cancel this job.", facts={"roles": ["admin"]})
    return JobBody.model_validate(services.core.jobs.cancel(job.id, actor=key.id))
