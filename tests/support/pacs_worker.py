"""A worker for the job `pacs` alone, whose segmentation needs no network.

`python -m tests.support.pacs_worker`, in a process of its own, so that it can be
killed. It sweeps and claims as a worker does, and runs the worker's own code.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import cast

from pydicom.dataset import Dataset
from sqlalchemy import text

from normbank.config import get_settings
from normbank.pacs.answer import SeriesAnswer, SeriesRequest
from normbank.storage.spool import open_spool
from normbank.wiring import CoreServices, services_of
from pipeline.networks import Networks
from tests.support.mr_series import bright_seg
from worker.context import WorkerContext
from worker.pacs import segment_from_pacs
from worker.runner import run


def segment_bright(
    _core: CoreServices, _networks: Networks, request: SeriesRequest
) -> SeriesAnswer:
    """Everything brighter than the mean, as a SEG; takes as long as the environment says."""
    request.on_progress(0.5, "segmenting")
    time.sleep(float(os.environ.get("TEST_SEGMENT_S", "0")))
    files = Path(request.folder)

    def make_objects(key: str) -> Sequence[Dataset]:
        return [bright_seg(files, key)]

    return SeriesAnswer(make_objects, "plain", 1, "only_domain", {"volumes_mm3": {}})


def do_jobs(core: CoreServices, spool: Path) -> int:
    """Do every job that is due; how many there were."""
    context = WorkerContext(core, cast(Networks, None), f"test:{os.getpid()}", spool)
    query = text("SELECT id FROM job WHERE state IN ('queued', 'running') ORDER BY created_at")
    with core.database.connect() as connection:
        due = list(connection.execute(query).scalars())
    for job_id in due:
        run(job_id, partial(segment_from_pacs, segment=segment_bright), context)
    return len(due)


def main() -> None:
    settings = get_settings()
    with services_of(settings) as core, open_spool(settings.spool_at, "worker-") as spool:
        print("ready", flush=True)
        while True:
            core.leases.sweep()
            do_jobs(core, spool)
            time.sleep(0.1)


if __name__ == "__main__":
    main()
