"""One DICOM series of a folder, segmented into what a PACS can store."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from models.state import State
from normbank.dicom.provenance import AnswerOrigin
from normbank.dicom.report import write_report
from normbank.dicom.seg import write_seg
from normbank.dicom.series import DicomSeries, open_series
from normbank.entities import DomainState
from normbank.errors import NoCloseDomainError, StateError
from normbank.imaging.scan import Scan
from normbank.pacs.answer import SeriesAnswer, SeriesRequest
from normbank.pacs.config import AUTO
from normbank.services.integrity import REJECTED_STATES
from normbank.services.matching import route
from normbank.wiring import CoreServices
from pipeline.networks import Networks
from pipeline.record import Answerer, RecordedAnswer, segment_and_record
from pipeline.segment import SegmentedScan, computed_by, segment_scan

log = logging.getLogger(__name__)

TYPICAL_SLICES = 160
DOMAINS = 1000


def segment_series(core: CoreServices, networks: Networks, request: SeriesRequest) -> SeriesAnswer:
    """Segment and record a series; nothing is sent anywhere.

    Parameters
    ----------
    request : which, and what is wanted

    Raises
    ------
    DicomError
        If the files are no series that is one whole volume.
    NoCloseDomainError, NotFoundError, ConflictError
        `no_close_domain`, `unknown_domain`, `domain_not_ready`, `other_backbone`.
    ImplausibleError
        If the answer is no anatomy.
    """
    salt = core.settings.serial_salt.encode()
    series = open_series(request.folder, core.limits, series_uid=request.series, salt=salt)
    domain_id, reason = _domain_of(core, request.domain, series)
    version, state = _sound_state(core, networks, domain_id)
    network = networks.predictor_of(version)
    predictor = networks.predict_with(state, None, _counting(request.on_progress))

    def segmented(scan: Scan) -> SegmentedScan:
        return computed_by(segment_scan(scan, predictor, network.spec), network.backend)

    answer = segment_and_record(
        core,
        series,
        lambda _: Answerer(version, segmented),
        spacing_mm=network.spec.spacing_mm,
        job_id=request.job_id,
    )
    return _series_answer(answer, series, version, reason, request)


def _series_answer(
    answer: RecordedAnswer,
    series: DicomSeries,
    version: DomainState,
    reason: str,
    request: SeriesRequest,
) -> SeriesAnswer:
    summary = answer.record.summary
    by = AnswerOrigin.of(version)

    def make_objects(key: str) -> Sequence[Dataset]:
        origin = replace(by, key=key)
        seg = write_seg(series, answer.ids, origin, kind=request.kind)
        if not request.report:
            return [seg]
        return [seg, write_report(series, seg, summary.volumes_mm3, origin)]

    facts = {
        "segmentation": answer.record.id,
        "volumes_mm3": dict(summary.volumes_mm3),
        "flags": [flag.to_json() for flag in summary.flags],
    }
    return SeriesAnswer(make_objects, version.domain_id, version.number, reason, facts)


def _domain_of(core: CoreServices, wanted: str, series: DicomSeries) -> tuple[str, str]:
    """The id of the domain that answers, and why it is this one."""
    if wanted != AUTO:
        return wanted, "named"
    served = [one for one in core.domains.page(None, DOMAINS).items if one.active_version]
    fitting = route(served, series.facts)
    if fitting:
        return fitting[0].id, "rules"
    if len(served) == 1:
        return served[0].id, "only_domain"
    raise NoCloseDomainError("No domain's rules fit this series; name one of them.")


def _sound_state(
    core: CoreServices, networks: Networks, domain_id: str
) -> tuple[DomainState, State]:
    """The served version; one that fails its checks is quarantined first."""
    while True:
        version = core.versions.active(domain_id)
        try:
            return version, networks.load(version, core.versions.state_bytes)
        except StateError as error:
            extra = {"state": version.ref, "why": str(error)}
            log.error("ALARM: a stored state was refused", extra=extra)
            core.integrity.count_up(REJECTED_STATES)
            core.versions.quarantine(version.domain_id, version.number, str(error))


def _counting(on_progress: Callable[[float, str], None]) -> Callable[[int], None]:
    """Hears of slices, says how far the series is, and ends it when it shall not go on."""
    done = 0

    def on_slices(count: int) -> None:
        nonlocal done
        on_progress(done / (done + TYPICAL_SLICES), "segmenting")
        done += count

    return on_slices
