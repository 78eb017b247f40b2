"""What a precision costs in Dice: labelled scans through the product's own walk in each.

    python bench/precisions.py MANIFEST [--domain sim-t1w-1p5t]

Every scanner's labelled cases (role `adapt`) in one stored state of the shipped
backbone, nothing learnt: mean Dice of the seven structures on the scans' own
grids, in int8, bfloat16 and float32, and the share of labelled voxels that
differ from float32. Test scans are left alone. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from experiments.kit.environment import environment
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from models.predict import PRECISIONS, Predictor
from normbank.anatomy import labels_to_classes
from normbank.config import Settings
from normbank.imaging.metrics import dice_by_structure
from normbank.imaging.nifti import read_labels, read_scan
from normbank.imaging.scan import Limits
from pipeline.segment import segment_scan
from training.manifest import Row, read_manifest

Classes = npt.NDArray[np.uint8]


def mean_dice(answer: Classes, row: Row, classes: tuple[str, ...]) -> float:
    """Of the seven structures, against a case's reference."""
    labels = read_labels(row.labels, Limits.of(Settings()))
    reference = labels_to_classes(labels.data, row.scheme, classes)
    scores = dice_by_structure(answer, reference, classes).values()
    return float(np.mean([score for score in scores if score is not None]))


def answered(
    row: Row, predictor: Predictor, predict: Callable[..., Classes]
) -> npt.NDArray[np.uint8]:
    """Classes on the scan's own grid, as the service answers."""
    scan = read_scan(row.scan, Limits.of(Settings()))
    ids = segment_scan(scan, predict, predictor.spec).ids
    return labels_to_classes(ids, "normbank", predictor.spec.classes)


def shown(
    predictor: Predictor, domain: int, slices: npt.NDArray[np.float32], *, consecutive: bool = False
) -> Classes:
    return predictor.classes(slices, np.full(len(slices), domain), consecutive=consecutive)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--domain", default="sim-t1w-1p5t")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    backbone, device = load_backbone(), torch.device("cpu")
    state = read_states(SHIPPED, backbone)[options.domain]
    rows = [row for row in read_manifest(options.manifest) if row.role == "adapt"]
    answers: dict[str, list[Classes]] = {}
    results: dict[str, dict[str, object]] = {}
    for name in ("float32", "bfloat16", "int8"):
        predictor = Predictor(
            backbone, device=device, precision=PRECISIONS[name], backend="openvino"
        )
        predict = partial(shown, predictor, predictor.bank.add(state))
        answers[name] = [answered(row, predictor, predict) for row in rows]
        scores: dict[str, list[float]] = {}
        for row, answer in zip(rows, answers[name], strict=True):
            scores.setdefault(row.domain, []).append(mean_dice(answer, row, predictor.spec.classes))
        pairs = zip(answers[name], answers["float32"], strict=True)
        differing = [float((a != b).sum() / (b > 0).sum()) for a, b in pairs]
        results[name] = {
            **{scanner: round(float(np.mean(all_)), 4) for scanner, all_ in scores.items()},
            "differing": round(float(np.mean(differing)), 5),
        }
    print(json.dumps({**results, **environment(device, torch.float32)}))


if __name__ == "__main__":
    main()
