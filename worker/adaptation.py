"""The job `adapt`: load a domain's cases, learn its next version, publish it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.backends import precision_name
from models.evaluator import Evaluator
from models.nearest import Candidate
from models.state import State
from normbank.entities import (
    AdaptationRecord,
    Case,
    DomainState,
    HistoryPoint,
    Job,
    NewState,
    ProbeScore,
    Recipe,
    Replaced,
    Signature,
    UsedCases,
)
from normbank.errors import ConflictError, StateError, TooFewCasesError
from normbank.imaging.memory import labelled_bytes
from normbank.imaging.nifti import peek_header
from pipeline.adapt import Adapted, adapt
from pipeline.cases import LabelledFiles, LabelledScan, StoredScan, read_labelled
from pipeline.evaluate import open_evaluator
from pipeline.gate import Served
from pipeline.identify import shipped_identifier, signature_of
from pipeline.splits import ScanSplit
from worker.context import WorkerContext
from worker.runner import OnProgress

LEAST_CASES = 2


def adapt_domain(job: Job, context: WorkerContext, on_progress: OnProgress) -> Mapping[str, Any]:
    """Learn a domain's next version from its labelled cases; see `pipeline.adapt`.

    Returns
    -------
    `domain`, `version`, `promoted`, `state_sha256`, `parent`, and on the
    validation half `dice_before`, `dice_after`; `objections` of the gate

    Raises
    ------
    TooFewCasesError
    InvalidError
        `unknown_parent`, when the recipe starts from a state there is not.
    JobCancelledError, LeaseLostError
        From `on_progress`.
    """
    published = context.core.versions.of_job(job.id)
    if published is not None:  # by an attempt that was killed before it could say so
        return _result(context, published)
    assert job.domain_id is not None
    domain_id, recipe = job.domain_id, Recipe.from_json(job.payload)
    # What is read of the cases lies in files: the memory of an adaptation is that of one case.
    with tempfile.TemporaryDirectory(dir=context.spool_dir) as folder:
        loaded = _load_cases(context, domain_id, Path(folder), on_progress)
        cases = ScanSplit.of(context.networks, loaded, Path(folder))
        return _adapt(job, context, recipe, cases, on_progress)


def _adapt(
    job: Job, context: WorkerContext, recipe: Recipe, cases: ScanSplit, on_progress: OnProgress
) -> Mapping[str, Any]:
    assert job.domain_id is not None
    domain_id = job.domain_id
    states = _states_to_start_from(context, cases, recipe)
    frozen = open_evaluator(context.networks, cases.all, context.core.settings.precision)
    adapted = adapt(
        frozen,
        cases,
        states,
        recipe,
        served=lambda: _served(context, domain_id, cases),
        on_progress=on_progress,
    )
    on_progress(0.99, "publishing")
    return _result(context, _publish(context, job, recipe, frozen, cases, adapted))


def load_case(context: WorkerContext, case: Case) -> LabelledScan:
    """Read a case from the blob store.

    Raises
    ------
    TooLargeError
        `needs_too_much_memory`; whatever is wrong with a file, see `read_labelled`.
    """
    with tempfile.TemporaryDirectory(dir=context.spool_dir) as folder:
        scan, labels = Path(folder) / "scan", Path(folder) / "labels"
        context.core.blobs.fetch(case.scan_sha256, scan)
        context.core.blobs.fetch(case.labels_sha256, labels)
        files = LabelledFiles(scan, labels, case.label_scheme)
        spec, core = context.networks.spec, context.core
        needed = labelled_bytes(peek_header(scan, core.limits), spec.spacing_mm)
        with core.memory.reserved(needed):
            return read_labelled(
                case.id, files, spec.classes, core.limits, structures=case.structures
            )


def _load_cases(
    context: WorkerContext, domain_id: str, folder: Path, on_progress: OnProgress
) -> list[StoredScan]:
    cases = context.core.cases.of(domain_id)
    if len(cases) < LEAST_CASES:
        raise TooFewCasesError(f"An adaptation needs at least {LEAST_CASES} labelled cases.")
    loaded = []
    for number, case in enumerate(cases):
        on_progress(0.04 * number / len(cases), "reading cases")
        loaded.append(StoredScan.of(load_case(context, case), folder))
    return loaded


def _states_to_start_from(
    context: WorkerContext, cases: ScanSplit, recipe: Recipe
) -> dict[str, State]:
    """Every sound state that is served on the current backbone, by reference.

    One that has learnt from the validation half is left out: nothing that
    grows from it could be judged by that half. A parent that the recipe names
    may also be a version that is not served at present.
    """
    current = context.networks.backbone.sha256
    states = {}
    for version in context.core.versions.all_active():
        if version.backbone != current or cases.judged_by(_learnt_from(version)):
            continue
        try:
            states[version.ref] = context.load(version)
        except StateError as error:
            context.refuse(version, error)
    if not states:
        raise ConflictError("There is no stored state to start from.", code="no_states")
    if recipe.parent is not None and recipe.parent not in states:
        parent = context.core.versions.parent(recipe.parent, lambda: current)
        states[recipe.parent] = context.load(parent)
    return states


def _served(context: WorkerContext, domain_id: str, cases: ScanSplit) -> Served | None:
    """A domain's active version; one that fails its checks is quarantined first.

    One that has learnt from the validation half is taken at the score that it
    had on cases it had not seen, when it was made.
    """
    while (number := context.core.domains.get(domain_id).active_version) is not None:
        active = context.core.versions.get(domain_id, number)
        try:
            state = context.load(active)
        except StateError as error:
            context.refuse(active, error)
            continue
        except ConflictError:  # its backbone is gone: nobody can say whether it is sound
            state = None
        seen = cases.judged_by(_learnt_from(active))
        record = active.adaptation
        scores = record.after if seen and record is not None else None
        return Served(number, active.sha256, state, scores)
    return None


def _learnt_from(version: DomainState) -> Sequence[str]:
    """Ids of the cases that a version has learnt from."""
    return AdaptationRecord.cases_of(version.metrics).learnt


def _publish(
    context: WorkerContext,
    job: Job,
    recipe: Recipe,
    frozen: Evaluator,
    cases: ScanSplit,
    adapted: Adapted,
) -> DomainState:
    assert job.domain_id is not None
    verdict = adapted.verdict
    served = None if verdict.served is None else verdict.served.version
    return context.core.versions.publish(
        job.domain_id,
        state=NewState(
            sha256=adapted.state.sha256,
            backbone=context.networks.backbone.sha256,
            parent=adapted.parent,
            recipe=recipe.to_json(),
            metrics=_record(frozen, cases, adapted, _signature(cases)).to_json(),
            job_id=job.id,
            tensors=adapted.state.to_bytes(),
        ),
        promote=verdict.promote,
        compared_with=served,
        attempt=job.attempt,
        reason=" ".join(("adapted; gate passed",) if verdict.promote else verdict.objections),
        actor=f"job:{job.id}",
    )


def _result(context: WorkerContext, version: DomainState) -> dict[str, Any]:
    """A job's result, from the version it has published."""
    domain, record = context.core.domains.get(version.domain_id), version.adaptation
    assert record is not None
    return {
        "domain": version.domain_id,
        "version": version.number,
        "promoted": domain.active_version == version.number,
        "state_sha256": version.sha256,
        "parent": version.parent,
        "dice_before": record.before.mean_dice,
        "dice_after": record.after.mean_dice,
        "objections": list(record.objections),
    }


def _signature(cases: ScanSplit) -> Signature | None:
    """What the scans look like, for those that come without a header."""
    return signature_of((case.opened().scan for case in cases.all), shipped_identifier())


def _record(
    frozen: Evaluator, cases: ScanSplit, adapted: Adapted, signature: Signature | None
) -> AdaptationRecord:
    verdict = adapted.verdict
    served = None if verdict.served is None else verdict.served.version
    training, validation = (
        tuple(case.id for case in half) for half in (cases.training, cases.validation)
    )
    learnt = (*training, *validation) if verdict.refit else training
    return AdaptationRecord(
        before=verdict.before,
        after=verdict.after,
        precision=precision_name(frozen.precision),
        candidates=tuple(_probe_score(candidate) for candidate in adapted.candidates),
        replaced=Replaced(served, verdict.served_dice),
        history=tuple(
            HistoryPoint(point.step, round(point.dice, 4)) for point in adapted.tuning.history
        ),
        cases=UsedCases(training, validation, learnt),
        objections=verdict.objections,
        signature=signature,
    )


def _probe_score(candidate: Candidate) -> ProbeScore:
    structures = {name: round(dice, 4) for name, dice in candidate.by_name.items()}
    return ProbeScore(candidate.ref, round(candidate.dice, 4), structures)
