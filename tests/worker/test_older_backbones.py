"""Jobs of a domain that is served on an older backbone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.packs import read_pack
from normbank.config import Settings
from normbank.entities import Job, JobState, NewState, Recipe, SegmentPayload
from pipeline.evaluate import evaluate
from tests.support.coarse import CLASSES, SPEC, save_coarse_backbone
from tests.support.networks import save_tiny_backbone
from tests.support.phantoms import phantom_case
from tests.worker.test_adaptation import FAR_START, RECIPE, adapted, new_domain
from worker.adaptation import adapt_domain, load_case
from worker.context import WorkerContext, open_context
from worker.runner import run
from worker.segmentation import segment_stored

# The older backbone counts its classes otherwise and sees coarser voxels.
OLD_SPEC = replace(
    SPEC,
    name="coarser",
    classes=("background", *CLASSES[:0:-1]),
    spacing_mm=6.0,
    window=(40, 40, 32),
)


@pytest.fixture(scope="module")
def old(_one_thread: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_coarse_backbone(tmp_path_factory.mktemp("old"), steps=120, spec=OLD_SPEC)


@pytest.fixture
def before(settings: Settings, context: WorkerContext, old: Path) -> Iterator[WorkerContext]:
    """The worker as it was before the upgrade, on the same database."""
    opened = open_context(settings.model_copy(update={"backbone_dir": old}))
    yield opened
    opened.core.close()


@pytest.fixture
def after(settings: Settings, context: WorkerContext, old: Path) -> Iterator[WorkerContext]:
    """The worker after the upgrade: the coarse backbone, and the old one in the pool."""
    opened = open_context(settings.model_copy(update={"older_backbone_dirs": (old,)}))
    yield opened
    opened.core.close()


@pytest.fixture
def ward(before: WorkerContext, old: Path) -> str:
    """A domain with four cases, served on the old backbone; the sha256 of that."""
    new_domain(before)
    serve_on_old(before, old)
    return before.networks.backbone.sha256


def serve_on_old(context: WorkerContext, old: Path) -> None:
    pack = read_pack((old / "states" / "plain.safetensors").read_bytes())
    state = NewState.imported(pack.sha256, pack.backbone, pack.tensors)
    context.core.versions.publish("ward-7", state=state, promote=True)


def segmented(context: WorkerContext) -> Job:
    job = context.core.jobs.submit_segment(
        SegmentPayload(
            context.core.blobs.put_bytes(phantom_case(3).scan),
            "scan.nii.gz",
            "ward-7",
            1,
            certify=True,
        ),
        domain_id="ward-7",
    )
    run(job.id, segment_stored, context)
    return context.core.jobs.get(job.id)


def answer_of(context: WorkerContext, job: Job) -> tuple[Any, ...]:
    assert job.result is not None, job.error_detail
    record = context.core.segmentations.get(job.result["segmentation"])
    logits = record.summary.quality["logits_sha256"]
    return record.backbone, record.labels_sha256, logits


def test_an_adaptation_makes_a_candidate_on_the_current_backbone(
    before: WorkerContext, after: WorkerContext, ward: str
) -> None:
    job = adapted(after, replace(RECIPE, publish=False))
    assert job.state is JobState.SUCCEEDED, job.error_detail
    domain = after.core.domains.get("ward-7")
    assert (domain.active_version, domain.backbone) == (1, ward)
    candidate = after.core.versions.get("ward-7", 2)
    assert candidate.backbone == after.networks.backbone.sha256 != ward
    probed = [one["state"] for one in candidate.metrics["candidates"]]
    assert sorted(probed) == ["inverse@1", "plain@1"]


def test_what_is_served_is_scored_as_its_own_backbone_answers(
    before: WorkerContext, after: WorkerContext, ward: str
) -> None:
    adapted(after, replace(FAR_START, publish=False))
    replaced = after.core.versions.get("ward-7", 2).metrics["replaced"]
    cases = [load_case(before, case) for case in before.core.cases.of("ward-7")]
    served = before.load(before.core.versions.get("ward-7", 1))
    spec = before.networks.spec
    expected = evaluate(cases[2:], before.networks.predict_with(served), spec).mean_dice
    assert replaced == {"version": 1, "dice": expected}
    assert expected > 0.15


def test_a_candidate_worse_than_what_the_older_backbone_serves_is_not_promoted(
    after: WorkerContext, ward: str
) -> None:
    job = adapted(after, FAR_START)
    assert job.result is not None, job.error_detail
    metrics = after.core.versions.get("ward-7", 2).metrics
    assert job.result["dice_after"] < metrics["replaced"]["dice"]
    assert job.result["promoted"] is False
    assert after.core.domains.get("ward-7").active_version == 1


def test_a_queued_scan_is_answered_the_same_bits_on_the_older_backbone(
    before: WorkerContext, after: WorkerContext, ward: str
) -> None:
    first, second = (answer_of(context, segmented(context)) for context in (before, after))
    assert first == second
    assert first[0] == ward


def test_a_queued_scan_whose_backbone_is_gone_says_so(context: WorkerContext, ward: str) -> None:
    job = segmented(context)
    assert (job.state, job.error_code) == (JobState.FAILED, "other_backbone")
    assert context.core.versions.get("ward-7", 1).quarantined is None


def test_what_nobody_can_serve_any_longer_is_replaced(context: WorkerContext, ward: str) -> None:
    job = adapted(context, FAR_START)
    assert job.result is not None, job.error_detail
    assert job.result["promoted"] is True
    replaced = context.core.versions.get("ward-7", 2).metrics["replaced"]
    assert replaced == {"version": 1, "dice": None}


def test_an_adaptation_does_not_start_from_an_older_backbones_version(
    after: WorkerContext, ward: str
) -> None:
    job = adapted(after, Recipe(parent="ward-7@1", steps=1))
    assert (job.state, job.error_code) == (JobState.FAILED, "other_backbone")


def test_a_rotten_version_of_an_older_backbone_is_quarantined_and_then_replaced(
    after: WorkerContext, tmp_path: Path
) -> None:
    new_domain(after)
    other = save_tiny_backbone(tmp_path / "tiny", ())
    opened = open_context(
        after.core.settings.model_copy(update={"older_backbone_dirs": (tmp_path / "tiny",)})
    )
    rotten = NewState("a" * 64, other.sha256, None, {}, {}, None, b"nothing")
    opened.core.versions.publish("ward-7", state=rotten, promote=True)
    learning = replace(RECIPE, parent="inverse@1", gate_floor=0.5)
    job, _ = opened.core.jobs.submit_adapt("ward-7", learning, min_cases=0)
    run(job.id, adapt_domain, opened)
    opened.core.close()
    assert after.core.versions.get("ward-7", 1).quarantined
    assert after.core.domains.get("ward-7").active_version == 2
