from __future__ import annotations

from itertools import permutations, product
from types import SimpleNamespace

import numpy as np
import pytest

from normbank.anatomy import STRUCTURES, labels_to_classes
from normbank.errors import EmptyScanError
from normbank.imaging import brain
from normbank.imaging.geometry import Geometry
from normbank.imaging.scan import Scan
from pipeline.answer import erase_air, keep_brain
from pipeline.crop import crop_to_brain
from pipeline.segment import segment_scan
from simulate.phantom import draw_head, head_affine

SHAPE = (72, 84, 96)
SPACING_MM = 2.5
SPACE = SimpleNamespace(
    classes=STRUCTURES, spacing_mm=2.5, window=(72, 80, 60), percentile=98.0, slice_axis=2
)
STEP = 1 / len(STRUCTURES)


def painted_head(seed: int = 1, *, neck: bool = True) -> Scan:
    """A head whose brightness is its class number, so that a rule can read it."""
    labels = draw_head(seed, SHAPE, SPACING_MM)
    head = np.where(labels >= 500, 0, labels)
    classes = labels_to_classes(head.astype(np.int32), "freesurfer", STRUCTURES)
    bright = classes.astype(np.float32)
    if neck:
        bright[labels >= 500] = 0.3  # dim, and no class of its own
    return Scan(bright, head_affine(SHAPE, SPACING_MM))


def read_brightness(unit: float):  # type: ignore[no-untyped-def]
    """A network that needs no learning: it rounds brightness to a class."""

    def predict(slices: np.ndarray, **_: bool) -> np.ndarray:
        return np.clip(np.rint(slices * unit), 0, len(STRUCTURES) - 1).astype(np.uint8)

    return predict


def unit_of(scan: Scan) -> float:
    """What the brightness was divided by on its way into the window."""
    found = []

    def spy(slices: np.ndarray) -> np.ndarray:
        found.append(slices.max())
        return read_brightness(1.0)(slices)

    with pytest.raises(EmptyScanError):
        crop_to_brain(Scan(scan.data, scan.affine), lambda s, **_: spy(s) * 0, SPACE)
    return float(scan.data.max() / found[0])


def stored_otherwise(scan: Scan, order: tuple[int, ...], flips: tuple[bool, ...]) -> Scan:
    """The same head, its axes reordered and reversed in the file."""
    data = scan.data.transpose(order)
    turn = np.zeros((4, 4))
    turn[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        turn[old, new] = -1 if flip else 1
        turn[old, 3] = scan.shape[old] - 1 if flip else 0
    data = data[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    return Scan(np.ascontiguousarray(data), scan.affine @ turn)


def restored(ids: np.ndarray, order: tuple[int, ...], flips: tuple[bool, ...]) -> np.ndarray:
    ids = ids[tuple(slice(None, None, -1 if f else 1) for f in flips)]
    return ids.transpose(np.argsort(order))


def test_the_48_ways_to_store_a_scan_get_the_same_labels_sides_included() -> None:
    scan = painted_head()
    predictor = read_brightness(unit_of(scan))
    expected = segment_scan(scan, predictor, SPACE).ids
    assert {2, 41, 17, 53, 16} <= set(np.unique(expected))
    for order in permutations(range(3)):
        for flips in product((False, True), repeat=3):
            found = segment_scan(stored_otherwise(scan, order, flips), predictor, SPACE).ids
            np.testing.assert_array_equal(restored(found, order, flips), expected)


def test_left_in_the_answer_is_the_patients_left() -> None:
    scan = painted_head()
    ids = segment_scan(scan, read_brightness(unit_of(scan)), SPACE).ids
    columns = {side: np.argwhere(ids == side)[:, 0].mean() for side in (17, 53)}
    assert columns[17] < columns[53]  # the first axis of RAS+ grows to the right


@pytest.mark.parametrize("shift", [(0, 0, 0), (14, -10, 8), (-12, 9, -6)])
def test_a_brain_is_found_wherever_it_lies(shift: tuple[int, int, int]) -> None:
    head = painted_head()
    data = np.pad(head.data, 20)
    moved = Scan(np.roll(data, shift, (0, 1, 2)), head.affine)
    cropped = crop_to_brain(moved, read_brightness(unit_of(head)), SPACE)
    # Fluid and the stem go on down the neck; all else belongs into the window.
    inside = np.argwhere((moved.data >= 1) & (moved.data <= STRUCTURES.index("ventral-dc")))
    low, high = inside.min(0), inside.max(0)
    start = np.array(cropped.window.start)
    end = start + SPACE.window
    assert (start <= low).all()
    assert (end > high).all()


def test_a_first_look_that_saw_half_of_the_brain_is_made_good() -> None:
    scan = painted_head()
    unit = unit_of(scan)
    sound = crop_to_brain(scan, read_brightness(unit), SPACE)
    looked: list[int] = []

    def misled(slices: np.ndarray, **_: bool) -> np.ndarray:
        classes = read_brightness(unit)(slices)
        looked.append(len(slices))
        if len(looked) == 1:
            classes[len(classes) // 2 :] = 0  # nothing of what lies high
        return classes

    found = crop_to_brain(scan, misled, SPACE)
    assert len(looked) > 2
    assert np.abs(np.subtract(found.window.start, sound.window.start)).max() <= 1


def test_looks_are_few() -> None:
    scan = painted_head()
    looked: list[int] = []

    def count(slices: np.ndarray, **_: bool) -> np.ndarray:
        looked.append(len(slices))
        return read_brightness(unit)(slices)

    unit = unit_of(scan)
    crop_to_brain(scan, count, SPACE)
    assert len(looked) == 2
    assert sum(looked) * 6.0 < 1.3 * SHAPE[2] * SPACING_MM


def test_a_stripped_brain_is_found_as_well_as_a_whole_head() -> None:
    centres = []
    for neck in (True, False):
        scan = painted_head(neck=neck)
        centres.append(crop_to_brain(scan, read_brightness(unit_of(scan)), SPACE).window.start)
    assert np.abs(np.subtract(*centres)).max() <= 4


def test_a_scan_in_which_the_network_sees_no_brain_is_refused() -> None:
    scan = painted_head()
    with pytest.raises(EmptyScanError) as refused:
        segment_scan(scan, lambda slices, **_: np.zeros(slices.shape, np.uint8), SPACE)
    assert refused.value.code == "no_brain"


def test_air_is_not_computed() -> None:
    scan = painted_head(neck=False)
    counted = []

    def count(slices: np.ndarray, **_: bool) -> np.ndarray:
        counted.append(len(slices))
        assert slices.any((1, 2)).all() or len(counted) <= 3  # the coarse looks
        return read_brightness(unit)(slices)

    unit = unit_of(scan)
    segment_scan(scan, count, SPACE)
    assert counted[-1] < SPACE.window[2]


def test_only_the_whole_run_of_slices_is_said_to_be_one() -> None:
    scan = painted_head()
    unit, said = unit_of(scan), []

    def note(slices: np.ndarray, *, consecutive: bool = False) -> np.ndarray:
        said.append(consecutive)
        return read_brightness(unit)(slices)

    segment_scan(scan, note, SPACE)
    assert said == [False] * (len(said) - 1) + [True]
    assert len(said) > 1


def test_nothing_is_labelled_where_nothing_was_measured() -> None:
    volume = np.zeros((20, 24, 28), np.float32)
    volume[4:16, 4:16, 4:16] = 1
    volume[8:10, 8:10, 8:10] = 0  # dark, as nulled fluid, and shut in
    volume[10:12, 10:12, 10:] = 0  # a furrow, open to the outside
    classes = np.full(volume.shape, 3, np.uint8)
    erased = erase_air(classes, volume)
    expected = np.where(volume == 1, 3, 0)
    expected[8:10, 8:10, 8:10] = 3
    np.testing.assert_array_equal(erased, expected)
    assert (classes == 3).all()


def test_a_network_that_draws_fluid_around_a_stripped_brain_is_not_believed() -> None:
    scan = painted_head(neck=False)
    unit, fluid = unit_of(scan), STRUCTURES.index("csf")

    def generous(slices: np.ndarray, *, consecutive: bool = False) -> np.ndarray:
        classes = read_brightness(unit)(slices)
        return np.where(consecutive & (classes == 0), fluid, classes).astype(np.uint8)

    sound = segment_scan(scan, read_brightness(unit), SPACE)
    found = segment_scan(scan, generous, SPACE)
    assert set(np.unique(found.ids[scan.data == 0])) == {0}
    assert found.volumes_mm3["csf"] == pytest.approx(sound.volumes_mm3["csf"], rel=0.05)


def test_islands_outside_the_brain_are_erased() -> None:
    classes = np.zeros((20, 20, 20), np.uint8)
    classes[4:16, 4:16, 4:16] = 3
    classes[1, 1, 1] = 5
    kept = keep_brain(classes)
    assert kept[1, 1, 1] == 0
    assert (kept == 3).sum() == 12**3


def test_the_answer_measures_volumes_in_mm3() -> None:
    scan = painted_head()
    found = segment_scan(scan, read_brightness(unit_of(scan)), SPACE)
    voxels = int((found.ids == 17).sum())
    assert found.volumes_mm3["left-hippocampus"] == pytest.approx(voxels * SPACING_MM**3)
    assert found.quality["brain_ml"] > 500
    assert set(found.timings_s) == {"frame", "network", "sides", "back"}
    assert Geometry.of(scan, 2.5).is_identity


WIDE = SimpleNamespace(**{**vars(SPACE), "window": (104, 120, 60)})
"""A window with room around the head."""


def shapes_seen(scan: Scan, space: SimpleNamespace) -> tuple[list[tuple[int, ...]], np.ndarray]:
    """Sizes of the slices that are labelled, call by call, and the labels."""
    seen: list[tuple[int, ...]] = []
    unit = unit_of(scan)

    def note(slices: np.ndarray, *, consecutive: bool = False) -> np.ndarray:
        if consecutive:
            seen.append(slices.shape[1:])
        return read_brightness(unit)(slices)

    return seen, segment_scan(scan, note, space).ids


def test_the_network_is_shown_the_brain_and_little_more(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = painted_head(neck=False)
    (shown,), ids = shapes_seen(scan, WIDE)
    assert shown[0] < 104
    assert shown[1] < 120
    assert all(size % 8 == 0 for size in shown)
    monkeypatch.setattr(brain, "_focus", lambda *_: (slice(None), slice(None)))
    (whole,), expected = shapes_seen(scan, WIDE)
    assert whole == (104, 120)
    np.testing.assert_array_equal(ids, expected)


def test_a_brain_that_reaches_out_of_the_focus_is_labelled_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scan = painted_head(neck=False)
    _, expected = shapes_seen(scan, WIDE)
    monkeypatch.setattr(brain, "_focus", lambda *_: (slice(40, 64), slice(48, 72)))
    shown, ids = shapes_seen(scan, WIDE)
    assert shown == [(24, 24), (104, 120)]
    np.testing.assert_array_equal(ids, expected)


@pytest.mark.parametrize("shift", [(0, 0, 0), (9, -7, 6)])
def test_looks_at_1_mm_are_at_2_mm_and_find_the_crown(shift: tuple[int, int, int]) -> None:
    space = SimpleNamespace(**{**vars(SPACE), "spacing_mm": 1.0, "window": (96, 112, 80)})
    size = np.array((120, 136, 130))
    middle = size / 2 + shift
    x, y, z = np.ogrid[: size[0], : size[1], : size[2]]
    distance = (
        ((x - middle[0]) / 40) ** 2 + ((y - middle[1]) / 50) ** 2 + ((z - middle[2]) / 35) ** 2
    )
    volume = (distance < 1).astype(np.float32)
    looked: list[tuple[int, ...]] = []

    def cerebrum(slices: np.ndarray, **_: bool) -> np.ndarray:
        looked.append(slices.shape)
        return np.where(slices > 0.5, STRUCTURES.index("cerebral-wm"), 0).astype(np.uint8)

    framing = brain.frame_brain(volume, cerebrum, space)
    assert {shape[1:] for shape in looked} == {(48, 56)}
    assert sum(shape[0] for shape in looked) <= 16
    crown = middle[2] + 35
    assert framing.window.start[2] + 80 == pytest.approx(crown + 10, abs=3)
    assert framing.window.centre[:2] == pytest.approx(middle[:2], abs=2)
