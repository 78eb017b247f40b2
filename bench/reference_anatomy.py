"""Volumes and places of the structures of a head, as `normbank.imaging.reference_anatomy` has them.

    python bench/reference_anatomy.py SCANS LABELS

SCANS is a text file with a domain and the path of a scan in each line, LABELS one with a
label scheme and a path; a user has his own. Prints the least and greatest volume by side and
the median place from the middle of the brain, by normbank's answers, and the volumes of the
labels; then how far the heads are turned, how far their structures lie from where they
belong, how well they mirror, whole and as halves, and their flags.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.backbone import SHIPPED
from models.packs import read_states
from normbank.anatomy import FREESURFER_OUTPUT, labels_to_classes, structures_of
from normbank.config import Settings
from normbank.entities import Flag
from normbank.imaging.geometry import nearest_ras
from normbank.imaging.nifti import read_labels, read_scan
from normbank.imaging.plausibility import Measured
from normbank.imaging.reference_anatomy import REFERENCES
from normbank.imaging.scan import Limits, Scan, spacing_of
from normbank.imaging.sides import split_sides
from pipeline.networks import Networks
from pipeline.segment import segment_scan

LIMITS = Limits.of(Settings())


@dataclass(frozen=True)
class Head:
    """One scan's answer, measured."""

    measured: Measured
    quality: Mapping[str, Any]
    flags: tuple[Flag, ...]
    half_mirrored: float


def answers(lines: list[str]) -> Iterator[Head]:
    """What the shipped backbone answers for each scan."""
    networks = Networks.open(Settings())
    states = read_states(SHIPPED, networks.backbone)
    for line in lines:
        domain, path = line.split(maxsplit=1)
        scan = read_scan(Path(path), LIMITS)
        answer = segment_scan(scan, networks.predict_with(states[domain]), networks.spec)
        ids = upright_ids(scan, answer.ids)
        classes = labels_to_classes(ids, "normbank", networks.spec.classes)
        classes[classes.shape[0] // 2 :] = 0
        half = split_sides(classes, networks.spec.classes).mirrored
        spacing = [spacing_of(scan.affine)[axis] for axis in nearest_ras(scan.affine)[0]]
        yield Head(Measured.of(ids, spacing), answer.quality, answer.flags, half)


def upright_ids(scan: Scan, ids: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """The same on axes to the right, to the front and up."""
    order, flips = nearest_ras(scan.affine)
    turned = ids.transpose(order)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return np.ascontiguousarray(turned)


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


def print_structures(heads: list[Head], maps: list[dict[str, float]]) -> None:
    print(f"{'structure':20} answers, ml     labels, ml     place, mm")
    for name in REFERENCES:
        side = f"right-{name}" if FREESURFER_OUTPUT[name].paired else name
        measured = [head.measured for head in heads]
        volumes = [ml for of in measured for s, ml in of.volumes_ml.items() if s.endswith(name)]
        known = [volume[name] for volume in maps]
        places = [of.centres_mm[side] - middle(of) for of in measured if side in of.centres_mm]
        x, y, z = np.median(places, axis=0)
        print(
            f"{name:20} {min(volumes):6.2f} {max(volumes):6.2f}   {min(known):6.2f} "
            f"{max(known):6.2f}   {x:6.1f} {y:6.1f} {z:6.1f}"
        )


def middle(of: Measured) -> npt.NDArray[np.float64]:
    """Of the whole brain, mm."""
    parts = [of.volumes_ml[side] * centre for side, centre in of.centres_mm.items()]
    return np.asarray(np.sum(parts, axis=0) / of.brain_ml)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scans", type=Path)
    parser.add_argument("labels", type=Path)
    options = parser.parse_args()
    heads = list(answers(options.scans.read_text().strip().splitlines()))
    print_structures(heads, list(label_volumes(options.labels.read_text().strip().splitlines())))
    brains = [head.measured.brain_ml for head in heads]
    print(f"{len(heads)} brains: {min(brains):.0f} to {max(brains):.0f} ml")
    for fact in ("turned_deg", "misplaced_mm", "mirrored"):
        values = [float(head.quality[fact]) for head in heads]
        print(f"{fact}: {min(values):g} to {max(values):g}")
    halves = [head.half_mirrored for head in heads]
    print(f"mirrored, half of each: {min(halves):.3f} to {max(halves):.3f}")
    flags = Counter(f"{flag.code} {flag.severity}" for head in heads for flag in head.flags)
    print("flags:", dict(flags) or "none")


if __name__ == "__main__":
    main()
