"""The job `adapt`: load a domain's cases, learn its next version, publish it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.backends import precision_name
from models.bench import Bench
from models.nearest import Candidate
from models.state import State
from normbank.entities import Case, DomainState, Job, NewState, Recipe
from normbank.errors import ConflictError, StateError, TooFewCasesError
from pipeline.adapt import Adapted, ScanSplit, Served, adapt
from pipeline.cases import LabelledFiles, LabelledScan, read_labelled
from pipeline.evaluate import evaluator
from worker.runner import Report
from worker.workplace import Workplace

LEAST_CASES = 2


def adapt_domain(job: Job, place: Workplace, report: Report) -> Mapping[str, Any]:
    """Learn a domain's next version from its labelled cases; see `pipeline.adapt`.

    Returns
    -------
    `domain`, `version`, `promoted`, `state_sha256`, `parent`, and on the
    validation half `dice_before`, `dice_after`

    Raises
    ------
    TooFewCasesError
    InvalidError
        `unknown_parent`, when the recipe starts from a state there is not.
    JobCancelledError, LeaseLostError
        From `report`.
    """
    published = place.registry.version_of_job(job.id)
    if published is not None:  # by an attempt that was killed before it could say so
        return _result(place, published)
    assert job.domain_id is not None
    domain_id, recipe = job.domain_id, Recipe.from_json(job.payload)
    cases = ScanSplit.of(place.networks, _load_cases(place, domain_id, report))
    frozen = evaluator(place.networks, cases.all, place.settings.precision)
    adapted = adapt(
        frozen,
        cases,
        _states_to_start_from(place, cases, recipe),
        recipe,
        served=lambda: _served(place, domain_id, cases),
        on_progress=report,
    )
    report(0.99, "publishing")
    return _result(place, _publish(place, job, recipe, frozen, cases, adapted))


def load_case(place: Workplace, case: Case) -> LabelledScan:
    """Read a case from the blob store."""
    with tempfile.TemporaryDirectory() as folder:
        scan, labels = Path(folder) / "scan", Path(folder) / "labels"
        place.blobs.fetch(case.scan_sha256, scan)
        place.blobs.fetch(case.labels_sha256, labels)
        files = LabelledFiles(scan, case.scan_name, labels, case.labels_name, case.label_scheme)
        return read_labelled(
            case.id,
            files,
            place.networks.spec.classes,
            place.limits,
            structures=case.structures,
        )


def _load_cases(place: Workplace, domain_id: str, report: Report) -> list[LabelledScan]:
    cases = place.registry.cases(domain_id)
    if len(cases) < LEAST_CASES:
        raise TooFewCasesError(f"An adaptation needs at least {LEAST_CASES} labelled cases.")
    loaded = []
    for number, case in enumerate(cases):
        report(0.04 * number / len(cases), "reading cases")
        loaded.append(load_case(place, case))
    return loaded


def _states_to_start_from(place: Workplace, cases: ScanSplit, recipe: Recipe) -> dict[str, State]:
    """Every sound state that is served on the current backbone, by reference.

    One that has learnt from the validation half is left out: nothing that
    grows from it could be judged by that half. A parent that the recipe names
    may also be a version that is not served at present.
    """
    current = place.networks.backbone.sha256
    states = {}
    for version in place.registry.active_states():
        if version.backbone != current or cases.judged_by(_learnt_from(version)):
            continue
        try:
            states[version.ref] = place.load(version)
        except StateError as error:
            place.registry.quarantine(version.domain_id, version.number, str(error))
    if not states:
        raise ConflictError("There is no stored state to start from.", code="no_states")
    if recipe.parent is not None and recipe.parent not in states:
        parent = place.registry.parent(recipe.parent, current)
        states[parent.ref] = place.load(parent)
    return states


def _served(place: Workplace, domain_id: str, cases: ScanSplit) -> Served | None:
    """A domain's active version; one that fails its checks is quarantined first.

    One that has learnt from the validation half is taken at the score that it
    had on cases it had not seen, when it was made.
    """
    while (number := place.registry.domain(domain_id).active_version) is not None:
        active = place.registry.version(domain_id, number)
        try:
            state = place.load(active)
        except StateError as error:
            place.registry.quarantine(domain_id, number, str(error))
            continue
        except ConflictError:  # its backbone is gone: nobody can say whether it is sound
            state = None
        seen = cases.judged_by(_learnt_from(active))
        dice = float(active.metrics["after"]["mean_dice"]) if seen else None
        return Served(number, active.sha256, state, dice)
    return None


def _learnt_from(version: DomainState) -> Sequence[str]:
    """Ids of the cases that a version has learnt from."""
    learnt: Sequence[str] = version.metrics.get("cases", {}).get("learnt", ())
    return learnt


def _publish(
    place: Workplace,
    job: Job,
    recipe: Recipe,
    frozen: Bench,
    cases: ScanSplit,
    adapted: Adapted,
) -> DomainState:
    assert job.domain_id is not None
    verdict = adapted.verdict
    served = None if verdict.served is None else verdict.served.version
    learnt = cases.all if verdict.refit else cases.training
    metrics = {
        "before": verdict.before,
        "after": verdict.after,
        "precision": precision_name(frozen.precision),
        "candidates": [_candidate(one) for one in adapted.candidates],
        "replaced": {"version": served, "dice": verdict.served_dice},
        "history": [
            {"step": look.step, "dice": round(look.dice, 4)} for look in adapted.tuning.history
        ],
        "cases": {
            "training": [case.id for case in cases.training],
            "validation": [case.id for case in cases.validation],
            "learnt": [case.id for case in learnt],
        },
    }
    return place.registry.publish(
        job.domain_id,
        state=NewState(
            sha256=adapted.state.sha256,
            backbone=place.networks.backbone.sha256,
            parent=adapted.parent,
            recipe=recipe.as_json(),
            metrics=metrics,
            job_id=job.id,
            tensors=adapted.state.to_bytes(),
        ),
        promote=verdict.promote,
        compared_with=served,
        attempt=job.attempt,
        reason="adapted; gate passed" if verdict.promote else "adapted; candidate",
        actor=f"job:{job.id}",
    )


def _result(place: Workplace, version: DomainState) -> dict[str, Any]:
    """A job's result, from the version it has published."""
    domain = place.registry.domain(version.domain_id)
    return {
        "domain": version.domain_id,
        "version": version.number,
        "promoted": domain.active_version == version.number,
        "state_sha256": version.sha256,
        "parent": version.parent,
        "dice_before": version.metrics["before"]["mean_dice"],
        "dice_after": version.metrics["after"]["mean_dice"],
    }


def _candidate(candidate: Candidate) -> dict[str, Any]:
    return {
        "state": candidate.ref,
        "dice": round(candidate.dice, 4),
        "structures": {name: round(dice, 4) for name, dice in candidate.by_name.items()},
    }
