"""Does the T2w domain see in a T2w scan what the T1w domain sees in a T1w scan?

    python bench/contrasts.py --data FOLDER [--picture FILE.png]

FOLDER holds `t2/` as laid out in the development data's README; a user does
not have it. One head was scanned in both contrasts on one grid: the Dice of
the two answers needs no reference. A second T2w scan is only drawn. Prints one
JSON line last.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from cli.output.overlay import draw_overlay
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from models.predict import Predictor, choose_device, choose_precision
from normbank.anatomy import EVALUATED, STRUCTURES, classes_of, labels_to_classes
from normbank.config import Settings
from normbank.imaging.metrics import dice
from normbank.imaging.nifti import read_scan, write_labels
from normbank.imaging.scan import Limits, Scan
from pipeline.segment import SegmentedScan, segment_scan

LIMITS = Limits.of(Settings())


class Network:
    """A backbone with the states that came with it."""

    def __init__(self, folder: Path) -> None:
        self.backbone = load_backbone(folder)
        device = choose_device()
        self._predictor = Predictor(
            self.backbone, device=device, precision=choose_precision("auto", device)
        )
        self._states = read_states(folder, self.backbone)

    def segment(self, scan: Scan, domain: str) -> SegmentedScan:
        index = self._predictor.bank.add(self._states[domain])

        def predict(slices: np.ndarray, *, consecutive: bool = False) -> np.ndarray:
            where = np.full(len(slices), index)
            return self._predictor.classes(slices, where, consecutive=consecutive)

        return segment_scan(scan, predict, self.backbone.spec)


def read(path: Path) -> Scan:
    return read_scan(path, LIMITS)


def agreement(answer: SegmentedScan, other: SegmentedScan) -> dict[str, float]:
    """Dice of two answers on one grid, both sides together."""
    first, second = (labels_to_classes(s.ids, "normbank", STRUCTURES) for s in (answer, other))
    dices = {}
    for name in EVALUATED:
        numbers = classes_of(name, STRUCTURES)
        dices[name] = dice(np.isin(first, numbers), np.isin(second, numbers)) or 0.0
    return dices


def draw(network: Network, path: Path, domain: str, picture: Path) -> None:
    scan = read(path)
    answer = network.segment(scan, domain)
    with tempfile.TemporaryDirectory() as folder:
        labels = Path(folder) / "labels.nii.gz"
        labels.write_bytes(write_labels(answer.ids, scan))
        draw_overlay(path, labels, picture, f"T2-weighted, {domain}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--backbone", type=Path, default=SHIPPED)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    network = Network(options.backbone)
    scans = {kind: read(options.data / "t2" / f"kirby113_{kind}.nii.gz") for kind in ("t1w", "t2w")}
    t2w = network.segment(scans["t2w"], "sim-t2w-3t")
    result: dict[str, Any] = {"backbone": network.backbone.sha256}
    for domain in ("sim-t1w-3t", "sim-t1w-1p5t"):
        by_name = agreement(t2w, network.segment(scans["t1w"], domain))
        mean = float(np.mean(list(by_name.values())))
        result[domain] = {n: round(v, 4) for n, v in by_name.items()} | {"mean": round(mean, 4)}
    if options.picture is not None:
        scan = options.data / "t2" / "siemens_t2w_head.nii.gz"
        draw(network, scan, "sim-t2w-3t", options.picture)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
