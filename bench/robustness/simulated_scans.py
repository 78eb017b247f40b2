"""Whether simulated scans in order have flags that are severe.

    python -m bench.robustness.simulated_scans LABELMAPS [--scans 200]

LABELMAPS is a folder of label maps of whole heads (FreeSurfer ids, other tissue from 500
on); a user has his own. Each scan is another deformation of one of them, on one of the
simulated scanners in turn, answered by the stored state of that contrast. Prints one JSON
line for each scan that is flagged, then one with the counts and the mean Dice.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from bench.robustness.heads import Head
from models.backbone import SHIPPED
from models.packs import read_states
from normbank.config import Settings
from normbank.entities.flags import severe_ones
from normbank.errors import NormbankError
from pipeline.networks import Networks
from pipeline.segment import segment_scan
from simulate import SCANNERS, deform, scan

OTHER_IDS = 500
DOMAINS = {name: f"sim-{name.split('-', 1)[1].removesuffix('-raw')}" for name in SCANNERS}

_nibabel: Any = nibabel  # it has no types for what is used here


def draw(path: Path, scanner: str, number: int) -> Head:
    """One deformed head on one scanner."""
    source = _nibabel.as_closest_canonical(_nibabel.load(path))
    labels = np.asanyarray(source.dataobj).astype(np.int16)
    spacing = source.header.get_zooms()[:3]
    moved = deform(labels, number, spacing_mm=spacing).astype(np.int16)
    drawn = scan(moved, source.affine, SCANNERS[scanner], number)
    ids = np.where(drawn.labels < OTHER_IDS, drawn.labels, 0).astype(np.int32)
    return Head(f"{path.name} {number}", drawn.data, drawn.affine, ids, "freesurfer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("labelmaps", type=Path)
    parser.add_argument("--scans", type=int, default=200)
    options = parser.parse_args()
    maps = sorted(options.labelmaps.glob("*.nii*"))
    networks = Networks.open(Settings())
    states = read_states(SHIPPED, networks.backbone)
    scanners = [name for name in SCANNERS if DOMAINS[name] in states]
    counts, dices = Counter[str](), []
    for number in range(options.scans):
        scanner = scanners[number % len(scanners)]
        head = draw(maps[number % len(maps)], scanner, number)
        predictor = networks.predict_with(states[DOMAINS[scanner]])
        counts[scanner] += 1
        try:
            answer = segment_scan(head.scan, predictor, networks.spec)
        except NormbankError as error:
            counts[f"{scanner} refused"] += 1
            print(json.dumps({"head": head.name, "scanner": scanner, "refused": error.code}))
            continue
        value = head.dice(answer.ids)
        dices.append(value)
        counts[f"{scanner} severe"] += bool(severe_ones(answer.flags))
        if answer.flags:
            flags = [f"{flag.code} {flag.severity} {flag.structure}" for flag in answer.flags]
            line = {"head": head.name, "scanner": scanner, "dice": round(value, 3), "flags": flags}
            print(json.dumps(line), flush=True)
    print(json.dumps({**dict(counts), "dice": round(float(np.mean(dices)), 4)}))


if __name__ == "__main__":
    main()
