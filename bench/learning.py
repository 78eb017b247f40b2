"""What an adaptation learns, and how long its steps take: leave one labelled case out.

    python bench/learning.py MANIFEST DOMAIN [--folds 0,1,2,3] [--tuning JSON] [--precision auto]

The manifest is one of `normbank train`; of its rows with the role `adapt` of
one domain, each in turn is judged and all others are learnt from, from the
closest stored state and for the whole schedule, as an adaptation does once its
validation half has judged. Prints one JSON line for each fold: mean Dice of
the judged structures over the whole scan, the processor's seconds, and those
of a step. Runs on one thread, so that a busy machine does it little harm.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from models.adapt import Tuning, refit
from models.backbone import SHIPPED, load_backbone
from models.cases import LabelledSlices
from models.evaluator import Evaluator, mean_dice
from models.nearest import nearest
from models.pace import learning_precision
from models.packs import read_states
from models.predict import Predictor
from models.state import State
from normbank.anatomy import EVALUATED, classes_of
from training.labelled import read_case
from training.manifest import read_manifest

CPU = torch.device("cpu")


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    backbone = load_backbone(SHIPPED)
    precision = learning_precision(options.precision, backbone, CPU)
    judged = {name: classes_of(name, backbone.spec.classes) for name in EVALUATED}
    evaluator = Evaluator(backbone, CPU, precision, judged=judged)
    start, cases = cropped_cases(evaluator, options.manifest, options.domain)
    tuning = Tuning(**options.tuning)
    for fold in [int(text) for text in options.folds.split(",") if text] or range(len(cases)):
        others = [case for number, case in enumerate(cases) if number != fold]
        started = time.process_time()
        state = refit(evaluator, start, others, tuning)
        seconds = time.process_time() - started
        result = {
            "domain": options.domain,
            "fold": fold,
            "dice": round(mean_dice(evaluator.score(state, [cases[fold]])), 4),
            "cpu_s": round(seconds, 1),
            "step_s": round(seconds / tuning.steps, 3),
            "precision": str(precision).removeprefix("torch."),
            "tuning": options.tuning,
        }
        print(json.dumps(result), flush=True)


def cropped_cases(
    evaluator: Evaluator, manifest: Path, domain: str
) -> tuple[State, list[LabelledSlices]]:
    """The closest state to the first case, and all cases, their brains found with it."""
    backbone, spec = evaluator.backbone, evaluator.spec
    rows = [r for r in read_manifest(manifest) if r.domain == domain and r.role == "adapt"]
    states = read_states(SHIPPED, backbone)
    start = states[nearest(evaluator, states, [read_case(rows[0], spec)], stride=4)[0].ref]
    predictor = Predictor(backbone, device=CPU, precision=evaluator.precision)
    place = predictor.bank.add(start)

    def find(
        slices: npt.NDArray[np.float32], *, consecutive: bool = False
    ) -> npt.NDArray[np.uint8]:
        return predictor.classes(slices, np.full(len(slices), place), consecutive=consecutive)

    return start, [read_case(row, spec, find) for row in rows]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("domain")
    parser.add_argument("--folds", default="")
    parser.add_argument("--tuning", type=json.loads, default={})
    parser.add_argument("--precision", default="auto")
    return parser.parse_args()


if __name__ == "__main__":
    main()
