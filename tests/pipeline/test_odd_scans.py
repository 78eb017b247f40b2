"""Odd files, read and answered: right on both sides, or said to be doubtful.

Their intensities as the network meets them are tested in `test_air`; a rule that reads
classes off brightness can only bear what keeps their order and distances.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from normbank.anatomy import answered_ids
from normbank.config import Settings
from normbank.entities import Severity
from normbank.imaging.metrics import dice
from normbank.imaging.nifti import read_scan
from normbank.imaging.scan import Limits
from pipeline.segment import segment_scan
from simulate.odd_scans import ODD_SCANS
from tests.support.painted import (
    MIDDLE,
    SPACE,
    STRUCTURES,
    nearest_only,
    painted_brain,
    read_classes,
    scan_of,
)

BRAIN = painted_brain()
PAINTED = scan_of(BRAIN)
NOISE = np.random.default_rng(0).uniform(-0.2, 0.2, BRAIN.shape)
DATA = (PAINTED.data + np.where(BRAIN > 0, NOISE, 0)).astype(np.float32)

RIGHT = (0.9, 0.9)
ANSWERED: dict[str, tuple[set[str], tuple[float, float]]] = {
    "as it is": (set(), RIGHT),
    "forms turned by 20 degrees": ({"forms_disagree"}, RIGHT),
    "quaternion too long by 4e-7": (set(), RIGHT),
    "qfac 0": (set(), RIGHT),
    "sform of zeros": ({"forms_disagree"}, RIGHT),
    "metres": ({"units"}, RIGHT),
    "microns": ({"units"}, RIGHT),
    "negative pixdim": ({"size_doubtful"}, RIGHT),
    "offset 500": ({"intensities"}, RIGHT),
    "offset -1024": ({"intensities"}, RIGHT),
    "wrapped air": ({"intensities"}, RIGHT),
    "one huge voxel": ({"intensities"}, RIGHT),
    "right half": ({"half_head", "field_of_view"}, (0.0, 0.9)),
    "left half in air": ({"half_head"}, (0.9, 0.0)),
    "upper 80 mm": ({"field_of_view"}, RIGHT),
    "oblique by 44 degrees": ({"pose"}, (0.8, 0.8)),
    "turned by 45 degrees about x": ({"pose"}, (0.8, 0.8)),
    "turned by 45 degrees about y": ({"pose"}, (0.8, 0.8)),
    "turned by 45 degrees about z": ({"pose"}, (0.8, 0.8)),
}
"""What is answered -> its flags, and the least Dice of the left and of the right structures."""

REFUSED = {
    "no form, stored RAS": "orientation_unknown",
    "no form, stored LAS": "orientation_unknown",
    "forms of unlike handedness": "forms_disagree",
    "pixdim half of the sform's": "size_doubtful",
    "identity sform, 1.5 mm": "size_doubtful",
    "identity on LIA": "orientation_contradicted",
    "upside down": "orientation_contradicted",
    "inverted": "implausible_position",
    "said to be small": "implausible_volume",
}
"""What is not answered without `accept=doubtful` -> a severe flag that says why."""


@pytest.fixture(autouse=True)
def _sharp(monkeypatch: pytest.MonkeyPatch) -> None:
    nearest_only(monkeypatch)


def answered(name: str, folder: Path) -> tuple[dict[str, Severity], tuple[float, float]]:
    """Codes of the flags, and the least Dice of the deep structures of each side."""
    odd = ODD_SCANS[name](DATA, PAINTED.affine)
    path = folder / "scan.nii"
    path.write_bytes(odd.file)
    segmented = segment_scan(read_scan(path, Limits.of(Settings())), read_classes, SPACE)
    ids = odd.back(segmented.ids)
    to_the_right = np.arange(BRAIN.shape[0])[:, None, None] > MIDDLE[0]
    least = []
    for right in (False, True):
        dices = []
        for structure in ("thalamus", "putamen", "hippocampus"):
            known = answered_ids(structure)
            assert known is not None
            truth = (STRUCTURES.index(structure) == BRAIN) & (to_the_right == right)
            dices.append(dice(ids == (known.right if right else known.left), truth) or 0.0)
        least.append(min(dices))
    codes = Counter(flag.code for flag in segmented.flags)
    assert codes["pose"] + codes["orientation_contradicted"] <= 1
    return {flag.code: flag.severity for flag in segmented.flags}, (least[0], least[1])


@pytest.mark.parametrize("name", ANSWERED)
def test_an_odd_scan_is_right_and_what_is_odd_is_said(name: str, tmp_path: Path) -> None:
    codes, (left, right) = ANSWERED[name]
    flags, found = answered(name, tmp_path)
    assert set(flags) == codes
    assert Severity.SEVERE not in flags.values()
    assert found[0] >= left
    assert found[1] >= right
    assert all(value == 0 for value, least in zip(found, (left, right), strict=True) if not least)


@pytest.mark.parametrize("name", REFUSED)
def test_a_scan_that_nobody_can_place_is_held_back(name: str, tmp_path: Path) -> None:
    flags, _ = answered(name, tmp_path)
    assert flags[REFUSED[name]] is Severity.SEVERE
