"""Volumes and places of the structures of a head, as `normbank.imaging.reference_anatomy` has them.

    python bench/reference_anatomy.py SCANS LABELS [--domain sim-t1w-3t]

SCANS is a text file with a path of a scan in each line, LABELS one with a label scheme and
a path; a user has his own. Prints the least and greatest volume by side and the median
place from the middle of the brain, by normbank's answers, and the volumes of the labels.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from models.backbone import SHIPPED
from models.packs import read_states
from normbank.anatomy import FREESURFER_OUTPUT, structures_of
from normbank.config import Settings
from normbank.imaging.geometry import nearest_ras
from normbank.imaging.nifti import read_labels, read_scan
from normbank.imaging.plausibility import Measured
from normbank.imaging.reference_anatomy import REFERENCES
from normbank.imaging.scan import Limits, Scan, spacing_of
from pipeline.networks import Networks
from pipeline.segment import segment_scan

LIMITS = Limits.of(Settings())


def answers(paths: list[Path], domain: str) -> Iterator[Measured]:
    """What the shipped backbone answers for each scan, measured."""
    networks = Networks.open(Settings())
    predictor = networks.predict_with(read_states(SHIPPED, networks.backbone)[domain])
    for path in paths:
        scan = read_scan(path, LIMITS)
        yield measured(scan, segment_scan(scan, predictor, networks.spec).ids)


def measured(scan: Scan, ids: np.ndarray) -> Measured:
    order, flips = nearest_ras(scan.affine)
    turned = ids.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    spacing = spacing_of(scan.affine)
    return Measured.of(np.ascontiguousarray(turned), [spacing[axis] for axis in order])


def label_volumes(lines: list[str]) -> Iterator[dict[str, float]]:
    """Volumes in ml of each label map, of one side where a structure has two."""
    for line in lines:
        scheme, path = line.split(maxsplit=1)
        labels = read_labels(Path(path), LIMITS)
        voxel_ml = abs(np.linalg.det(labels.affine[:3, :3])) / 1000
        counts = np.bincount(np.clip(labels.data, 0, None).ravel())
        volumes = dict.fromkeys(REFERENCES, 0.0)
        for number, name in structures_of(scheme).items():
            if name in volumes and number < len(counts):
                sides = 2 if FREESURFER_OUTPUT[name].paired else 1
                volumes[name] += float(counts[number]) * voxel_ml / sides
        yield volumes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=Path)
    parser.add_argument("labels", type=Path)
    parser.add_argument("--domain", default="sim-t1w-3t")
    options = parser.parse_args()
    heads = list(answers([Path(p) for p in options.scans.read_text().split()], options.domain))
    maps = list(label_volumes(options.labels.read_text().strip().splitlines()))
    print(f"{'structure':20} answers, ml     labels, ml     place, mm")
    for name in REFERENCES:
        paired = FREESURFER_OUTPUT[name].paired
        side = f"right-{name}" if paired else name
        volumes = [v for head in heads for s, v in head.volumes_ml.items() if s.endswith(name)]
        known = [volume[name] for volume in maps]
        places = []
        for head in heads:
            middle = sum(head.volumes_ml[s] * c for s, c in head.centres_mm.items())
            if side in head.centres_mm:
                places.append(head.centres_mm[side] - middle / head.brain_ml)
        x, y, z = np.median(places, axis=0)
        print(
            f"{name:20} {min(volumes):6.2f} {max(volumes):6.2f}   {min(known):6.2f} "
            f"{max(known):6.2f}   {x:6.1f} {y:6.1f} {z:6.1f}"
        )


if __name__ == "__main__":
    main()
