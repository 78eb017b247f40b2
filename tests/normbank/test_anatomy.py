"""Ids to structures to classes."""

import numpy as np
import pytest

from normbank import anatomy
from normbank.errors import InvalidError, UnknownLabelError


def test_every_structure_but_background_has_answered_ids():
    assert set(anatomy.FREESURFER_OUTPUT) == set(anatomy.STRUCTURES) - {"background"}
    assert set(anatomy.EVALUATED) < {*anatomy.STRUCTURES, *anatomy.GROUPS}


@pytest.mark.parametrize("scheme", anatomy.LABEL_SCHEMES)
def test_every_scheme_knows_all_structures_and_nothing_else(scheme):
    found = set(anatomy.structures_of(scheme).values()) - {anatomy.SKULL}
    assert found == set(anatomy.STRUCTURES)


@pytest.mark.parametrize(
    ("scheme", "label", "structure"),
    [
        ("freesurfer", 5, "inferior-lateral-ventricle"),
        ("freesurfer", 10, "thalamus"),
        ("freesurfer", 9, "thalamus"),
        ("freesurfer", 58, "cerebral-gm"),
        ("freesurfer", 1035, "cerebral-gm"),
        ("freesurfer", 12175, "cerebral-gm"),
        ("freesurfer", 4001, "cerebral-wm"),
        ("freesurfer", 5002, "cerebral-wm"),
        ("freesurfer", 77, "cerebral-wm"),
        ("freesurfer", 507, anatomy.SKULL),
        ("neuromorphometrics", 47, "hippocampus"),
        ("neuromorphometrics", 74, anatomy.SKULL),
        ("neuromorphometrics", 207, "cerebral-gm"),
        ("muse", 1, "csf"),
        ("muse", 95, "cerebral-wm"),
        ("muse", 47, "hippocampus"),
        ("freesurfer", 63, "lateral-ventricle"),
        ("neuromorphometrics", 49, "inferior-lateral-ventricle"),
        ("muse", 11, "fourth-ventricle"),
        ("normbank", 43, "lateral-ventricle"),
    ],
)
def test_an_id_means_its_structure(scheme, label, structure):
    assert anatomy.structures_of(scheme)[label] == structure


def test_the_answered_ids_are_read_back_as_themselves():
    for scheme in ("freesurfer", "normbank"):
        table = anatomy.structures_of(scheme)
        for structure, ids in anatomy.FREESURFER_OUTPUT.items():
            assert table[ids.left] == table[ids.right] == structure


def test_classes_are_numbered_in_the_order_that_is_passed():
    labels = np.array([[[0, 17, 53, 507, 16, 2]]], np.int32)
    classes = ("background", "hippocampus", "brain-stem")
    found = anatomy.labels_to_classes(labels, "freesurfer", classes)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 1, 1, 0, 2, 0]


def test_a_backbone_with_one_class_for_all_ventricles_gets_them_all():
    labels = np.array([[[4, 5, 14, 15, 63, 17]]], np.int32)
    classes = ("background", "ventricles", "hippocampus")
    found = anatomy.labels_to_classes(labels, "freesurfer", classes)
    assert found.ravel().tolist() == [1, 1, 1, 1, 1, 2]
    assert anatomy.classes_of("ventricles", classes) == (1,)
    assert anatomy.classes_of("third-ventricle", classes) == ()
    assert anatomy.answered_ids("ventricles") == anatomy.FreeSurferIds(4, 43)


def test_a_group_is_all_of_its_members():
    numbers = anatomy.classes_of("ventricles", anatomy.STRUCTURES)
    assert {anatomy.STRUCTURES[n] for n in numbers} == set(anatomy.GROUPS["ventricles"])
    assert anatomy.members_of(["ventricles", "csf"]) == {*anatomy.GROUPS["ventricles"], "csf"}


def test_unknown_ids_are_refused_and_counted():
    labels = np.zeros((3, 3, 3), np.int32)
    labels[0], labels[1, 0, 0], labels[2, 0, 0] = 9999, -4, 17
    with pytest.raises(UnknownLabelError) as caught:
        anatomy.labels_to_classes(labels, "freesurfer", anatomy.STRUCTURES)
    assert caught.value.facts["ids"] == {9999: 9, -4: 1}


def test_an_id_between_known_ones_is_unknown_too():
    with pytest.raises(UnknownLabelError):
        anatomy.present_structures(np.full((1, 1, 1), 110), "neuromorphometrics")


def test_an_unknown_scheme_is_refused():
    with pytest.raises(InvalidError):
        anatomy.structures_of("talairach")


def test_present_structures_leave_out_background_and_skull():
    labels = np.array([[[0, 507, 53, 11]]], np.int32)
    assert anatomy.present_structures(labels, "freesurfer") == ("hippocampus", "caudate")


def test_the_table_for_people_names_every_answered_id():
    rows = {row["structure"]: row for row in anatomy.label_table(anatomy.STRUCTURES)}
    assert rows["lateral-ventricle"]["left"] == 4
    assert rows["brain-stem"]["left"] == rows["brain-stem"]["right"] == 16
    assert len(rows) == 17
