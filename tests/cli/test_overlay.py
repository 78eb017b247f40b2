"""The picture shows the same head however its file is stored."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform

from cli.output.overlay import draw_overlay

SHAPE = (60, 70, 50)


@pytest.fixture(scope="module")
def head():
    """A grey ball with a thalamus on the left and a putamen on the right."""
    x, y, z = np.indices(SHAPE)
    ball = (x - 30) ** 2 + (y - 35) ** 2 + (z - 25) ** 2 < 22**2
    ids = np.zeros(SHAPE, np.int16)
    ids[20:28, 30:40, 20:30] = 10
    ids[33:40, 30:40, 20:30] = 51
    grey = np.where(ball, 100, 0).astype(np.float32)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])
    return nibabel.Nifti1Image(grey, affine), nibabel.Nifti1Image(ids, affine)


def picture_of(folder, head, codes: str) -> bytes:
    names = ("scan.nii", "labels.nii.gz")
    folder.mkdir()
    for image, name in zip(head, names, strict=True):
        turn = ornt_transform(io_orientation(image.affine), axcodes2ornt(codes))
        nibabel.save(image.as_reoriented(turn), folder / name)
    picture = folder / "picture.png"
    draw_overlay(folder / names[0], folder / names[1], picture, "a ball")
    return picture.read_bytes()


def test_the_picture_does_not_depend_on_how_the_file_is_stored(tmp_path, head):
    upright = picture_of(tmp_path / "RAS", head, "RAS")
    assert upright[:4] == b"\x89PNG"
    assert picture_of(tmp_path / "LIA", head, "LIA") == upright


def test_a_scan_without_a_label_still_gives_a_picture(tmp_path, head):
    empty = nibabel.Nifti1Image(np.zeros(SHAPE, np.int16), head[1].affine)
    assert picture_of(tmp_path / "empty", (head[0], empty), "LAS")
