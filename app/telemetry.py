"""What Prometheus sees; each application has its own registry of metrics."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from normbank.entities import AuditHead, JobKind, JobState

log = logging.getLogger(__name__)

STAGE_BUCKETS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)

REGISTRY_GAUGES: Mapping[str, str] = {
    "workers_alive": "Workers whose two processes were seen lately.",
    "worker_heartbeat_seconds": "Seconds since any worker was seen.",
    "quarantined_versions": "Stored versions that are refused, of domains that are not archived.",
    "corrupt_blobs": "Stored files known to be bad, or gone though a row points to them.",
    "free_bytes": "Room left where scans and labels are stored.",
}
"""What the database knows; always exposed, NaN where it could not be asked."""

REGISTRY_COUNTERS: Mapping[str, str] = {
    "corrupt_blob_reads": "Stored files that were read and were bad, by all processes.",
    "worker_states_rejected": "Stored states that failed their checks in a worker.",
}
"""The same for counts that grow."""

Counts = Callable[[], Mapping[str, int]]
Gauges = Callable[[], Mapping[str, float]]
Quarantined = Callable[[], Iterable[tuple[str, int]]]
JobCounts = Callable[[], Mapping[tuple[JobKind, JobState], int]]
ReadHead = Callable[[], AuditHead | None]


class Telemetry:
    """Counters of this process, and gauges read when somebody asks.

    No label holds anything a client chose, but for the domains that have a
    quarantined version: routes are templates, and the other domains are left to
    `GET /domains/{id}/metrics`.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "normbank_requests",
            "Answered requests.",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "normbank_request_seconds",
            "Time to the end of an answer.",
            ("route",),
            registry=self.registry,
            buckets=STAGE_BUCKETS_S,
        )
        self._stages = Histogram(
            "normbank_segmentation_seconds",
            "Time of each stage of a segmentation.",
            ("stage",),
            registry=self.registry,
            buckets=STAGE_BUCKETS_S,
        )
        self._rejected = Counter(
            "normbank_states_rejected",
            "Stored states that failed their checks.",
            registry=self.registry,
        )

    def count_request(self, method: str, route: str, status: int, took_s: float) -> None:
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(took_s)

    def time_stages(self, timings_s: Mapping[str, float]) -> None:
        for stage, seconds in timings_s.items():
            self._stages.labels(stage).observe(seconds)

    def count_rejected_state(self) -> None:
        self._rejected.inc()

    def watch(
        self,
        gauges: Gauges,
        job_counts: JobCounts,
        audit_head: ReadHead,
        registry: Gauges = dict,
        quarantined: Quarantined = tuple,
        flags: Counts = dict,
    ) -> None:
        """Read these at every scrape; what raises is left out of that one.

        Parameters
        ----------
        gauges : of the device and the uploads
        job_counts : unfinished jobs
        audit_head : the newest event of the audit trail
        registry : values of `REGISTRY_GAUGES` and `REGISTRY_COUNTERS`
        quarantined : domain and number of each version that is refused
        flags : answers by the code of a flag that they had
        """
        self.registry.register(_Watched(gauges, job_counts, audit_head))
        self.registry.register(_Registry(registry, quarantined, flags))

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Watched(Collector):
    def __init__(self, gauges: Gauges, job_counts: JobCounts, audit_head: ReadHead) -> None:
        self._gauges = gauges
        self._job_counts = job_counts
        self._audit_head = audit_head

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: registering must not touch the database."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily]:
        for name, value in self._gauges().items():
            yield GaugeMetricFamily(
                f"normbank_{name}", f"{name.replace('_', ' ').capitalize()}.", value
            )
        try:
            yield from (self._jobs(), self._head())
        except Exception as error:  # without a database the other metrics matter all the more
            log.warning("jobs and audit left out", extra={"error": type(error).__name__})

    def _head(self) -> GaugeMetricFamily:
        newest = GaugeMetricFamily(
            "normbank_audit_head", "Number and hash of the newest audit event.", labels=("hash",)
        )
        head = self._audit_head()
        if head is not None:
            newest.add_metric((head.hash,), head.number)
        return newest

    def _jobs(self) -> GaugeMetricFamily:
        jobs = GaugeMetricFamily(
            "normbank_jobs", "Unfinished jobs by kind and state.", labels=("kind", "state")
        )
        for (kind, state), count in self._job_counts().items():
            jobs.add_metric((str(kind), str(state)), count)
        return jobs


class _Registry(Collector):
    def __init__(self, gauges: Gauges, quarantined: Quarantined, flags: Counts) -> None:
        self._gauges = gauges
        self._quarantined = quarantined
        self._flags = flags

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Nothing: registering must not touch the database."""
        return ()

    def collect(self) -> Iterable[GaugeMetricFamily | CounterMetricFamily]:
        values: Mapping[str, float] = {}
        refused = GaugeMetricFamily(
            "normbank_version_quarantined", "1 for a refused version.", labels=("domain", "version")
        )
        flags = CounterMetricFamily(
            "normbank_flags",
            "Answers with a doubt, also those held back for it, by all processes together.",
            labels=("code",),
        )
        try:
            values = self._gauges()
            for code, count in self._flags().items():
                flags.add_metric((code,), count)
            for domain, number in self._quarantined():
                refused.add_metric((domain, str(number)), 1.0)
        except Exception as error:  # an alert on NaN never fires: `NormbankFailing` tells
            log.warning("registry left out of a scrape", extra={"error": type(error).__name__})
        for name, text in REGISTRY_GAUGES.items():
            yield GaugeMetricFamily(f"normbank_{name}", text, values.get(name, math.nan))
        for name, text in REGISTRY_COUNTERS.items():
            yield CounterMetricFamily(f"normbank_{name}", text, values.get(name, math.nan))
        yield from (refused, flags)
