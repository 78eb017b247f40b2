"""Heads turned about each axis, with headers that do not say so.

    python -m bench.robustness.turned_heads MANIFEST [--subjects …] [--angles 0,10,…,90]

Scan and reference are turned together about the middle of the brain, in a cube of
256 mm at the network's spacing. Prints one JSON line for each head, axis and angle: mean
Dice of the evaluated structures; that of the upright head's answer, whose labels are
turned as those of the reference are; how far the head was found to be turned; the flags.
"""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from bench.robustness.heads import Head, Subjects, mean_dice, parser_of, subjects_of
from normbank.anatomy import STRUCTURES, labels_to_classes
from normbank.errors import NormbankError
from normbank.imaging.geometry import Geometry
from normbank.imaging.scan import Scan
from normbank.imaging.upright import Upright
from pipeline.segment import SegmentedScan, segment_scan

CUBE = (256, 256, 256)
MIDDLE = (np.array(CUBE) - 1) / 2


def in_cube(head: Head) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint8]]:
    """Scan and reference classes at 1 mm, the brain in the middle of the cube."""
    geometry = Geometry.of(head.scan, 1.0)
    classes = labels_to_classes(head.labels, head.scheme, STRUCTURES)
    volume = geometry.to_network(head.data)
    reference = geometry.labels_to_network(classes, len(STRUCTURES))
    shift = np.rint(MIDDLE - np.argwhere(reference).mean(0)).astype(int)
    low = np.maximum(shift, 0)
    high = np.minimum(shift + volume.shape, CUBE)
    there = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    here = tuple(slice(a - s, b - s) for a, b, s in zip(low, high, shift, strict=True))
    cubes = np.zeros(CUBE, np.float32), np.zeros(CUBE, np.uint8)
    cubes[0][there], cubes[1][there] = volume[here], reference[here]
    return cubes


def answer_of(volume: npt.NDArray[np.float32], subjects: Subjects) -> SegmentedScan:
    return segment_scan(Scan(volume, np.eye(4)), subjects.predictor, subjects.space)


def classes_of_answer(answer: SegmentedScan) -> npt.NDArray[np.uint8]:
    return labels_to_classes(answer.ids.astype(np.int32), "normbank", STRUCTURES)


def outcome(
    volume: npt.NDArray[np.float32],
    reference: npt.NDArray[np.uint8],
    upright: npt.NDArray[np.uint8],
    rotation: Rotation,
    subjects: Subjects,
) -> dict[str, Any]:
    """What comes of a head that is turned by a rotation."""
    turned = Upright(rotation.inv(), MIDDLE, CUBE).turn(volume)
    truth, expected = (
        Upright(rotation, MIDDLE, CUBE).turn_back(labels, CUBE) for labels in (reference, upright)
    )
    started = time.perf_counter()
    try:
        answer = answer_of(turned, subjects)
    except NormbankError as error:
        return {"refused": error.code}
    seconds = time.perf_counter() - started
    return {
        "dice": round(mean_dice(classes_of_answer(answer), truth), 4),
        "upright": round(mean_dice(expected, truth), 4),
        "turned_deg": answer.quality.get("turned_deg"),
        "flags": sorted({f"{flag.code} {flag.severity}" for flag in answer.flags}),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--angles", default="0,10,20,30,45,60,75,90", help="degrees, by commas")
    parser.add_argument("--axes", default="xyz")
    options = parser.parse_args()
    subjects = subjects_of(options)
    for head in subjects.heads:
        volume, reference = in_cube(head)
        upright = classes_of_answer(answer_of(volume, subjects))
        for axis in options.axes:
            for angle in map(float, options.angles.split(",")):
                rotation = Rotation.from_euler(axis, angle, degrees=True)
                found = outcome(volume, reference, upright, rotation, subjects)
                line = {"head": head.name, "axis": axis, "angle": angle, **found}
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
