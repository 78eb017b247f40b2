"""How a job is announced to the workers: its id, and nothing else.

The row in PostgreSQL is the truth; a message that is lost, late or delivered
twice does no harm (`normbank.services.jobs`).
"""

from __future__ import annotations

import logging
from typing import Any, Protocol

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from normbank.entities import Job, JobKind

log = logging.getLogger(__name__)

KEY_PREFIX = "normbank:"
SEGMENT_FIRST = (JobKind.SEGMENT, JobKind.PACS, JobKind.ADAPT)
SOFT_MARGIN_S = 60
SHUTDOWN_S = 30


class JobQueue(Protocol):
    """Where jobs are announced."""

    def enqueue(self, job: Job) -> None:
        """Announce a committed job; never fails, the sweep announces again."""


def task_name(kind: JobKind) -> str:
    """The Celery task that does jobs of this kind."""
    return f"normbank.{kind}"


def celery_settings(redis_url: str, job_limit_s: int) -> dict[str, Any]:
    """Celery's settings, one set for producers and workers.

    The visibility timeout must exceed the hard time limit, stands in three
    places, and the shortest value of any client of a broker wins: so every
    process takes its settings here. It is not what brings a dead worker's job
    back; the lease of the row is.

    Parameters
    ----------
    redis_url : `redis://…` or `redis+socket://…`
    job_limit_s : hard time limit of one task, seconds

    Notes
    -----
    A worker also wants `REMAP_SIGTERM=SIGQUIT` in its environment, for the
    soft shutdown, and `--concurrency 1` per device.
    """
    visibility_s = 2 * job_limit_s
    return {
        "broker_url": redis_url,
        "broker_connection_retry_on_startup": True,
        "broker_transport_options": {
            "visibility_timeout": visibility_s,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
            "global_keyprefix": KEY_PREFIX,
            "queue_order_strategy": "priority",
        },
        "result_backend": None,
        "result_backend_transport_options": {"visibility_timeout": visibility_s},
        "visibility_timeout": visibility_s,
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "event_serializer": "json",
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        "task_queues": {
            kind.value: {"exchange": kind.value, "routing_key": kind.value}
            for kind in SEGMENT_FIRST
        },
        "task_default_queue": JobKind.ADAPT.value,
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "task_track_started": True,
        "task_soft_time_limit": max(job_limit_s - SOFT_MARGIN_S, job_limit_s // 2),
        "task_time_limit": job_limit_s,
        "worker_prefetch_multiplier": 1,
        "worker_pool": "prefork",
        "worker_pool_start_method": "spawn",
        "worker_concurrency": 1,
        "worker_proc_alive_timeout": 60,
        "worker_max_tasks_per_child": 50,
        "worker_cancel_long_running_tasks_on_connection_loss": True,
        "worker_soft_shutdown_timeout": SHUTDOWN_S,
        "worker_enable_soft_shutdown_on_idle": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "enable_utc": True,
    }


class CeleryQueue:
    """Announces jobs as Celery tasks `normbank.<kind>` on the queue `<kind>`.

    Connects at the first message, not when it is made. A broker that does not
    answer costs a few seconds and a line in the log, never the request.

    Parameters
    ----------
    redis_url : broker
    job_limit_s : hard time limit of one task, seconds; the workers' value
    """

    def __init__(self, redis_url: str, job_limit_s: int = 4 * 3600) -> None:
        self._app = Celery("normbank-producer", set_as_current=False)
        self._app.conf.update(celery_settings(redis_url, job_limit_s))
        # A request waits for this connection, so it gives up early.
        self._app.conf.broker_transport_options |= {
            "socket_timeout": 3,
            "socket_connect_timeout": 2,
            "max_retries": 1,
            "interval_start": 0,
            "interval_step": 0.1,
        }

    def enqueue(self, job: Job) -> None:
        """Send `[job.id]`; a broken broker is logged and left to the sweep."""
        try:
            self._app.send_task(
                task_name(job.kind), args=[job.id], queue=job.kind.value, retry=False
            )
        except (OperationalError, redis.RedisError, OSError) as error:
            log.warning("job %s not announced: %s", job.id, type(error).__name__)


def broker_answers(redis_url: str, timeout_s: float = 2.0) -> bool:
    """Whether the broker answers a ping within `timeout_s` seconds."""
    url = redis_url.replace("redis+socket://", "unix://", 1)
    try:
        with redis.Redis.from_url(
            url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s
        ) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
