"""Values that PostgreSQL holds as JSON, as this release and earlier ones write them."""

from __future__ import annotations

from typing import Any

from normbank.entities import (
    AdaptationRecord,
    CaseScores,
    Recipe,
    SegmentationSummary,
    SegmentPayload,
)

SCORES = {
    "mean_dice": 0.8484,
    "dice": {"thalamus": {"mean": 0.9, "cases": [0.88, 0.92, None]}},
    "hd95_mm": {"thalamus": {"mean": 1.41, "cases": [1.41, 1.41, None]}},
}
METRICS: dict[str, Any] = {
    "before": SCORES,
    "after": {**SCORES, "mean_dice": 0.8832},
    "precision": "bfloat16",
    "candidates": [{"state": "sim-t1w-3t@1", "dice": 0.84, "structures": {"thalamus": 0.9}}],
    "replaced": {"version": None, "dice": None},
    "history": [{"step": 0, "dice": 0.84}, {"step": 25, "dice": 0.86}],
    "cases": {"training": ["a", "b"], "validation": ["c"], "learnt": ["a", "b", "c"]},
}
"""What the job `adapt` wrote at 7d63a9b."""


def test_a_record_of_an_adaptation_is_the_same_after_it_was_read() -> None:
    record = AdaptationRecord.from_json(METRICS)
    assert record.to_json() == {**METRICS, "objections": []}
    refused = {**METRICS, "objections": ["Its mean Dice is 0.003, below 0.6."]}
    assert AdaptationRecord.from_json(refused).to_json() == refused
    assert record.after.mean_dice == 0.8832
    assert record.after.dice["thalamus"].cases == (0.88, 0.92, None)
    assert record.cases.learnt == ("a", "b", "c")


def test_what_an_older_release_did_not_record_stays_empty() -> None:
    record = AdaptationRecord.from_json(
        {"before": {"mean_dice": 0.5}, "after": {"mean_dice": 0.6}, "candidates": [
            {"state": "plain@1", "dice": 0.5}
        ]}
    )  # fmt: skip
    assert record.cases.learnt == ()
    assert record.replaced.version is None
    assert record.candidates[0].structures == {}
    assert record.history == ()


def test_scores_are_rounded_before_their_mean_is_taken() -> None:
    assert CaseScores.of([0.12344, 0.5, None]) == CaseScores(0.3117, (0.1234, 0.5, None))
    assert CaseScores.of([None]) == CaseScores(None, (None,))


def test_a_queued_scan_of_an_earlier_release_is_understood() -> None:
    queued = {"scan_sha256": "a", "scan_name": "scan.nii.gz", "domain": "b", "version": 2}
    payload = SegmentPayload.from_json({**queued, "of_another_release": 1})
    assert payload == SegmentPayload("a", "scan.nii.gz", "b", 2, certify=False)
    assert SegmentPayload.from_json(payload.to_json()) == payload


def test_a_summary_is_the_same_after_it_was_read() -> None:
    summary = {
        "volumes_mm3": {"left-thalamus": 6500.0},
        "quality": {"brain_ml": 1200.1, "missing": []},
        "timings_s": {"network": 1.5},
    }
    earlier = SegmentationSummary.from_json(summary)  # of a release without flags
    assert earlier.to_json() == {**summary, "flags": []}
    flag = {"code": "units", "severity": "info", "detail": "Metres."}
    flagged = {**summary, "flags": [flag, {**flag, "structure": "left-thalamus"}]}
    assert SegmentationSummary.from_json(flagged).to_json() == flagged
    assert SegmentationSummary.from_json({}).volumes_mm3 == {}


def test_a_recipe_of_another_release_is_understood() -> None:
    assert Recipe.from_json({"steps": 7, "of_another_release": 1}) == Recipe(steps=7)
