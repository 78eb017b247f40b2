"""One DICOM series of a folder, segmented into what a PACS can store."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from pydicom.dataset import Dataset

from models.spec import BackboneSpec
from models.state import State
from normbank.dicom.provenance import AnswerOrigin
from normbank.dicom.report import write_report
from normbank.dicom.seg import write_seg
from normbank.dicom.series import DicomSeries, open_series
from normbank.entities import DomainState
from normbank.entities.jobs import AUTO
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Scan
from normbank.pacs.answer import SeriesAnswer, SeriesRequest
from normbank.wiring import CoreServices
from pipeline.identify import Identification, identify, served_domains, shipped_identifier
from pipeline.networks import Networks
from pipeline.record import Answerer, RecordedAnswer, segment_and_record
from pipeline.segment import SegmentedScan, computed_by, segment_scan
from pipeline.sound import counting, sound_version

log = logging.getLogger(__name__)


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
    named = _promised(core, networks, request)

    def choose(scan: Scan) -> Answerer:
        decision, answering = None, named
        if answering is None:
            decision = _identify(core, networks, scan, series)
            answering = sound_version(core, networks, decision.chosen())
        version, state = answering
        network = networks.predictor_of(version)
        predictor = networks.predict_with(state, None, counting(request.on_progress))

        def segment(scan: Scan) -> SegmentedScan:
            return computed_by(segment_scan(scan, predictor, network.spec), network.backend)

        return Answerer.chosen(version, segment, decision)

    spec = networks.predictor_of(named[0]).spec if named else networks.spec
    answer = segment_and_record(
        core, series, choose, spacing_mm=spec.spacing_mm, job_id=request.job_id
    )
    return _series_answer(answer, series, request)


def _series_answer(
    answer: RecordedAnswer, series: DicomSeries, request: SeriesRequest
) -> SeriesAnswer:
    record, summary = answer.record, answer.record.summary
    by = AnswerOrigin.of_record(record)

    def make_objects(key: str) -> Sequence[Dataset]:
        origin = replace(by, key=key)
        seg = write_seg(series, answer.ids, origin, kind=request.kind)
        if not request.report:
            return [seg]
        return [seg, write_report(series, seg, summary.volumes_mm3, origin)]

    decision = summary.identification
    facts = {
        "segmentation": record.id,
        "volumes_mm3": dict(summary.volumes_mm3),
        "flags": [flag.to_json() for flag in summary.flags],
    }
    reason = "named" if decision is None else str(decision["reason"])
    return SeriesAnswer(make_objects, record.domain_id, record.version, reason, facts)


def _promised(
    core: CoreServices, networks: Networks, request: SeriesRequest
) -> tuple[DomainState, State] | None:
    """Who answers, where that is known: by name, or as an attempt that was killed has answered."""
    earlier = core.segmentations.of_job(request.job_id)
    if earlier is not None:
        version = core.versions.get(earlier.domain_id, earlier.version)
        return sound_version(core, networks, earlier.domain_id, version)
    return None if request.domain == AUTO else sound_version(core, networks, request.domain)


def _identify(
    core: CoreServices, networks: Networks, scan: Scan, series: DicomSeries
) -> Identification:
    """Which of the domains that can be served here a series belongs to."""

    def network_of(state: DomainState) -> tuple[SlicePredictor, BackboneSpec] | None:
        version, tensors = sound_version(core, networks, state.domain_id)
        return networks.predict_with(tensors), networks.predictor_of(version).spec

    served = [one for one in served_domains(core) if networks.can_serve(one.state)]
    return identify(scan, series.facts, served, shipped_identifier(), network_of=network_of)
