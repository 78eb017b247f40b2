"""Left and right of a head that is drawn, tilted and shifted."""

import numpy as np
import pytest
from nibabel.eulerangles import euler2mat

from normbank.anatomy import FREESURFER_OUTPUT, STRUCTURES
from normbank.imaging.masks import box_of
from normbank.imaging.sides import _Mirror, _Voxels, midsagittal_plane, split_sides
from normbank.imaging.volumes import volumes_mm3

SHAPE = (110, 120, 100)
# structure, centre (right, front, up) and radii in mm; mirrored to the left
PARTS = [
    ("cerebral-gm", (22, 0, 8), (24, 50, 34)),
    ("cerebral-wm", (21, 0, 8), (20, 44, 28)),
    ("cerebellum-gm", (14, -34, -28), (18, 14, 12)),
    ("lateral-ventricle", (8, 2, 12), (5, 20, 8)),
    ("thalamus", (8, -4, 2), (8, 13, 8)),
    ("caudate", (14, 14, 8), (4, 10, 9)),
    ("putamen", (26, 6, 2), (5, 13, 9)),
    ("hippocampus", (26, -12, -10), (6, 16, 6)),
    ("amygdala", (24, 6, -12), (6, 6, 6)),
]


def drawn_head(rotation=(0.0, 0.0, 0.0), shift=(0.0, 0.0, 0.0), parts=PARTS, stem=True):
    """Class map and true ids of a head."""
    middle = (np.array(SHAPE) - 1) / 2 + shift
    points = (np.stack(np.indices(SHAPE), -1) - middle) @ euler2mat(*rotation)
    classes, ids = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.int16)
    for name, centre, radii in parts:
        mirrored = np.stack([np.abs(points[..., 0]), points[..., 1], points[..., 2]], -1)
        mask = (((mirrored - centre) / radii) ** 2).sum(-1) < 1
        answered = FREESURFER_OUTPUT[name]
        classes[mask] = STRUCTURES.index(name)
        ids[mask] = np.where(points[..., 0] >= 0, answered.right, answered.left)[mask]
    if stem:
        mask = (((points - (0, -10, -24)) / (9, 9, 16)) ** 2).sum(-1) < 1
        classes[mask], ids[mask] = STRUCTURES.index("brain-stem"), 16
    return classes, ids


@pytest.mark.parametrize(
    ("rotation", "shift"),
    [
        ((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)),
        ((0.0, 0.0, 0.0), (9.0, 4.0, -3.0)),
        ((0.33, 0.0, 0.0), (-4.0, 0.0, 0.0)),
        ((0.0, -0.33, 0.0), (3.0, 0.0, 0.0)),
        ((-0.2, 0.25, 0.3), (-5.0, 5.0, 5.0)),
    ],
)
def test_each_structure_gets_the_ids_of_its_side(rotation, shift):
    classes, ids = drawn_head(rotation, shift)
    found = split_sides(classes, STRUCTURES).ids
    assert found.dtype == np.int16
    for label in np.unique(ids[ids > 0]):
        both = 2 * ((found == label) & (ids == label)).sum()
        assert both / ((found == label).sum() + (ids == label).sum()) > 0.97, label


def test_left_is_where_the_first_axis_begins():
    found = split_sides(drawn_head()[0], STRUCTURES).ids
    left, right = (np.argwhere(found == label)[:, 0].mean() for label in (17, 53))
    assert left < right


def test_a_few_structures_are_enough():
    few = [part for part in PARTS if part[0] in ("thalamus", "putamen")]
    classes, ids = drawn_head((0.1, 0.1, 0.0), (6.0, 0.0, 0.0), few, stem=False)
    assert (split_sides(classes, STRUCTURES).ids == ids).mean() > 0.999


def test_a_backbones_own_class_order_is_respected():
    names = ("background", "putamen", "brain-stem", "csf")
    classes, ids = drawn_head(parts=[part for part in PARTS if part[0] == "putamen"])
    own = np.select(
        [classes == STRUCTURES.index(n) for n in names], list(range(len(names)))
    ).astype(np.uint8)
    own[:3] = 3
    found = split_sides(own, names).ids
    assert (found[:3] == 24).all()
    assert (found[3:] == ids[3:]).mean() > 0.999


def test_a_part_that_barely_crosses_the_middle_stays_whole():
    classes, _ = drawn_head()
    middle = SHAPE[0] // 2
    classes[middle - 1 : middle + 25, 60:64, 90:94] = STRUCTURES.index("amygdala")
    found = split_sides(classes, STRUCTURES).ids
    assert (found[middle - 1 : middle + 25, 60:64, 90:94] == 54).all()


def test_nothing_but_background_stays_background():
    empty = np.zeros((20, 20, 20), np.uint8)
    assert not split_sides(empty, STRUCTURES).ids.any()
    assert midsagittal_plane(empty, STRUCTURES).offset == 9.5


def test_one_voxel_does_not_break_it():
    one = np.zeros((20, 20, 20), np.uint8)
    one[3, 4, 5] = STRUCTURES.index("hippocampus")
    assert np.count_nonzero(split_sides(one, STRUCTURES).ids) == 1


def test_volumes_are_counted_by_side_in_cubic_millimetres():
    ids = np.zeros((4, 4, 4), np.int16)
    ids[0], ids[1, 0], ids[2, 0, 0], ids[3, 0, 0] = 17, 53, 16, 24
    found = volumes_mm3(ids, np.diag([-1.0, 1.0, 2.5, 1.0]))
    assert found["left-hippocampus"] == 40
    assert found["right-hippocampus"] == 10
    assert found["brain-stem"] == found["csf"] == 2.5
    assert found["left-thalamus"] == 0
    assert len(found) == 30


def test_a_voxel_of_a_sheared_grid_is_smaller_than_its_edges_say():
    ids = np.full((1, 1, 1), 16)
    affine = np.eye(4)
    affine[:3, 1] = 0.6, 0.8, 0.0  # still 1 mm long
    assert volumes_mm3(ids, affine)["brain-stem"] == pytest.approx(0.8)


def test_a_planes_score_is_the_share_of_voxels_that_meet_their_own_class():
    classes, _ = drawn_head((0.1, -0.2, 0.1), (4.0, 2.0, -3.0))
    guides = np.array([name not in ("background", "csf") for name in STRUCTURES])
    guides = np.pad(guides, (0, 256 - len(guides)))
    box = box_of(classes)
    drawn = _Voxels.of(classes, box, guides).drawn(500)
    assert (np.bincount(drawn.kinds)[np.unique(classes)[1:]] == 500).all()
    places = drawn.points.astype(int)
    assert (classes[tuple(places.T)] == drawn.kinds).all()
    assert len(np.unique(places, axis=0)) == len(places)
    mirror, padded = _Mirror(classes, box, drawn.points.mean(axis=0)), np.pad(classes, 60)
    for yaw, roll in [(0.0, 0.0), (5.0, -10.0), (-25.0, 25.0)]:
        for offset, score in zip(
            (-8.0, 0.0, 3.0), mirror.scores(yaw, roll, (-8.0, 0.0, 3.0), drawn), strict=True
        ):
            plane = mirror.plane(yaw, roll, offset)
            normal = np.array(plane.normal, np.float32)
            away = drawn.points @ normal - np.float32(plane.offset)
            image = np.rint(drawn.points - (2 * away)[:, None] * normal).astype(int) + 60
            image = np.clip(image, 0, np.array(padded.shape) - 1)
            same = (padded[tuple(image.T)] == drawn.kinds).mean()
            assert score == pytest.approx(same - 2e-3 * (yaw**2 + roll**2) / 625, abs=1e-12)


def test_where_a_head_lies_in_its_volume_does_not_move_its_sides():
    classes, _ = drawn_head((0.1, 0.1, 0.0))
    alone = classes[box_of(classes)]
    apart = np.pad(alone, ((3, 9), (0, 5), (7, 0)))
    found = split_sides(apart, STRUCTURES).ids[box_of(apart)]
    assert (found == split_sides(alone, STRUCTURES).ids).mean() > 0.9999
