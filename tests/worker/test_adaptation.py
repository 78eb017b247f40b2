from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch

from models.backbone import hash_network
from normbank.entities import Domain, Job, JobState, NewCase, Recipe, SegmentPayload
from normbank.errors import LeaseLostError
from normbank.imaging.nifti import read_labels, read_scan
from tests.support.phantoms import phantom_case
from worker.adaptation import adapt_domain
from worker.context import WorkerContext
from worker.runner import run
from worker.segmentation import segment_stored

RECIPE = Recipe(steps=60, batch_size=8, validate_every=20, slice_stride=2)
SHORT = Recipe(steps=20, batch_size=8, validate_every=20, slice_stride=2)
FAR_START = Recipe(steps=2, learning_rate=1e-9, slice_stride=2, parent="inverse@1")
STRUCTURES = ("cerebral-gm", "cerebral-wm", "cerebellum-gm")
NEW_SCANNER = "d3-t1w-1p5t"


def stored_case(context: WorkerContext, seed: int) -> NewCase:
    case = phantom_case(seed, NEW_SCANNER)
    return NewCase(
        scan_sha256=context.core.blobs.put_bytes(case.scan),
        labels_sha256=context.core.blobs.put_bytes(case.labels),
        scan_name="scan.nii.gz",
        labels_name="labels.nii.gz",
        label_scheme="freesurfer",
        structures=STRUCTURES,
        shape=(96, 112, 96),
        spacing_mm=(2.0, 2.0, 2.0),
    )


def new_domain(context: WorkerContext, cases: int = 4) -> Domain:
    made = [stored_case(context, seed) for seed in range(1, cases + 1)]
    return context.core.domains.create("ward-7", "Ward 7", {}, "freesurfer", (), made)


def adapted(context: WorkerContext, recipe: Recipe = RECIPE) -> Job:
    job, _ = context.core.jobs.submit_adapt("ward-7", recipe, min_cases=0)
    run(job.id, adapt_domain, context)
    return context.core.jobs.get(job.id)


def test_a_domain_is_learnt_from_its_cases_and_the_old_ones_stay(context: WorkerContext) -> None:
    new_domain(context)
    old = {state.ref: context.load(state).rows for state in context.core.versions.all_active()}
    job = adapted(context)
    assert job.state is JobState.SUCCEEDED, job.error_detail
    assert job.result is not None
    version = context.core.versions.active("ward-7")
    assert (version.number, version.sha256) == (1, job.result["state_sha256"])
    scores = version.metrics
    assert scores["after"]["mean_dice"] > scores["before"]["mean_dice"] + 0.05
    assert scores["candidates"][0]["state"] == version.parent == "plain@1"
    assert len(scores["candidates"]) == 2
    assert version.signature is not None
    assert version.signature.cases == 4
    assert version.adaptation.signature == version.signature
    assert set(scores["after"]["dice"]) == set(STRUCTURES)
    assert len(scores["after"]["hd95_mm"]["cerebral-wm"]["cases"]) == 2
    for state in context.core.versions.all_active():
        if state.ref in old:
            assert torch.equal(context.load(state).rows, old[state.ref])
    assert hash_network(context.networks.backbone.network) == context.networks.backbone.sha256


def test_all_cases_are_learnt_from_once_the_length_is_known(context: WorkerContext) -> None:
    new_domain(context)
    adapted(context, replace(SHORT, refit=False))
    adapted(context, replace(SHORT, parent="plain@1"))
    first, second = context.core.versions.of("ward-7")
    cases = second.metrics["cases"]
    assert first.metrics["cases"]["learnt"] == cases["training"]
    assert second.metrics["cases"]["learnt"] == cases["training"] + cases["validation"]
    assert first.sha256 != second.sha256
    assert first.metrics["after"] == second.metrics["after"]  # judged before it saw the others


def test_a_state_that_has_seen_the_validation_half_is_no_start_and_keeps_its_score(
    context: WorkerContext,
) -> None:
    new_domain(context)
    adapted(context, SHORT)
    second = adapted(context, replace(SHORT, steps=1, learning_rate=1e-9))
    assert second.result is not None, second.error_detail
    served, candidate = context.core.versions.of("ward-7")
    offered = [one["state"] for one in candidate.metrics["candidates"]]
    assert "ward-7@1" not in offered
    assert candidate.metrics["replaced"]["dice"] == served.metrics["after"]["mean_dice"]
    assert second.result["promoted"] is False


def test_the_same_seed_and_cases_give_the_same_state(context: WorkerContext) -> None:
    new_domain(context)
    recipe = Recipe(steps=6, validate_every=3, slice_stride=4, parent="plain@1", publish=False)
    hashes = [(adapted(context, recipe).result or {})["state_sha256"] for _ in range(2)]
    assert hashes[0] == hashes[1]


def test_what_is_not_better_than_what_is_served_stays_a_candidate(context: WorkerContext) -> None:
    new_domain(context)
    first = adapted(context).result
    second = adapted(context, FAR_START).result
    assert first is not None
    assert second is not None
    assert (first["promoted"], second["promoted"]) == (True, False)
    assert context.core.domains.get("ward-7").active_version == 1
    assert len(context.core.versions.of("ward-7")) == 2


def test_a_version_promoted_while_the_job_ran_is_not_replaced_unseen(
    context: WorkerContext,
) -> None:
    new_domain(context)
    adapted(context, Recipe(steps=1, slice_stride=4, publish=False))

    def work(job: Job, context: WorkerContext, on_progress) -> object:  # type: ignore[no-untyped-def]
        def interfere(progress: float, step: str) -> None:
            if step == "publishing":
                context.core.versions.promote("ward-7", 1)
            on_progress(progress, step)

        return adapt_domain(job, context, interfere)

    job, _ = context.core.jobs.submit_adapt("ward-7", RECIPE)
    run(job.id, work, context)  # type: ignore[arg-type]
    result = context.core.jobs.get(job.id).result
    assert result is not None
    assert (result["version"], result["promoted"]) == (2, False)
    assert context.core.domains.get("ward-7").active_version == 1


def test_a_job_killed_between_publishing_and_saying_so_is_not_done_twice(
    context: WorkerContext,
) -> None:
    new_domain(context)
    job, _ = context.core.jobs.submit_adapt("ward-7", Recipe(steps=2, slice_stride=4))

    def die(job: Job, context: WorkerContext, on_progress) -> object:  # type: ignore[no-untyped-def]
        adapt_domain(job, context, on_progress)
        raise LeaseLostError("as if killed")

    run(job.id, die, context)  # type: ignore[arg-type]
    published = context.core.versions.of_job(job.id)
    assert published is not None
    told: list[str] = []
    again = adapt_domain(context.core.jobs.get(job.id), context, lambda _p, step: told.append(step))
    assert (again["version"], again["state_sha256"]) == (1, published.sha256)
    assert told == []


def test_a_stored_scan_is_segmented_with_the_version_it_was_promised(
    context: WorkerContext,
) -> None:
    job = context.core.jobs.submit_segment(
        SegmentPayload(
            context.core.blobs.put_bytes(phantom_case(3).scan),
            "scan.nii.gz",
            "plain",
            1,
            certify=True,
        ),
        domain_id="plain",
    )
    run(job.id, segment_stored, context)
    ended = context.core.jobs.get(job.id)
    assert ended.result is not None, ended.error_detail
    record = context.core.segmentations.get(ended.result["segmentation"])
    assert (record.domain_id, record.version, record.job_id) == ("plain", 1, job.id)
    assert record.summary.quality["brain_ml"] > 500
    assert len(record.summary.quality["logits_sha256"]) == 64


def test_one_case_is_too_few(context: WorkerContext) -> None:
    new_domain(context, 1)
    job = adapted(context)
    assert (job.state, job.error_code) == (JobState.FAILED, "too_few_cases")


def test_a_parent_that_is_not_there_is_named(context: WorkerContext) -> None:
    new_domain(context, 2)
    job = adapted(context, Recipe(parent="nobody", steps=1))
    assert (job.state, job.error_code) == (JobState.FAILED, "unknown_parent")


def test_the_phantom_files_can_be_read_as_a_clients(context: WorkerContext, tmp_path: Path) -> None:
    case = phantom_case(1)
    for name, data in (("scan.nii.gz", case.scan), ("labels.nii", case.labels)):
        (tmp_path / name).write_bytes(data)
    scan = read_scan(tmp_path / "scan.nii.gz", context.core.limits)
    labels = read_labels(tmp_path / "labels.nii", context.core.limits)
    assert scan.shape == labels.data.shape
