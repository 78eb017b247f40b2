"""What is anatomy, what is not, and how a head lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from normbank.anatomy import FREESURFER_OUTPUT, STRUCTURES
from normbank.entities import Severity
from normbank.imaging.plausibility import (
    Measured,
    cut_off,
    doubts,
    is_judged,
    resolution_doubts,
    side_names,
)
from normbank.imaging.reference_anatomy import REFERENCES

CENTRE = np.array([128.0, 120.0, 130.0])
SEVERE, WARNING = Severity.SEVERE, Severity.WARNING


def brain(rotation: Rotation | None = None, **volumes_ml: float) -> Measured:
    """A brain of middling volumes where it belongs, turned; some volumes as given."""
    rotation, volumes, centres = rotation or Rotation.identity(), {}, {}
    for name, reference in REFERENCES.items():
        for side, _ in side_names(name, FREESURFER_OUTPUT[name]):
            middling = (reference.least_ml * reference.greatest_ml) ** 0.5
            volumes[side] = volumes_ml.get(side.replace("-", "_"), middling)
            x = -reference.x if side.startswith("left-") else reference.x
            if volumes[side]:
                centres[side] = CENTRE + rotation.apply([x, reference.y, reference.z])
    return Measured(volumes, centres, np.full(3, 256.0))


def said(measured: Measured, only: str | None = None) -> list[tuple[str, Severity, str | None]]:
    flags = doubts(measured, measured.pose(), only)
    return [(flag.code, flag.severity, flag.structure) for flag in flags]


def test_a_brain_is_a_brain() -> None:
    assert said(brain()) == []


@pytest.mark.parametrize("angle", [0, 8, 45, 90, 178])
@pytest.mark.parametrize("axis", "xyz")
def test_how_a_head_lies_is_read_from_its_structures(axis: str, angle: float) -> None:
    turned = Rotation.from_euler(axis, angle, degrees=True)
    pose = brain(turned).pose()
    assert pose is not None
    assert np.degrees((pose.rotation * turned.inv()).magnitude()) < 0.1
    assert pose.angle_deg == pytest.approx(angle, abs=0.1)
    assert np.allclose(pose.centre_mm, CENTRE, atol=0.1)
    assert pose.residual_mm < 0.1


def test_volumes_out_of_range_are_doubtful_and_far_out_severe() -> None:
    assert said(brain(left_hippocampus=1.2)) == [
        ("implausible_volume", WARNING, "left-hippocampus"),
    ]
    assert said(brain(left_thalamus=0.94)) == [("implausible_volume", SEVERE, "left-thalamus")]
    assert said(brain(right_caudate=0.0)) == [("missing_structure", SEVERE, "right-caudate")]
    assert said(brain(left_lateral_ventricle=90.0, right_lateral_ventricle=90.0)) == []


def test_a_side_much_larger_than_the_other_is_doubtful() -> None:
    assert said(brain(left_putamen=3.0, right_putamen=7.0)) == [
        ("sides_uncertain", WARNING, "putamen")
    ]


def test_a_brain_of_no_human_size_is_severe_and_says_only_that() -> None:
    measured = brain()
    small = {side: volume * 0.3 for side, volume in measured.volumes_ml.items()}
    tiny = Measured(small, measured.centres_mm, measured.extent_mm)
    assert said(tiny) == [("implausible_volume", SEVERE, None)]


def test_structures_in_other_places_are_severe() -> None:
    measured = brain()
    places = list(measured.centres_mm.values())
    mixed = dict(zip(measured.centres_mm, places[7:] + places[:7], strict=True))
    flags = said(Measured(measured.volumes_ml, mixed, measured.extent_mm))
    assert flags[0][:2] == ("implausible_position", SEVERE)


def test_what_lies_beyond_the_volume_is_no_fault_of_the_answer() -> None:
    measured = brain(left_cerebellum_gm=0.0, right_cerebellum_gm=5.0)
    low = 80.0  # the volume begins that much higher
    cut = {side: centre - [0, 0, low] for side, centre in measured.centres_mm.items()}
    flags = said(Measured(measured.volumes_ml, cut, np.array([256.0, 256.0, 176.0])))
    assert {(code, severity) for code, severity, _ in flags} == {("field_of_view", WARNING)}


def test_of_half_a_head_only_that_side_is_judged() -> None:
    half = {
        f"right_{name}".replace("-", "_"): 0.0
        for name, ids in FREESURFER_OUTPUT.items()
        if name in REFERENCES and ids.paired
    }
    assert said(brain(**half), only="left") == []
    assert said(brain(**half)) != []


def test_ids_are_measured_where_they_lie() -> None:
    ids = np.zeros((40, 44, 48), np.int16)
    ids[10:20, 12:22, 30:38] = 10  # the left thalamus
    measured = Measured.of(ids, (2.0, 2.0, 1.0), start=(5, 0, 0), shape=(60, 44, 48))
    assert measured.volumes_ml["left-thalamus"] == pytest.approx(800 * 4 / 1000)
    assert measured.centres_mm["left-thalamus"] == pytest.approx([39, 33, 33], abs=1.5)
    assert list(measured.extent_mm) == [120, 88, 48]
    assert "right-thalamus" not in measured.centres_mm


def test_a_backbone_of_few_structures_is_not_judged() -> None:
    assert is_judged(STRUCTURES)
    assert not is_judged(("background", "thalamus", "brain-stem"))


def test_a_brain_that_ends_at_a_face_is_cut_off() -> None:
    labels = np.zeros((64, 64, 64), np.uint8)
    labels[20:50, 20:50, 30:] = 2
    (flag,) = cut_off(labels, 1.0)
    assert (flag.code, flag.severity) == ("field_of_view", WARNING)
    assert "the top (9 cm²)" in flag.detail
    stem: Any = np.where(labels, 16, 0).astype(np.uint8)
    assert cut_off(stem, 1.0) == []


def test_coarse_voxels_are_said() -> None:
    assert resolution_doubts((1, 1, 1.5)) == []
    assert resolution_doubts((1, 1, 3))[0].severity is Severity.INFO
    assert resolution_doubts((0.9, 0.9, 5))[0].severity is WARNING
