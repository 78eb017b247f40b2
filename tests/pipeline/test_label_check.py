"""Labels that are those of their scan, and fourteen kinds that are not."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt
import pytest

from normbank.anatomy import FREESURFER_OUTPUT, sided_ids
from normbank.imaging.geometry import nearest_ras
from normbank.imaging.scan import LabelVolume, Scan
from normbank.imaging.volumes import volumes_mm3
from pipeline.label_check import (
    Look,
    check_labels,
    compare_with_answer,
    compare_with_looks,
)
from pipeline.segment import SegmentedScan
from simulate import SCANNERS, scan
from simulate.phantom import draw_head, head_affine
from simulate.wrong_labels import WRONG_LABELS

Ids = npt.NDArray[np.int32]
SHAPE, SPACING_MM = (96, 112, 96), 2.0
KNOWN = [i for ids in FREESURFER_OUTPUT.values() for i in (ids.left, ids.right)]


@cache
def head(seed: int) -> tuple[Scan, Ids]:
    """A drawn head on a simulated scanner, and its FreeSurfer labels."""
    labels, affine = draw_head(seed, SHAPE, SPACING_MM), head_affine(SHAPE, SPACING_MM)
    drawn = scan(labels, affine, SCANNERS["d1-t1w-3t"], seed)
    return Scan(drawn.data, drawn.affine), np.where(
        np.isin(drawn.labels, KNOWN), drawn.labels, 0
    ).astype(np.int32)


def doubts(ids: Ids, seed: int = 1, picture: Scan | None = None) -> set[str]:
    """Codes of what is severe: by the labels alone, then against a network that sees all."""
    volume, truth = head(seed)
    labels = LabelVolume(ids, volume.affine)
    flags = list(check_labels(picture or volume, labels, "freesurfer").flags)
    if not [flag for flag in flags if flag.severity == "severe"]:
        mm3 = volumes_mm3(truth, volume.affine)
        answer = SegmentedScan(truth.astype(np.int16), mm3, {}, {})
        flags += compare_with_answer(volume, labels, "freesurfer", answer)
    return {flag.code for flag in flags if flag.severity == "severe"}


@pytest.mark.parametrize("seed", range(1, 9))
def test_right_labels_are_right(seed: int) -> None:
    assert doubts(head(seed)[1], seed) == set()


WRONG = {
    "mirrored": "sides_swapped",
    "sides swapped": "sides_swapped",
    "one side": "one_sided",
    "shifted by 5 voxels": "labels_elsewhere",
    "shifted by 10 voxels": "labels_on_air",
    "shifted by 20 voxels": "labels_on_air",
    "front to back": "labels_on_air",
    "upside down": "labels_on_air",
    "nothing": "no_labels",
    "noise": "labels_on_air",
    "shifted by half a head": "labels_on_air",
}
"""Kind of `simulate.wrong_labels` -> a code that says so."""


def test_every_kind_of_wrong_labels_is_tried() -> None:
    assert set(WRONG) == set(WRONG_LABELS)


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_labels_are_found(kind: str) -> None:
    ids = WRONG_LABELS[kind](head(1)[1], sided_ids("freesurfer"))
    assert WRONG[kind] in doubts(ids.astype(np.int32))


def test_structures_mixed_up_are_found() -> None:
    ids = head(1)[1]
    mixed = np.where(ids == 3, 10, np.where(ids == 42, 49, ids)).astype(np.int32)
    assert "implausible_volume" in doubts(mixed)


def test_another_persons_labels_are_found() -> None:
    moved = np.roll(head(5)[1], (2, 3, 0), (0, 1, 2))
    assert doubts(moved) == {"labels_elsewhere"}


def test_a_label_map_is_no_scan() -> None:
    volume, ids = head(1)
    picture = Scan(ids.astype(np.float32), volume.affine)
    assert doubts(ids, picture=picture) == {"label_map_as_scan"}


def test_left_and_right_are_those_of_the_world_however_the_file_stores_them() -> None:
    volume, ids = head(1)
    flipped = volume.affine @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] += volume.affine[:3, 0] * (SHAPE[0] - 1)
    assert nearest_ras(flipped)[1] != nearest_ras(volume.affine)[1]
    stored = Scan(volume.data[::-1], flipped)
    labels = LabelVolume(ids[::-1], flipped)
    assert check_labels(stored, labels, "freesurfer").flags == ()


def test_every_scheme_knows_its_sides() -> None:
    assert sided_ids("neuromorphometrics")["thalamus"] == (60, 59)
    assert sided_ids("freesurfer")["hippocampus"] == (17, 53)


def test_a_look_that_agrees_is_enough_and_is_asked_first_the_next_time() -> None:
    volume, truth = head(1)
    labels, mm3 = LabelVolume(truth, volume.affine), volumes_mm3(truth, volume.affine)
    asked: list[str] = []

    def look(name: str, ids: Ids | None) -> Look:
        def see(_scan: Scan) -> SegmentedScan | None:
            asked.append(name)
            return None if ids is None else SegmentedScan(ids.astype(np.int16), mm3, {}, {})

        return see

    looks = [look("blind", None), look("wrong", np.roll(truth, 9, 2)), look("right", truth)]
    assert compare_with_looks(volume, labels, "freesurfer", looks) == []
    assert compare_with_looks(volume, labels, "freesurfer", looks) == []
    assert asked == ["blind", "wrong", "right", "right"]
    wrong = [look("wrong", np.roll(truth, 9, 2))]
    flags = compare_with_looks(volume, labels, "freesurfer", wrong)
    assert [flag.code for flag in flags] == ["labels_elsewhere"]
    assert compare_with_looks(volume, labels, "freesurfer", [look("blind", None)]) == []
    near = look("near", np.roll(truth, (1, 1, 1), (0, 1, 2)))
    for looks in ([near, wrong[0]], [wrong[0], near]):
        flags = compare_with_looks(volume, labels, "freesurfer", looks)
        assert [(flag.code, flag.severity) for flag in flags] == [("labels_elsewhere", "warning")]
