from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.backbone import hash_network
from normbank.entities import Domain, Job, JobState, NewCase, Recipe
from normbank.imaging.nifti import read_labels, read_scan
from tests.support.phantoms import phantom_case
from worker.adaptation import adapt_domain
from worker.runner import run
from worker.segmentation import segment_stored
from worker.workplace import Workplace

RECIPE = Recipe(steps=6, batch_size=2, validate_every=3, slice_stride=12)
STRUCTURES = ("thalamus", "caudate", "putamen", "ventricles", "csf")


@pytest.fixture(autouse=True)
def _all_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def stored_case(place: Workplace, seed: int) -> NewCase:
    case = phantom_case(seed)
    return NewCase(
        scan_sha256=place.blobs.put_bytes(case.scan),
        labels_sha256=place.blobs.put_bytes(case.labels),
        scan_name="scan.nii.gz",
        labels_name="labels.nii.gz",
        label_scheme="freesurfer",
        structures=STRUCTURES,
        shape=(96, 112, 96),
        spacing_mm=(2.0, 2.0, 2.0),
    )


def new_domain(place: Workplace, cases: int) -> Domain:
    made = [stored_case(place, seed) for seed in range(1, cases + 1)]
    return place.registry.create_domain("ward-7", "Ward 7", {}, "freesurfer", (), made)


def adapted(place: Workplace, recipe: Recipe = RECIPE) -> Job:
    job, _ = place.jobs.submit_adapt("ward-7", recipe, min_cases=0)
    run(job.id, adapt_domain, place)
    return place.jobs.job(job.id)


def test_a_domain_is_learnt_from_its_cases_and_the_old_ones_stay(place: Workplace) -> None:
    new_domain(place, 2)
    old = {state.ref: place.load(state).rows for state in place.registry.active_states()}
    job = adapted(place)
    assert job.state is JobState.SUCCEEDED, job.error_detail
    assert job.result is not None
    version = place.registry.active_state("ward-7")
    assert (version.number, version.sha256) == (1, job.result["state_sha256"])
    scores = version.metrics
    assert scores["after"]["mean_dice"] >= scores["before"]["mean_dice"] > 0
    assert scores["candidates"][0]["state"] == version.parent
    assert len(scores["candidates"]) == 3
    assert set(scores["after"]["dice"]) == {"thalamus", "caudate", "putamen", "ventricles"}
    assert len(scores["after"]["hd95_mm"]["thalamus"]["cases"]) == 1
    for state in place.registry.active_states():
        if state.ref in old:
            assert torch.equal(place.load(state).rows, old[state.ref])
    assert hash_network(place.backbone.network) == place.backbone.sha256

    again = place.jobs.submit_segment(
        {
            "scan_sha256": place.blobs.put_bytes(phantom_case(3).scan),
            "scan_name": "scan.nii.gz",
            "domain": "ward-7",
            "version": 1,
        },
        domain_id="ward-7",
    )
    run(again.id, segment_stored, place)
    ended = place.jobs.job(again.id)
    assert ended.result is not None, ended.error_detail
    record = place.registry.segmentation(ended.result["segmentation"])
    assert (record.domain_id, record.version, record.job_id) == ("ward-7", 1, again.id)
    assert record.summary["quality"]["brain_ml"] > 500


def test_one_case_is_too_few(place: Workplace) -> None:
    new_domain(place, 1)
    job = adapted(place)
    assert (job.state, job.error_code) == (JobState.FAILED, "too_few_cases")


def test_a_parent_that_is_not_there_is_named(place: Workplace) -> None:
    new_domain(place, 2)
    job = adapted(place, Recipe(parent="nobody", steps=1))
    assert (job.state, job.error_code) == (JobState.FAILED, "unknown_parent")


def test_the_phantom_files_can_be_read_as_a_clients(place: Workplace, tmp_path: Path) -> None:
    case = phantom_case(1)
    for name, data in (("scan.nii.gz", case.scan), ("labels.nii", case.labels)):
        (tmp_path / name).write_bytes(data)
    scan = read_scan(tmp_path / "scan.nii.gz", "scan.nii.gz", place.limits)
    labels = read_labels(tmp_path / "labels.nii", "labels.nii", place.limits)
    assert scan.shape == labels.data.shape
