"""What a NIfTI header says about place and size, with all that is odd about real ones."""

from __future__ import annotations

from typing import Any

import nibabel as nib
import numpy as np
import pytest

from normbank.entities import Severity
from normbank.errors import GeometryError
from normbank.imaging.nifti_forms import place

SHAPE = (160, 192, 176)
TURNED = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.05) * (-1.5, 1.2, 1.1), (80, -90, -70)
)


def header(sform: Any = TURNED, qform: Any = TURNED, **fields: Any) -> Any:
    """A header of both forms, or of fewer; `fields` are written as they are."""
    raw = nib.Nifti1Header()
    raw.set_data_shape(SHAPE)
    sizes = np.sqrt((TURNED[:3, :3] ** 2).sum(0))
    raw["pixdim"][:4] = (1, *sizes)
    raw.set_sform(sform, 0 if sform is None else 1)
    if qform is None:
        raw["qform_code"] = 0
    else:
        raw.set_qform(qform, 1)
    raw["xyzt_units"] = 2
    for name, value in fields.items():
        raw[name] = value
    return raw


def said(raw: Any) -> list[tuple[str, Severity]]:
    return [(flag.code, flag.severity) for flag in place(raw, SHAPE).flags]


def with_sizes(raw: Any, sizes: tuple[float, ...]) -> Any:
    raw["pixdim"][1:4] = sizes
    return raw


def test_forms_that_agree_say_nothing_more() -> None:
    placed = place(header(), SHAPE)
    assert placed.flags == ()
    assert np.array_equal(placed.affine, header().get_best_affine())
    assert said(header(qform=None)) == []
    assert np.array_equal(
        place(header(sform=None), SHAPE).affine, header(sform=None).get_best_affine()
    )


def test_without_any_form_nobody_knows_left_from_right() -> None:
    raw = header(sform=None, qform=None)
    placed = place(raw, SHAPE)
    assert said(raw) == [("orientation_unknown", Severity.SEVERE)]
    assert np.array_equal(placed.affine, raw.get_best_affine())


def test_forms_of_unlike_handedness_are_severe() -> None:
    mirrored = TURNED @ np.diag([-1, 1, 1, 1])
    assert said(header(sform=mirrored)) == [("forms_disagree", Severity.SEVERE)]


def test_forms_turned_against_each_other_are_doubtful() -> None:
    turn = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, 0, 0))
    assert said(header(sform=turn @ TURNED)) == [("forms_disagree", Severity.WARNING)]
    nearly = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.01, 0, 0), (30, 0, 0))
    assert said(header(sform=nearly @ TURNED)) == []


@pytest.mark.parametrize("rotten", [np.zeros((4, 4)), np.full((4, 4), np.nan)])
def test_a_sound_qform_stands_in_for_a_rotten_sform(rotten: Any) -> None:
    raw = header()
    raw["srow_x"], raw["srow_y"], raw["srow_z"] = rotten[:3]
    assert np.allclose(place(raw, SHAPE).affine, TURNED, atol=1e-4)
    assert said(raw) == [("forms_disagree", Severity.INFO)]


def test_sizes_that_contradict_each_other_are_named() -> None:
    identity = with_sizes(header(sform=np.eye(4), qform=None), (1.5, 1.5, 1.5))
    (flag,) = place(identity, SHAPE).flags
    assert (flag.code, flag.severity) == ("size_doubtful", Severity.SEVERE)
    assert "1 × 1 × 1" in flag.detail
    assert "1.5 × 1.5 × 1.5" in flag.detail
    a_little = header(qform=None)
    a_little["pixdim"][1:4] *= 1.05
    assert said(a_little) == [("size_doubtful", Severity.WARNING)]
    hardly = header(qform=None)
    hardly["pixdim"][1:4] *= 1.01
    assert said(hardly) == []


@pytest.mark.parametrize("excess", [4e-7, 1e-5, 1e-3])
def test_a_quaternion_too_long_by_rounding_is_normalised(excess: float) -> None:
    half_turn = nib.affines.from_matvec(np.diag([-1.5, -1.2, 1.1]), (80, 90, -70))
    raw = header(sform=None, qform=half_turn)
    raw["quatern_d"] = np.sqrt(1 + excess)
    placed = place(raw, SHAPE)
    assert placed.flags == ()
    assert np.allclose(
        placed.affine, place(header(sform=None, qform=half_turn), SHAPE).affine, atol=1e-3
    )


def test_a_quaternion_of_another_length_is_refused_with_it() -> None:
    raw = header(sform=None, quatern_b=2.0)
    with pytest.raises(GeometryError, match=r"quaternion has the length 2") as caught:
        place(raw, SHAPE)
    assert caught.value.code == "bad_affine"


def test_qfac_0_counts_as_1() -> None:
    straight = nib.affines.from_matvec(np.diag([1.5, 1.2, 1.1]), (-80, -90, -70))
    raw = header(sform=None, qform=straight)
    raw["pixdim"][0] = 0
    assert np.allclose(place(raw, SHAPE).affine, straight, atol=1e-4)


def test_a_negative_size_is_taken_without_its_sign_and_said() -> None:
    straight = nib.affines.from_matvec(np.diag([1.5, 1.2, 1.1]), (-80, -90, -70))
    raw = with_sizes(header(sform=None, qform=straight), (-1.5, 1.2, 1.1))
    assert np.allclose(place(raw, SHAPE).affine, straight, atol=1e-4)
    assert said(raw) == [("size_doubtful", Severity.WARNING)]
    assert said(with_sizes(header(sform=straight, qform=None), (-1.5, 1.2, 1.1))) == []


@pytest.mark.parametrize(("unit", "scale"), [(1, 1000.0), (3, 0.001)])
def test_metres_and_microns_become_millimetres(unit: int, scale: float) -> None:
    small = np.diag([1 / scale, 1 / scale, 1 / scale, 1.0]) @ TURNED
    raw = header(sform=small, qform=None, xyzt_units=unit)
    raw["pixdim"][1:4] /= scale
    assert np.allclose(place(raw, SHAPE).affine, TURNED, rtol=1e-4)
    assert said(raw) == [("units", Severity.INFO)]


def test_a_unit_in_which_no_head_has_this_size_is_not_believed() -> None:
    raw = header(qform=None, xyzt_units=1)
    assert np.allclose(place(raw, SHAPE).affine, TURNED, atol=1e-4)
    assert said(raw) == [("units", Severity.WARNING)]


def test_where_neither_form_is_sound_both_reasons_are_given() -> None:
    raw = header(quatern_b=3.0)
    raw["srow_x"] = 0
    with pytest.raises(GeometryError, match=r"the sform: .*; the qform: ") as caught:
        place(raw, SHAPE)
    assert caught.value.code == "bad_affine"


def test_no_form_and_no_size_is_refused_with_the_numbers() -> None:
    raw = with_sizes(header(sform=None, qform=None), (0, 1, 1))
    with pytest.raises(GeometryError, match="0 × 1 × 1"):
        place(raw, SHAPE)
