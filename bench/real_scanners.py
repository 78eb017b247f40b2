"""Two real scanners through a running service: as is, adapted, and what stayed.

    python bench/real_scanners.py --data FOLDER [--adapt] [--url …] [--key …]

FOLDER holds `georgetown/` and `oasis/` as laid out in the development data's
README; a user does not have it. Prints tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cli.client import DEFAULT_URL, Client
from cli.options import connect
from normbank.anatomy import EVALUATED, STRUCTURES, answered_ids, labels_to_classes
from normbank.config import Settings
from normbank.imaging.metrics import dice, dice_by_structure
from normbank.imaging.nifti import read_labels
from normbank.imaging.scan import Limits

LIMITS = Limits.of(Settings())
SIDED = ("thalamus", "hippocampus", "amygdala", "caudate", "putamen", "pallidum", "ventricles")
# The same structure's (left, right) ids where the reference is Neuromorphometrics.
NEUROMORPHOMETRICS = {
    "thalamus": (60, 59),
    "hippocampus": (48, 47),
    "amygdala": (32, 31),
    "caudate": (37, 36),
    "putamen": (58, 57),
    "pallidum": (56, 55),
    "ventricles": (52, 51),
}
OLD = ("sim-t1w-3t", "sim-t1w-1p5t", "sim-t2w-3t")


@dataclass(frozen=True)
class Subject:
    """A real scan with its reference labels."""

    name: str
    scan: Path
    labels: Path
    scheme: str

    def reference(self) -> np.ndarray:
        return read_labels(self.labels, LIMITS).data


def georgetown(data: Path, number: int) -> Subject:
    stem = data / "georgetown" / f"sub-{number:02d}"
    scan, labels = (stem.with_name(f"{stem.name}_{kind}.mgz") for kind in ("T1w", "aseg"))
    return Subject(f"georgetown {number:02d}", scan, labels, "freesurfer")


def oasis(data: Path, number: int) -> Subject:
    folder = data / "oasis"
    scan, labels = folder / f"{number}_t1w_brain.nii.gz", folder / f"{number}_labels_nm.nii.gz"
    return Subject(f"oasis {number}", scan, labels, "neuromorphometrics")


def answered(client: Client, subject: Subject, domain: str) -> tuple[np.ndarray, Mapping[str, Any]]:
    """Labels that the service answers, and what it says beside them."""
    segmentation = client.segment(subject.scan, domain)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "labels.nii.gz"
        path.write_bytes(client.labels(segmentation["id"]))
        return read_labels(path, LIMITS).data, segmentation


def scores(ids: np.ndarray, subject: Subject) -> dict[str, float]:
    """Dice of the seven structures, both sides together."""
    reference = labels_to_classes(subject.reference(), subject.scheme, STRUCTURES)
    answer = labels_to_classes(ids, "normbank", STRUCTURES)
    dices = dice_by_structure(answer, reference, STRUCTURES)
    return {name: of or 0.0 for name, of in dices.items()}


def side_scores(ids: np.ndarray, subject: Subject) -> dict[str, tuple[float, float, float]]:
    """Per structure: left on left, right on right, and the better of the crossed two."""
    reference = subject.reference()
    dices = {}
    for name in SIDED:
        mine = answered_ids(name)
        assert mine is not None, f"{name} is in no answer"
        left, right = (
            NEUROMORPHOMETRICS[name]
            if subject.scheme == "neuromorphometrics"
            else (mine.left, mine.right)
        )
        masks = [ids == mine.left, ids == mine.right, reference == left, reference == right]
        pairs = ((0, 2), (1, 3), (0, 3), (1, 2))
        own_left, own_right, *crossed = (dice(masks[a], masks[b]) or 0.0 for a, b in pairs)
        dices[name] = (own_left, own_right, max(crossed))
    return dices


def measure(client: Client, subjects: Sequence[Subject], domain: str) -> dict[str, Any]:
    """A table of Dice per subject and structure, printed and returned."""
    print(f"\ndomain {domain}\n| subject | " + " | ".join(EVALUATED) + " | mean | s |")
    print("|---" * (len(EVALUATED) + 3) + "|")
    table: dict[str, Any] = {}
    for subject in subjects:
        started = time.perf_counter()
        ids, segmentation = answered(client, subject, domain)
        took = time.perf_counter() - started
        dices = scores(ids, subject)
        mean = float(np.mean(list(dices.values())))
        cells = " | ".join(f"{dices[name]:.3f}" for name in EVALUATED)
        print(f"| {subject.name} | {cells} | {mean:.3f} | {took:.1f} |", flush=True)
        table[subject.name] = {
            "dice": dices,
            "mean": mean,
            "sides": side_scores(ids, subject),
            "version": segmentation["version"],
        }
    means = [np.mean([row["dice"][n] for row in table.values()]) for n in EVALUATED]
    cells = " | ".join(f"{value:.3f}" for value in means)
    print(f"| **mean** | {cells} | {np.mean(means):.3f} | |")
    return table


def check_sides(table: Mapping[str, Any]) -> dict[str, Any]:
    """How far a side is from the merged Dice, and how much lies on the wrong side.

    `split_loss` compares the mean of both sides with the merged Dice, which
    the split alone can change; `side_from_merged` also holds what one side is
    segmented better than the other. Ventricles are left out of both: the
    answer counts the midline ones to a side, the references do not.
    """
    worst: dict[str, float] = {"split_loss": 0.0, "side_from_merged": 0.0, "wrong_side": 0.0}
    means: dict[str, list[tuple[float, float, float]]] = {}
    for row in table.values():
        for name, (left, right, wrong) in row["sides"].items():
            merged = row["dice"][name]
            worst["wrong_side"] = max(worst["wrong_side"], wrong)
            means.setdefault(name, []).append((merged, left, right))
            if name != "ventricles":
                split_loss = merged - (left + right) / 2
                side = max(abs(merged - left), abs(merged - right))
                worst["split_loss"] = max(worst["split_loss"], split_loss)
                worst["side_from_merged"] = max(worst["side_from_merged"], side)
    print("\n| structure | merged | left | right |\n|---|---|---|---|")
    for name, rows in means.items():
        print(f"| {name} | " + " | ".join(f"{v:.3f}" for v in np.mean(rows, axis=0)) + " |")
    return {name: round(value, 4) for name, value in worst.items()}


def certificates(client: Client, subject: Subject) -> dict[str, str]:
    """sha256 of the logits of one scan in every old domain."""
    return {
        domain: client.segment(subject.scan, domain, certify="true")["quality"]["logits_sha256"]
        for domain in OLD
    }


def adapt(
    client: Client, domain: str, cases: Sequence[Subject], recipe: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Register a scanner with its labelled cases and learn it; seconds in `took_s`."""
    fields = {"id": domain, "name": domain, "label_scheme": cases[0].scheme}
    client.send_cases("/domains", fields, [c.scan for c in cases], [c.labels for c in cases])
    started = time.perf_counter()
    job = client.call("POST", f"/domains/{domain}/adapt", json=recipe).json()
    for state in client.follow(job["id"]):
        job = state
    if job["state"] != "succeeded":
        raise SystemExit(f"the adaptation ended {job['state']}: {job['error']}")
    return {**job["result"], "took_s": round(time.perf_counter() - started, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--url", default=DEFAULT_URL)
    parser.add_argument("--key", default="")
    parser.add_argument("--service-data", type=Path, default=None)
    parser.add_argument("--domain", default="sim-t1w-3t")
    parser.add_argument("--adapt", action="store_true", help="learn georgetown, twice")
    options = parser.parse_args()
    new = [georgetown(options.data, n) for n in (6, 7)]
    others = [oasis(options.data, n) for n in range(1007, 1013)]
    result: dict[str, Any] = {}
    with connect(options.url, options.key, options.service_data) as client:
        backbone = client.get("/backbone")
        table = measure(client, [*new, *others], options.domain)
        result["as_is"] = {name: round(row["mean"], 4) for name, row in table.items()}
        result |= check_sides(table)
        if options.adapt:
            cases = [georgetown(options.data, n) for n in (1, 2, 3, 4)]
            before = certificates(client, new[0])
            first = adapt(client, "georgetown-1", cases, {"seed": 0})
            # The first run is a stored state now, and the nearest: name the same start.
            same = {"seed": 0, "parent": first["parent"]}
            runs = [first, adapt(client, "georgetown-2", cases, same)]
            result["runs"] = runs
            result["same_seed_same_state"] = runs[0]["state_sha256"] == runs[1]["state_sha256"]
            result["old_domains_unchanged"] = certificates(client, new[0]) == before
            result["backbone_unchanged"] = client.get("/backbone") == backbone
            result["certificates"] = before
            table = measure(client, new, "georgetown-1")
            result["adapted"] = {name: round(row["mean"], 4) for name, row in table.items()}
            result["probe"] = client.get("/domains/georgetown-1/metrics")["versions"][-1][
                "candidates"
            ]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
