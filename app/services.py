"""What the handlers work with, built once per application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import Depends, Request

from app.engine.segmenter import Segmenter
from app.health import ReadinessProbe
from app.http.forms import Form, FormShape
from app.http.gate import UploadGate
from app.http.uploads import UploadLimits, receive_form
from app.telemetry import Telemetry
from normbank.services.keys import Keys
from normbank.wiring import CoreServices


@dataclass(frozen=True, slots=True)
class Services:
    """The services behind the paths.

    Attributes
    ----------
    core : what the API shares with the workers
    spool_dir : where uploads lie while their request lasts
    gate : how many of them are taken at once
    async_checks : turns at reading scans that are answered with a job
    case_checks : turns at reading labelled cases
    keys : the registry, over connections of its own
    readiness : asks for everything the service needs, and more
    """

    core: CoreServices
    segmenter: Segmenter
    telemetry: Telemetry
    spool_dir: Path
    gate: UploadGate
    async_checks: anyio.Semaphore
    case_checks: anyio.Semaphore
    keys: Keys
    readiness: ReadinessProbe


async def current_services(request: Request) -> Services:
    services: Services = request.app.state.services
    return services


ServicesDep = Annotated[Services, Depends(current_services)]


def form_body(
    shape: FormShape, *, max_file_bytes: int | None = None
) -> Callable[..., AsyncIterator[Form]]:
    """A dependency that receives a form of this shape; its files go with the request.

    Parameters
    ----------
    max_file_bytes : of one part; the setting's when left out
    """

    async def receive(request: Request, services: ServicesDep) -> AsyncIterator[Form]:
        async with receive_upload(request, services, shape, max_file_bytes) as form:
            yield form

    return receive


def receive_upload(
    request: Request, services: Services, shape: FormShape, max_file_bytes: int | None = None
) -> AbstractAsyncContextManager[Form]:
    """`receive_form` within the limits of the settings."""
    limits = UploadLimits.of(services.core.settings)
    if max_file_bytes is not None:
        limits = replace(limits, file_bytes=max_file_bytes)
    return receive_form(request, shape, services.spool_dir, limits, services.gate)
