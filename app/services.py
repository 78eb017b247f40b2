"""What the handlers work with, built once per application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import anyio
from fastapi import Depends, Request

from app.engine.segmenter import Segmenter
from app.health import ReadinessProbe
from app.http.disconnect import on_disconnect
from app.http.forms import Form, FormShape
from app.http.gate import UploadGate
from app.http.uploads import UploadLimits, receive_form
from app.telemetry import Telemetry
from normbank.cancellation import Cancellation
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


SCAN_SHAPE = FormShape(
    texts=frozenset({"domain", "sidecar"}),
    images=frozenset({"scan"}),
    dicom=frozenset({"scan"}),
    series=frozenset({"scan"}),
    files=frozenset({"sidecar"}),
)
"""A scan with the facts that its header lacks."""


@dataclass(frozen=True, slots=True)
class ReceivedScan:
    """A form that lies there whole, and what tells that its client has left."""

    form: Form
    cancellation: Cancellation


@asynccontextmanager
async def receive_scan(
    request: Request, services: Services, shape: FormShape = SCAN_SHAPE
) -> AsyncIterator[ReceivedScan]:
    """The form, with a place in the queue from when it is whole until the answer is made.

    A queue that is full before is answered before the body is read.
    """
    services.segmenter.check_room()
    cancellation = Cancellation()
    async with receive_upload(request, services, shape) as received:
        with services.segmenter.admit():
            async with on_disconnect(request, cancellation.cancel):
                yield ReceivedScan(received, cancellation)
