"""What a say of neighbouring slices, and a look in the mirror, are worth.

    python bench/labelling.py MANIFEST [--domain sim-t1w-1p5t]

Every scanner's labelled cases (role `adapt`) in one stored state of the shipped
backbone, nothing learnt: mean Dice of the seven structures for slices that
stand alone or are averaged with those around them, shown to the network as
they lie, every second one in the mirror, or both ways. Test scans are left
alone. Prints one JSON line for each scanner.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from models.backbone import SHIPPED, load_backbone
from models.bank import domain_parameters
from models.cases import LabelledSlices
from models.decoder import argmax_classes, binomial
from models.evaluator import Evaluator
from models.packs import read_states
from models.predict import choose_device, choose_precision
from models.state import State
from normbank.anatomy import EVALUATED, classes_of
from training.labelled import read_case
from training.manifest import read_manifest

WEIGHTS = {"one": [1.0], "three": binomial(1), "three, equal": [1 / 3] * 3, "five": binomial(2)}
BATCH_SLICES = 8


@torch.inference_mode()
def scores(evaluator: Evaluator, state: State, slices: NDArray[np.float32]) -> NDArray[np.float32]:
    """N K H W of N H W, every slice by itself."""
    parameters = domain_parameters(state, evaluator.backbone, evaluator.device)
    batches = torch.split(torch.from_numpy(slices.copy())[:, None], BATCH_SLICES)
    return np.concatenate(
        [evaluator.forward(batch, parameters).float().cpu().numpy() for batch in batches]
    )


def averaged(around: NDArray[np.float32], weights: list[float]) -> NDArray[np.uint8]:
    """Classes N H W of scores N K H W; the outermost slices stand for what lies beyond."""
    reach = len(weights) // 2
    padded = np.concatenate([around[:1]] * reach + [around] + [around[-1:]] * reach)
    mixed = sum(weight * padded[n : n + len(around)] for n, weight in enumerate(weights))
    return argmax_classes(torch.from_numpy(np.asarray(mixed, np.float32)))


def compare(evaluator: Evaluator, state: State, case: LabelledSlices) -> dict[str, float]:
    """Mean Dice of one case for every way."""
    lying = scores(evaluator, state, case.images)
    mirrored = scores(evaluator, state, case.images[:, ::-1])[:, :, ::-1]
    second = lying.copy()
    second[1::2] = mirrored[1::2]
    shown: dict[str, NDArray[np.float32]] = {
        "as it lies": lying,
        "every second": second,
        "both": np.asarray((lying + mirrored) / 2, np.float32),
    }
    return {
        f"{say}, {how}": float(np.nanmean(evaluator.compare(averaged(slice_scores, weights), case)))
        for say, weights in WEIGHTS.items()
        for how, slice_scores in shown.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--domain", default="sim-t1w-1p5t")
    options = parser.parse_args()
    backbone, device = load_backbone(), choose_device()
    state = read_states(SHIPPED, backbone)[options.domain]
    judged = {name: classes_of(name, backbone.spec.classes) for name in EVALUATED}
    evaluator = Evaluator(backbone, device, choose_precision("auto", device), judged=judged)
    by_scanner: dict[str, list[dict[str, float]]] = {}
    for row in read_manifest(options.manifest):
        if row.role == "adapt":
            case = read_case(row, backbone.spec, partial(evaluator.classes, state))
            by_scanner.setdefault(row.domain, []).append(compare(evaluator, state, case))
    for scanner, cases in by_scanner.items():
        means = {way: round(float(np.mean([dices[way] for dices in cases])), 4) for way in cases[0]}
        print(json.dumps({"scanner": scanner, "cases": len(cases), **means}))


if __name__ == "__main__":
    main()
