"""The application: its services, its routes, its life."""

from __future__ import annotations

import importlib.metadata
import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import anyio
from anyio import to_thread
from fastapi import Depends, FastAPI
from fastapi.routing import iter_route_contexts
from sqlalchemy import Engine as Database

from app.engine.device import Device
from app.engine.engine import Engine
from app.engine.listener import PromotionListener
from app.engine.segmenter import Segmenter
from app.health import Needs, ReadinessProbe
from app.http import openapi
from app.http.auth import ANYONE, check_role, declared_roles
from app.http.connections import raise_open_files_limit
from app.http.errors import install_handlers
from app.http.gate import GateLimits, UploadGate
from app.http.middleware import RequestMiddleware
from app.routes import (
    adapt,
    domains,
    identify,
    jobs,
    metrics,
    packs,
    segment,
    segmentations,
    service,
    versions,
)
from app.routes.docs import docs_router
from app.services import Services
from app.standing import (
    flags_met,
    quarantined,
    quarantined_in_words,
    registry_gauges,
    room_in_words,
    workers_in_words,
)
from app.telemetry import Telemetry
from normbank.config import Settings, get_settings
from normbank.entities import ApiKey
from normbank.errors import InvalidError
from normbank.logs import configure_logging
from normbank.queue import broker_answers
from normbank.services.keys import Keys
from normbank.storage.database import make_engine, make_sessions, migrations_at_head
from normbank.storage.patience import SLACK_S, Waits
from normbank.storage.roles import log_role_warning, role_warning
from normbank.storage.spool import open_spool
from normbank.wiring import CoreServices, services_of

log = logging.getLogger(__name__)

HANDLER_THREADS = 40
ENTRY_CONNECTIONS = 4
PROBE_CONNECTIONS = 5
ASYNC_CHECKS = 2
CASE_CHECKS = 2
STOP_S = 5.0

# packs before domains: /domains/import must not be taken for a domain's path.
ROUTERS = (
    segment.router,
    identify.router,
    segmentations.router,
    packs.router,
    domains.router,
    adapt.router,
    metrics.router,
    versions.router,
    jobs.router,
    service.router,
)


def create_app(
    settings: Settings | None = None, make_device: Callable[[Settings], Device] | None = None
) -> FastAPI:
    """Build the application; nothing is connected or loaded before it starts.

    Parameters
    ----------
    settings : those of the environment when left out
    make_device : what segments; the engine of this package when left out
    """
    chosen = settings or get_settings()
    telemetry = Telemetry()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure_logging(chosen.log_level)
        raise_open_files_limit()
        limiter = to_thread.current_default_thread_limiter()
        limiter.total_tokens = HANDLER_THREADS + chosen.queue_scans
        device = await to_thread.run_sync(make_device or Engine, chosen)
        _check_configured(chosen)
        spool = open_spool(chosen.spool_at)
        with services_of(chosen) as core, entry_of(chosen) as entry, spool as spool_dir:
            app.state.services = build_services(core, entry, device, telemetry, spool_dir)
            segmenter = app.state.services.segmenter
            listener = PromotionListener(
                chosen.database_url, segmenter.preload, segmenter.preload_all, poll_s=chosen.poll_s
            )
            warming = threading.Thread(
                target=_warm_up,
                args=(device, segmenter, listener, core.database),
                name="warm-up",
                daemon=True,
            )
            warming.start()
            yield
            core.memory.close()
            await to_thread.run_sync(device.stop)
            await to_thread.run_sync(warming.join, STOP_S)
            await to_thread.run_sync(listener.stop)

    app = FastAPI(
        title=openapi.TITLE,
        description=openapi.DESCRIPTION,
        version=_version(),
        lifespan=lifespan,
        dependencies=[Depends(check_role)],
        openapi_url=None,
        redirect_slashes=False,
    )
    _add_routes(app, chosen)
    app.add_middleware(
        RequestMiddleware,
        authenticate=lambda secret: _authenticate(app, secret),
        observe=telemetry.count_request,
        open_paths=_open_paths(app),
        max_request_bytes=min(
            chosen.max_request_bytes, chosen.spool_bytes_per_key, chosen.spool_bytes
        ),
        database_wait_s=chosen.lock_timeout_s + SLACK_S,
    )
    install_handlers(app)
    app.openapi = lambda: openapi.document(app)  # type: ignore[method-assign]  # FastAPI's own hook
    return app


def _version() -> str:
    try:
        return importlib.metadata.version("normbank")
    except importlib.metadata.PackageNotFoundError:
        return "0"  # run from a source tree that was not installed


def _warm_up(
    device: Device, segmenter: Segmenter, listener: PromotionListener, database: Database
) -> None:
    """Load the backbone, then every served state, and from then on whatever is promoted."""
    log_role_warning(database)
    try:
        device.start()
        if listener.wanted:
            listener.start()
        else:
            segmenter.preload_all()
    except Exception as error:  # nobody waits for this thread; /readyz says that it failed
        log.error("ALARM: the engine did not start", extra={"error": repr(error)})


def _authenticate(app: FastAPI, secret: str) -> ApiKey | None:
    services: Services = app.state.services
    return services.keys.authenticate(secret)


def _add_routes(app: FastAPI, settings: Settings) -> None:
    for router in (*ROUTERS, docs_router(open_docs=settings.open_docs)):
        app.include_router(router)


def _open_paths(app: FastAPI) -> list[str]:
    """Paths whose routes say that they need no key."""
    return [path for path, _, roles in route_table(app) if ANYONE in roles]


def route_table(app: FastAPI) -> list[tuple[str, str, Collection[str]]]:
    """Every route as (path, method, declared roles)."""
    return [
        (str(route.path), method, declared_roles(route))
        for route in iter_route_contexts(app.routes)
        for method in sorted(route.methods or ())
    ]


def _check_configured(settings: Settings) -> None:
    if not settings.database_url or not settings.redis_url:
        raise InvalidError(
            "NORMBANK_DATABASE_URL and NORMBANK_REDIS_URL must be set; "
            "`normbank up` does it for the embedded ones.",
            code="not_configured",
        )


@dataclass(frozen=True, slots=True)
class Entry:
    """Connections that no handler can take: whoever holds all the others stops neither of these.

    Attributes
    ----------
    keys : for the registry of keys
    probes : for `/readyz`
    """

    keys: Database
    probes: Database


@contextmanager
def entry_of(settings: Settings) -> Iterator[Entry]:
    """Open them for as long as the application runs."""
    waits = Waits.of(settings)
    entry = Entry(
        make_engine(settings.database_url, pool_size=ENTRY_CONNECTIONS, waits=waits),
        make_engine(settings.database_url, pool_size=PROBE_CONNECTIONS, waits=waits),
    )
    try:
        yield entry
    finally:
        entry.keys.dispose()
        entry.probes.dispose()


def build_services(
    core: CoreServices, entry: Entry, device: Device, telemetry: Telemetry, spool_dir: Path
) -> Services:
    """Everything the handlers work with; connects to nothing yet."""
    segmenter = Segmenter(core, device, telemetry)
    gate = UploadGate(GateLimits.of(core.settings))
    telemetry.watch(
        lambda: {**segmenter.gauges(), **gate.gauges()},
        core.jobs.counts,
        core.audit.head,
        partial(registry_gauges, core),
        partial(quarantined, core),
        partial(flags_met, core),
    )
    probed = core.over(entry.probes)
    return Services(
        core=core,
        segmenter=segmenter,
        telemetry=telemetry,
        spool_dir=spool_dir,
        gate=gate,
        async_checks=anyio.Semaphore(ASYNC_CHECKS),
        case_checks=anyio.Semaphore(CASE_CHECKS),
        keys=Keys(make_sessions(entry.keys)),
        readiness=ReadinessProbe(_needs(probed, device), _details(probed)),
    )


def _needs(core: CoreServices, device: Device) -> Needs:
    return {
        "database": lambda: role_warning(core.database) or True,
        "broker": lambda: broker_answers(core.settings.redis_url),
        "migrations": lambda: migrations_at_head(core.database),
        "backbone": lambda: bool(device.backbone_sha256),
        "engine": lambda: device.ready and not device.failed and device.describe().in_words(),
        "disk": lambda: room_in_words(core),
    }


def _details(core: CoreServices) -> Needs:
    return {
        "workers": lambda: workers_in_words(core),
        "quarantined": lambda: quarantined_in_words(core),
        "corrupt_files": lambda: str(core.integrity.count_corrupt()),
    }
