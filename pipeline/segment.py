"""One scan in, FreeSurfer labels on its own grid out.

The network is passed in as a function of slices, so that the API's engine, a
worker and an experiment all run this same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from normbank.entities import Flag
from normbank.imaging.brain import NetworkSpace, SlicePredictor
from normbank.imaging.geometry import Geometry
from normbank.imaging.plausibility import resolution_doubts
from normbank.imaging.scan import Scan
from normbank.imaging.volumes import volumes_mm3
from pipeline.answer import answer_upright
from pipeline.clock import Clock


@dataclass(frozen=True, slots=True, eq=False)
class SegmentedScan:
    """The answer for one scan.

    Attributes
    ----------
    ids : (X, Y, Z) int16, FreeSurfer ids on the scan's own grid
    volumes_mm3 : per side and structure
    quality : facts a reader may judge the answer by
    timings_s : per stage
    flags : what is doubtful about the scan or the answer
    """

    ids: npt.NDArray[np.int16]
    volumes_mm3: Mapping[str, float]
    quality: Mapping[str, Any]
    timings_s: Mapping[str, float]
    flags: tuple[Flag, ...] = ()


def computed_by(
    segmented_scan: SegmentedScan, backend: str, logits_sha256: str | None = None
) -> SegmentedScan:
    """The same answer with what computed it and, if wanted, the hash of every score."""
    quality = {**segmented_scan.quality, "backend": backend}
    if logits_sha256 is not None:
        quality["logits_sha256"] = logits_sha256
    return replace(segmented_scan, quality=quality)


def segment_scan(
    scan: Scan, predictor: SlicePredictor, space: NetworkSpace, *, look_around: bool = True
) -> SegmentedScan:
    """Segment one scan, and say what is doubtful.

    Where the head is turned by more than 12 degrees, or the answer is no anatomy, the
    network is shown the head upright.

    Parameters
    ----------
    scan : any orientation and spacing
    predictor : the network with the domain's state
    space : the backbone's conventions
    look_around : False: never turn the head, which saves the looks at one that a state
        does not know

    Raises
    ------
    EmptyScanError
        See `frame_brain`.
    """
    clock = Clock()
    network = clock.timed("network", predictor)
    geometry = Geometry.of(scan, space.spacing_mm)
    volume = geometry.to_network(scan.data)
    answer = answer_upright(volume, network, space, clock, look_around=look_around)
    on_scan = geometry.labels_to_scan(answer.labels, np.int16)
    volumes = volumes_mm3(on_scan, scan.affine)
    quality = {**_quality(volumes), **answer.quality}
    flags = (*scan.flags, *resolution_doubts(scan.spacing_mm), *answer.flags)
    clock.lap("back")
    return SegmentedScan(on_scan, volumes, quality, clock.laps, flags)


def _quality(volumes: Mapping[str, float]) -> dict[str, Any]:
    """Signs of a failed segmentation that need no reference."""
    missing = sorted(name for name, mm3 in volumes.items() if mm3 == 0)
    asymmetry = {}
    for name, left in volumes.items():
        right = volumes.get(name.replace("left-", "right-", 1))
        if name.startswith("left-") and right is not None and left + right > 0:
            asymmetry[name.removeprefix("left-")] = round((left - right) / (left + right), 3)
    return {
        "brain_ml": round(sum(volumes.values()) / 1000, 1),
        "missing": missing,
        "asymmetry": asymmetry,
    }
