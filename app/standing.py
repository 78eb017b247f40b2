"""How the service stands, from what its database knows, for people and for Prometheus."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

from app.health import UnmetError
from normbank.config import MIB
from normbank.services.integrity import CORRUPT_BLOBS, FLAGS, REJECTED_STATES
from normbank.wiring import CoreServices


def workers_in_words(core: CoreServices) -> str:
    """How many workers live, and when the last one was seen."""
    workers = core.workers.all()
    alive = len(core.workers.alive())
    silences_s = [worker.silent_s for worker in workers if math.isfinite(worker.silent_s)]
    if not silences_s:
        return "none alive, none seen: jobs wait"
    words = f"{alive or 'none'} alive, seen {min(silences_s):.0f} s ago"
    return words if alive else f"{words}: jobs wait"


def free_bytes(core: CoreServices) -> int:
    """Room left where scans and labels are stored, by the fuller of their disks."""
    folders = {core.settings.data_dir.resolve()}
    if "://" not in core.settings.blobs_at:
        folders.add(Path(core.settings.blobs_at))
    return min(shutil.disk_usage(_existing(folder)).free for folder in folders)


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def room_in_words(core: CoreServices) -> str:
    """How much room is left.

    Raises
    ------
    UnmetError
        When it is less than the settings ask for.
    """
    free, least = free_bytes(core), core.settings.min_free_bytes
    words = f"{free // MIB} MiB free"
    if free < least:
        raise UnmetError(f"{words}, less than {least // MIB} MiB")
    return words


def quarantined(core: CoreServices) -> list[tuple[str, int]]:
    """Domain and number of each version that is refused."""
    return [(version.domain_id, version.number) for version in core.versions.quarantined()]


def quarantined_in_words(core: CoreServices) -> str:
    """Which versions are refused; `none` when all are sound."""
    return ", ".join(version.ref for version in core.versions.quarantined()) or "none"


def flags_met(core: CoreServices) -> dict[str, int]:
    """How many answers had a flag, or were held back for it, by its code."""
    return {
        name.removeprefix(FLAGS): count
        for name, count in core.integrity.tallies().items()
        if name.startswith(FLAGS)
    }


def registry_gauges(core: CoreServices) -> dict[str, float]:
    """Values of `app.telemetry.REGISTRY_GAUGES` and `REGISTRY_COUNTERS`."""
    workers, tallies = core.workers.all(), core.integrity.tallies()
    return {
        "free_bytes": float(free_bytes(core)),
        "quarantined_versions": float(len(core.versions.quarantined())),
        "corrupt_blobs": float(core.integrity.count_corrupt()),
        "corrupt_blob_reads": float(tallies.get(CORRUPT_BLOBS, 0)),
        "worker_states_rejected": float(tallies.get(REJECTED_STATES, 0)),
        "workers_alive": float(len(core.workers.alive())),
        "worker_heartbeat_seconds": min((worker.silent_s for worker in workers), default=math.inf),
    }
