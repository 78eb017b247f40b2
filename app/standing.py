"""How the service stands, from what its database knows, for people and for Prometheus."""

from __future__ import annotations

import math

from normbank.services.workers import ALIVE_WITHIN_S
from normbank.wiring import CoreServices


def workers_in_words(core: CoreServices) -> str:
    """How many workers live, and when the last one was seen."""
    workers = core.workers.all()
    alive = sum(worker.silent_s <= ALIVE_WITHIN_S for worker in workers)
    silences_s = [worker.silent_s for worker in workers if math.isfinite(worker.silent_s)]
    if not silences_s:
        return "none alive, none seen: jobs wait"
    words = f"{alive or 'none'} alive, seen {min(silences_s):.0f} s ago"
    return words if alive else f"{words}: jobs wait"


def registry_gauges(core: CoreServices) -> dict[str, float]:
    """Values of `app.telemetry.REGISTRY_GAUGES`."""
    workers = core.workers.all()
    return {
        "workers_alive": float(sum(worker.silent_s <= ALIVE_WITHIN_S for worker in workers)),
        "worker_heartbeat_seconds": min((worker.silent_s for worker in workers), default=math.inf),
    }
