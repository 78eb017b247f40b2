"""The job `adapt`: closest stored state, batch-norm tuning, gate, new version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from models.adapt import Adaptation, Tuning, adapt, refit
from models.backends import precision_name
from models.bench import Bench
from models.cases import LabelledSlices
from models.nearest import Candidate, nearest
from models.pace import learning_precision
from models.state import State
from normbank.anatomy import classes_of
from normbank.entities import DomainState, Job, NewState, Recipe
from normbank.errors import ConflictError, InvalidError, StateError, TooFewCasesError
from worker.gate import Halves, Stored, Verdict, accept_refit, has_learnt, judge
from worker.labelled import judged_names, load_case
from worker.runner import Report
from worker.workplace import Workplace

LEAST_CASES = 2


def adapt_domain(job: Job, place: Workplace, report: Report) -> Mapping[str, Any]:
    """Learn a domain's next version from its labelled cases.

    The first half of the cases is learnt from, the second decides: when to
    stop, and whether the new version replaces the active one. Then the run is
    repeated on all cases.

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
    recipe = Recipe.from_json(job.payload)
    halves = _load_halves(place, job.domain_id, report)
    stored = _stored_states(place, halves)
    bench = _bench(place, halves)
    candidates = _probe(place, bench, halves, stored, recipe, report)
    start = stored[recipe.parent or candidates[0].ref]
    training, validation = _slices(place, halves, start.state, report)
    tuning = _tuning(recipe)
    tuned = adapt(bench, start.state, training, validation, tuning, report=_part(report, 0.18, 0.5))
    verdict = judge(place, job.domain_id, halves, start, tuned.state, recipe, report)
    if recipe.refit and tuned.best_step and verdict.state is tuned.state:
        told = _part(report, 0.6, 0.95)
        everything = [*training, *validation]
        state = refit(bench, start.state, everything, tuning, report=told)
        verdict = accept_refit(bench, verdict, tuned, state, validation, tuning.stride)
    report(0.99, "publishing")
    version = _publish(place, job, recipe, bench, start, tuned, candidates, halves, verdict)
    return _result(place, version)


def _slices(
    place: Workplace, halves: Halves, start: State, report: Report
) -> tuple[list[LabelledSlices], list[LabelledSlices]]:
    """Both halves as slices, the brain found with the state to start from."""
    spec = place.backbone.spec
    predictor = place.predict_with(start)
    slices = []
    for number, case in enumerate(halves.all):
        report(0.1 + 0.08 * number / len(halves.all), "finding the brain")
        slices.append(case.slices(case.frame(predictor, spec), spec))
    count = len(halves.training)
    return slices[:count], slices[count:]


def _load_halves(place: Workplace, domain_id: str, report: Report) -> Halves:
    cases = place.registry.cases(domain_id)
    if len(cases) < LEAST_CASES:
        raise TooFewCasesError(f"An adaptation needs at least {LEAST_CASES} labelled cases.")
    loaded = []
    for number, case in enumerate(cases):
        report(0.04 * number / len(cases), "reading cases")
        loaded.append(load_case(place, case))
    half = (len(loaded) + 1) // 2
    return Halves(loaded[:half], loaded[half:])


def _stored_states(place: Workplace, halves: Halves) -> dict[str, Stored]:
    """Every sound state that is served on this backbone, by reference.

    One that has learnt from the validation half is left out: nothing that
    grows from it could be judged by that half.
    """
    stored = {}
    for version in place.registry.active_states():
        if version.backbone != place.backbone.sha256 or has_learnt(version, halves.validation):
            continue
        try:
            stored[version.ref] = Stored(version, place.load(version))
        except StateError as error:
            place.registry.quarantine(version.domain_id, version.number, str(error))
    if not stored:
        raise ConflictError("There is no stored state to start from.", code="no_states")
    return stored


def _bench(place: Workplace, halves: Halves) -> Bench:
    classes = place.backbone.spec.classes
    return Bench(
        place.backbone,
        place.predictor.device,
        learning_precision(place.settings.precision, place.backbone, place.predictor.device),
        judged={name: classes_of(name, classes) for name in judged_names(halves.all, classes)},
    )


def _probe(
    place: Workplace,
    bench: Bench,
    halves: Halves,
    stored: dict[str, Stored],
    recipe: Recipe,
    report: Report,
) -> tuple[Candidate, ...]:
    """Score every stored state on the training half, framed by the outline."""
    if recipe.parent is not None and recipe.parent not in stored:
        _add_parent(place, stored, recipe.parent)
    spec = place.backbone.spec
    outlined = [case.slices(case.frame(None, spec), spec) for case in halves.training]
    states = {ref: one.state for ref, one in stored.items()}
    return nearest(
        bench, states, outlined, stride=recipe.slice_stride, report=_part(report, 0.04, 0.1)
    )


def _add_parent(place: Workplace, stored: dict[str, Stored], ref: str) -> None:
    """A parent may also be a version that is not served at present."""
    domain_id, _, number = ref.partition("@")
    if not number.isdecimal():
        raise InvalidError("A parent is written `domain@version`.", code="unknown_parent")
    version = place.registry.version(domain_id, int(number))
    if version.backbone != place.backbone.sha256:
        raise InvalidError(f"{ref} belongs to another backbone.", code="other_backbone")
    stored[ref] = Stored(version, place.load(version))


def _publish(
    place: Workplace,
    job: Job,
    recipe: Recipe,
    bench: Bench,
    start: Stored,
    tuned: Adaptation,
    candidates: Sequence[Candidate],
    halves: Halves,
    verdict: Verdict,
) -> DomainState:
    assert job.domain_id is not None
    metrics = {
        "before": verdict.before,
        "after": verdict.after,
        "precision": precision_name(bench.precision),
        "candidates": [_candidate(one) for one in candidates],
        "replaced": {"version": verdict.replaced[0], "dice": verdict.replaced[1]},
        "history": [{"step": look.step, "dice": round(look.dice, 4)} for look in tuned.history],
        "cases": {
            "training": [case.case.id for case in halves.training],
            "validation": [case.case.id for case in halves.validation],
            "learnt": [case.case.id for case in (halves.all if verdict.refit else halves.training)],
        },
    }
    return place.registry.publish(
        job.domain_id,
        state=NewState(
            sha256=verdict.state.sha256,
            backbone=place.backbone.sha256,
            parent=start.version.ref,
            recipe=recipe.as_json(),
            metrics=metrics,
            job_id=job.id,
            tensors=verdict.state.to_bytes(),
        ),
        promote=verdict.promote,
        compared_with=verdict.replaced[0],
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


def _tuning(recipe: Recipe) -> Tuning:
    return Tuning(
        seed=recipe.seed,
        steps=recipe.steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        augmented=recipe.augment,
        head=recipe.head,
        adapters=recipe.adapters,
        validate_every=recipe.validate_every,
        patience=recipe.patience,
        stride=recipe.slice_stride,
    )


def _part(report: Report, low: float, high: float) -> Report:
    """A report of its own for one stage of a longer run."""

    def told(progress: float, step: str) -> None:
        report(low + (high - low) * progress, step)

    return told
