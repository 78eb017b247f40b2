"""The Celery application: `celery --app worker.main:celery worker`.

A message holds a job's id and nothing else. Everything heavy is imported by
the task, in the pool's child, so that the parent stays light.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.signals import setup_logging, worker_process_init, worker_ready, worker_shutting_down

from normbank.config import get_settings
from normbank.entities import JobKind, WorkerProcess
from normbank.logs import configure_logging
from normbank.queue import celery_settings, task_name

if TYPE_CHECKING:
    from worker.heartbeat import Heartbeat

PR_SET_PDEATHSIG = 1

celery = Celery("normbank")


def _configuration() -> dict[str, Any]:
    settings = get_settings()
    return celery_settings(settings.redis_url, settings.job_limit_s)


celery.add_defaults(_configuration)


@celery.task(name=task_name(JobKind.ADAPT))  # type: ignore[untyped-decorator]
def adapt(job_id: str) -> None:
    """Learn a domain's next version from its labelled cases."""
    from worker.adaptation import adapt_domain
    from worker.context import worker_context
    from worker.runner import run

    run(job_id, adapt_domain, worker_context())


@celery.task(name=task_name(JobKind.SEGMENT))  # type: ignore[untyped-decorator]
def segment(job_id: str) -> None:
    """Segment a stored scan."""
    from worker.context import worker_context
    from worker.runner import run
    from worker.segmentation import segment_stored

    run(job_id, segment_stored, worker_context())


@celery.task(name=task_name(JobKind.PACS))  # type: ignore[untyped-decorator]
def pacs(job_id: str) -> None:
    """Segment a series of a PACS, and store the results there."""
    from functools import partial

    from pipeline.series import segment_series
    from worker.context import worker_context
    from worker.pacs import segment_from_pacs
    from worker.runner import run

    run(job_id, partial(segment_from_pacs, segment=segment_series), worker_context())


@worker_ready.connect  # type: ignore[untyped-decorator]
def _show_life(**_: Any) -> None:
    heartbeat().start()


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _end_life(**_: Any) -> None:
    heartbeat().stop()


@cache
def heartbeat() -> Heartbeat:
    """The main process's heartbeat."""
    return _heartbeat_of(WorkerProcess.MAIN)


def _heartbeat_of(process: WorkerProcess) -> Heartbeat:
    """Imported late: with the database's library before, the child would be spawned later."""
    from worker.heartbeat import Heartbeat

    return Heartbeat(get_settings(), process)


@worker_ready.connect  # type: ignore[untyped-decorator]
def _start_housekeeping(**_: Any) -> None:
    from worker.housekeeping import start

    start(get_settings())


@worker_shutting_down.connect  # type: ignore[untyped-decorator]
def _stop_housekeeping(**_: Any) -> None:
    from worker.housekeeping import stop

    stop()


@setup_logging.connect  # type: ignore[untyped-decorator]
def _log_json(**_: Any) -> None:
    configure_logging(get_settings().log_level)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _die_with_the_parent(**_: Any) -> None:
    """A child must not go on alone with the device when its worker is killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _show_life_of_the_child(**_: Any) -> None:
    _heartbeat_of(WorkerProcess.POOL).start()


@worker_process_init.connect  # type: ignore[untyped-decorator]
def _open_ahead(**_: Any) -> None:
    """Load the backbone and measure what computes before the first job waits for it.

    Beside the child's start, which has a time limit; a job that comes meanwhile
    waits, and where it fails the job says so.
    """
    from worker.context import worker_context

    threading.Thread(target=worker_context, name="opening", daemon=True).start()
