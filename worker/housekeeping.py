"""What somebody has to do from time to time: lost jobs, expired answers."""

from __future__ import annotations

import logging
import threading
from time import monotonic

from normbank.config import Settings
from normbank.wiring import open_services

log = logging.getLogger(__name__)

EXPIRE_EVERY_S = 600.0

_stopping = threading.Event()


def start(settings: Settings) -> None:
    """Keep house from a thread of the worker's parent process."""
    _stopping.clear()
    threading.Thread(target=_keep_house, args=(settings,), name="housekeeping", daemon=True).start()


def stop() -> None:
    _stopping.set()


def _keep_house(settings: Settings) -> None:
    services = open_services(settings)
    expire_at = monotonic()
    while not _stopping.wait(settings.sweep_s):
        try:
            announced = services.leases.sweep()
            if announced:
                log.info("announced again", extra={"jobs": announced})
            if monotonic() >= expire_at:
                services.segmentations.expire()
                services.workers.forget_lost()
                expire_at = monotonic() + EXPIRE_EVERY_S
        except Exception:
            # The database may be away for a moment; the next round tries again.
            log.exception("housekeeping failed")
    services.close()
