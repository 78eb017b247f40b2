"""From a file to labels: choose the domain, get its state, segment, record."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from app.engine.device import Device
from app.engine.status import EngineStatus, OlderBackbone
from app.telemetry import Telemetry
from models.pool import StateSlot
from models.spec import BackboneSpec
from normbank.cancellation import Cancellation
from normbank.entities import DomainState
from normbank.entities.jobs import AUTO
from normbank.errors import (
    AbandonedError,
    BusyError,
    ConflictError,
    EmptyScanError,
    NormbankError,
    StateError,
)
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.memory import needed_bytes, reading_bytes
from normbank.imaging.plausibility import is_judged
from normbank.imaging.scan import Scan
from normbank.source import ScanSource, open_source
from normbank.wiring import CoreServices
from pipeline.identify import Identification, identify, served_domains, shipped_identifier
from pipeline.label_check import Look
from pipeline.networks import checked_state, other_backbone
from pipeline.record import Answerer, RecordedAnswer, segment_and_record
from pipeline.segment import SegmentedScan

log = logging.getLogger(__name__)

STARTING_RETRY_S = 5
USUAL_SPACING_MM = 1.0


@dataclass(frozen=True, slots=True)
class SegmentRequest:
    """What a client wants segmented.

    Attributes
    ----------
    path : the scan's file, whatever it is called, or the folder of a DICOM series
    domain : an id, or `auto`
    facts : BIDS header facts of a sidecar, which go before the scan's own
    certify : add the hash of every score the network gave to the quality
    accept_doubtful : answer even where there are severe flags
    """

    path: Path
    domain: str
    facts: Mapping[str, Any]
    certify: bool = False
    accept_doubtful: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Checked:
    """A scan that can be segmented.

    Attributes
    ----------
    state : what would answer
    decision : why; None where the domain was named
    """

    state: DomainState
    scan: Scan
    decision: Identification | None = None


@dataclass(slots=True)
class Blame:
    """Whose traffic an error is counted in; None: not known yet."""

    domain_id: str | None


class Segmenter:
    """Segments one scan per call; blocks while the device works.

    Parameters
    ----------
    core : the registry's services
    device : what segments
    """

    def __init__(
        self,
        core: CoreServices,
        device: Device,
        telemetry: Telemetry,
    ) -> None:
        self._core = core
        self._device = device
        self._telemetry = telemetry
        self._refusing = Lock()

    @property
    def spec(self) -> BackboneSpec:
        """The current backbone's conventions; BusyError while it is loaded."""
        self._check_ready()
        return self._device.spec

    @property
    def backbone_sha256(self) -> str:
        """What names the current backbone; BusyError while it is loaded."""
        self._check_ready()
        return self._device.backbone_sha256

    def spec_of(self, backbone: str) -> BackboneSpec | None:
        """The conventions of a backbone that can be served, the current or an older one."""
        self._check_ready()
        return self._device.spec_of(backbone)

    def older(self) -> Sequence[OlderBackbone]:
        """The older backbones that are loaded."""
        self._check_ready()
        return self._device.older()

    def describe(self) -> EngineStatus:
        """Device, precision, batch, and domains in the bank."""
        self._check_ready()
        return self._device.describe()

    def gauges(self) -> dict[str, float]:
        """What Prometheus shall see of the device now."""
        device = self._device
        in_bank = device.describe().domains_in_bank if device.ready else 0
        return {
            "engine_ready": float(device.ready and not device.failed),
            "queue_depth": float(device.waiting),
            "memory_reserved_bytes": float(self._core.memory.reserved_bytes),
            "bank_domains": float(in_bank),
        }

    def check_room(self) -> None:
        """Raise BusyError when the queue is full now, before an upload is read."""
        self._device.check_room()

    def admit(self) -> AbstractContextManager[None]:
        """A place in the queue for a scan that lies there whole; BusyError when full."""
        return self._device.admit()

    def _check_ready(self) -> None:
        if not self._device.ready:
            raise BusyError(
                "The engine is starting.", retry_after_s=STARTING_RETRY_S, code="starting"
            )

    def segment(
        self, request: SegmentRequest, cancellation: Cancellation | None = None
    ) -> RecordedAnswer:
        """Segment a scan and record the answer.

        Parameters
        ----------
        cancellation : ends the work when nobody waits for it any more

        Raises
        ------
        NotFoundError, ConflictError
            `unknown_domain`, `domain_not_ready`, `other_backbone`.
        NoCloseDomainError
            If `auto` finds none; facts hold the ranking.
        InvalidError
            If the file is no scan that can be segmented; ImplausibleError if the
            answer is no anatomy.
        AbandonedError
            If it was cancelled; nothing is recorded.
        """
        blame = Blame(None if request.domain == AUTO else request.domain)
        with self._errors_counted(blame):
            named = None if request.domain == AUTO else self.load_state(request.domain)
            source = self._open(request)

            def choose(scan: Scan) -> Answerer:
                decision, answering = None, named
                if answering is None:
                    decision = self._identify(scan, request, source)
                    blame.domain_id = decision.chosen()
                    answering = self.load_state(blame.domain_id)
                state, slot = answering
                network = partial(
                    self._device.segment,
                    slot=slot,
                    certify=request.certify,
                    cancellation=cancellation,
                )
                return Answerer.chosen(state, network, decision)

            answer = segment_and_record(
                self._core,
                source,
                choose,
                spacing_mm=self._spacing_mm(named[0]) if named else self.spacing_mm,
                accept_doubtful=request.accept_doubtful,
                cancellation=cancellation,
            )
        self._telemetry.time_stages(answer.record.summary.timings_s)
        return answer

    def _open(self, request: SegmentRequest) -> ScanSource:
        return open_source(request.path, self._core.limits, salt=self._core.settings.serial_salt)

    def looks(self) -> list[Look]:
        """How each served state sees a scan; none where what they see cannot be judged."""
        if not self._device.ready or not is_judged(self._device.spec.classes):
            return []
        return [partial(self._look, state) for state in self._core.versions.all_active()]

    def _look(self, state: DomainState, scan: Scan) -> SegmentedScan | None:
        try:
            slot = self._device.ensure(state, self._core.versions.state_bytes)
            return self._device.segment(scan, slot, look_around=False)
        except (EmptyScanError, StateError, ConflictError):
            return None

    def check(self, request: SegmentRequest) -> Checked:
        """Refuse now what a job would only fail at later."""
        blame = Blame(None if request.domain == AUTO else request.domain)
        with self._errors_counted(blame):
            named = None if request.domain == AUTO else self._active_state(request.domain)
            source = self._open(request)
            needed = reading_bytes(source) if named else needed_bytes(source, self.spacing_mm)
            with self._core.memory.reserved(needed):
                scan = source.read()
                if named:
                    return Checked(named, scan)
                decision = self._identify(scan, request, source)
            blame.domain_id = decision.chosen()
            return Checked(self._active_state(blame.domain_id), scan, decision)

    def identify(
        self, request: SegmentRequest, cancellation: Cancellation | None = None
    ) -> Identification:
        """Which domain a scan belongs to; errors as of `segment`, but for those of a domain."""
        source = self._open(request)
        needed = needed_bytes(source, self.spacing_mm)
        with self._core.memory.reserved(needed, cancellation):
            return self._identify(source.read(), request, source)

    def _identify(self, scan: Scan, request: SegmentRequest, source: ScanSource) -> Identification:
        facts = {**source.facts, **request.facts}
        served = [one for one in served_domains(self._core) if self._is_servable(one.state)]
        return identify(scan, facts, served, shipped_identifier(), network_of=self._network_of)

    def _is_servable(self, state: DomainState) -> bool:
        return not self._device.ready or self._device.spec_of(state.backbone) is not None

    def _network_of(self, state: DomainState) -> tuple[SlicePredictor, BackboneSpec] | None:
        """The network that is asked whether it sees a brain; None where that says nothing."""
        spec = self._device.spec_of(state.backbone) if self._device.ready else None
        if spec is None or not is_judged(spec.classes):
            return None
        try:
            slot = self._device.ensure(state, self._core.versions.state_bytes)
        except (StateError, ConflictError):
            return None
        return self._device.network(slot), spec

    @property
    def spacing_mm(self) -> float:
        """Of the current network; the usual one while none is loaded."""
        return self._device.spec.spacing_mm if self._device.ready else USUAL_SPACING_MM

    def _spacing_mm(self, state: DomainState) -> float:
        """Of the network that a state belongs to."""
        spec = self._device.spec_of(state.backbone) if self._device.ready else None
        return self.spacing_mm if spec is None else spec.spacing_mm

    def load_state(self, domain_id: str) -> tuple[DomainState, StateSlot]:
        """A domain's active state and where it lies on the device.

        A state that fails its checks is quarantined, and the version served
        before it is tried next. One whose backbone is not in the pool is sound,
        and only not servable here.

        Raises
        ------
        NotFoundError, ConflictError
            `unknown_domain`, `domain_not_ready`, `other_backbone`.
        """
        while True:
            state = self._active_state(domain_id)
            try:
                return state, self._device.ensure(state, self._core.versions.state_bytes)
            except StateError as error:
                self._refuse(state, str(error))

    def verify(self, domain_id: str, actor: str = "system") -> tuple[DomainState, ...]:
        """Check the stored bytes of every version again, whatever lies on the device.

        What is bad is quarantined, and a quarantine whose cause is gone is
        lifted. Without its backbone only a state's hash can be checked.

        Returns
        -------
        all versions as they stand now, oldest first

        Raises
        ------
        NotFoundError
            `unknown_domain`.
        """
        self._check_ready()
        for state in self._core.versions.of(domain_id):
            fault = self._fault_of(state)
            if fault is not None:
                self._refuse(state, fault)
            elif state.quarantined is not None:
                self._core.versions.lift_quarantine(domain_id, state.number, actor=actor)
        return self._core.versions.of(domain_id)

    def _fault_of(self, state: DomainState) -> str | None:
        """What is wrong with a state's stored bytes."""
        spec = self._device.spec_of(state.backbone)
        try:
            checked_state(state, spec, self._core.versions.state_bytes)
        except StateError as error:
            return str(error)
        return None

    def _refuse(self, state: DomainState, why: str) -> None:
        """Quarantine a state, once, however many have met it at the same time."""
        with self._refusing:
            if self._core.versions.get(state.domain_id, state.number).quarantined is not None:
                return
            self._telemetry.count_rejected_state()
            extra = {"state": state.ref, "why": why}
            log.error("ALARM: a stored state was refused", extra=extra)
            self._core.versions.quarantine(state.domain_id, state.number, why)

    def _active_state(self, domain_id: str) -> DomainState:
        """A domain's active state, whose backbone must be the current one or in the pool."""
        state = self._core.versions.active(domain_id)
        if self._device.ready and self._device.spec_of(state.backbone) is None:
            raise other_backbone(state, self._device.backbone_sha256)
        return state

    def preload_all(self) -> None:
        """Bring the active state of every domain into the bank, where it is not there yet."""
        for state in self._core.versions.all_active():
            try:
                self._device.ensure(state, self._core.versions.state_bytes)
            except StateError:
                self._load_quietly(state.domain_id)  # refuses it, and takes the one before
            except NormbankError as error:
                _not_preloaded(state.domain_id, error)

    def preload(self, domain_id: str) -> None:
        """Make a domain's active state ready for its first request."""
        slot = self._load_quietly(domain_id)
        if slot is not None:
            self._device.prepare(slot)

    def _load_quietly(self, domain_id: str) -> StateSlot | None:
        try:
            return self.load_state(domain_id)[1]
        except NormbankError as error:
            _not_preloaded(domain_id, error)
            return None

    @contextmanager
    def _errors_counted(self, blame: Blame) -> Iterator[None]:
        """Let a refusal or a failure show up in the domain's traffic."""
        try:
            yield
        except (AbandonedError, BusyError):  # neither the domain nor the scan is to blame
            raise
        except NormbankError as error:
            self._count_error(blame.domain_id, error.code)
            raise
        except Exception:  # whatever it is, the domain's users got no answer
            self._count_error(blame.domain_id, "internal")
            raise

    def _count_error(self, domain_id: str | None, code: str) -> None:
        domain_exists = code != "unknown_domain"
        try:
            self._core.segmentations.record_error(domain_id if domain_exists else None, code)
        except SQLAlchemyError as error:  # the error itself is what the client shall see
            log.warning("an error was not counted", extra={"error": type(error).__name__})


def _not_preloaded(domain_id: str, error: NormbankError) -> None:
    log.warning("not preloaded", extra={"domain": domain_id, "code": error.code})
