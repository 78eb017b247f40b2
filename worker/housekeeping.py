"""What somebody has to do from time to time: lost jobs, expired answers, files that rot."""

from __future__ import annotations

import logging
import threading
from time import monotonic

from normbank.config import Settings
from normbank.storage.roles import log_role_warning
from normbank.storage.spool import sweep_spool
from normbank.wiring import open_services

log = logging.getLogger(__name__)

EXPIRE_EVERY_S = 600.0
SCRUB_BYTES_PER_S = 20 * 1024 * 1024

_stopping = threading.Event()


def start(settings: Settings) -> None:
    """Keep house from two threads of the worker's parent process."""
    _stopping.clear()
    for name, work in (("housekeeping", _keep_house), ("scrub", _scrub)):
        threading.Thread(target=work, args=(settings,), name=name, daemon=True).start()


def stop() -> None:
    _stopping.set()


def _keep_house(settings: Settings) -> None:
    services = open_services(settings)
    log_role_warning(services.database)
    expire_at = monotonic()
    while not _stopping.wait(settings.sweep_s):
        try:
            announced = services.leases.sweep()
            if announced:
                log.info("announced again", extra={"jobs": announced})
            if monotonic() >= expire_at:
                services.segmentations.expire()
                services.integrity.sweep_incoming()
                services.workers.forget_lost()
                sweep_spool(settings.spool_at)
                expire_at = monotonic() + EXPIRE_EVERY_S
        except Exception:
            # The database may be away for a moment; the next round tries again.
            log.exception("housekeeping failed")
    services.close()


def _scrub(settings: Settings) -> None:
    """Read every stored file once a day, a 256th of them at a time and none in a hurry."""
    services = open_services(settings)
    while not _stopping.wait(settings.sweep_s):
        try:
            services.integrity.scrub_next(_slowly)
        except Exception:
            log.exception("scrubbing failed")
    services.close()


def _slowly(count: int) -> None:
    """Wait for as long as so many bytes may take; not at all when the worker ends."""
    _stopping.wait(count / SCRUB_BYTES_PER_S)
