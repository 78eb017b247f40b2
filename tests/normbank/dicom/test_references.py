"""Labels as DICOM SEG: on the series' own grid, with the ids of the scheme, or refused."""

import highdicom as hd
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import Code, codes
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, generate_uid

from normbank.anatomy import FREESURFER_OUTPUT, LABEL_SCHEMES, ids_of_sides, structures_of
from normbank.dicom.references import read_seg_labels
from normbank.dicom.segments import understood
from normbank.dicom.series import open_series
from normbank.errors import DicomError, GeometryMismatchError, NormbankError, UnknownLabelError
from normbank.imaging.scan import Limits
from tests.support.dicom import Phantom, as_bytes, write_series

LIMITS = Limits(1 << 24, 1 << 26, 1 << 22, 30.0)
LEFT = Code("7771000", "SCT", "Left")
RIGHT = Code("24028007", "SCT", "Right")
THING = Code("85756007", "SCT", "Tissue")
CODED = [
    ("one", codes.SCT.Hippocampus, LEFT),
    ("two", codes.SCT.Hippocampus, RIGHT),
    ("three", codes.SCT.BrainStem, None),
]
NAMED = [
    ("Left-Hippocampus", THING, None),
    ("hippocampus_right", THING, None),
    ("Brain-Stem", THING, None),
]
IDS = np.array([0, 17, 53, 16])


def described(number, label, code, side):
    return (
        hd.seg.SegmentDescription(
            number,
            label,
            codes.SCT.AnatomicalStructure,
            code,
            hd.seg.SegmentAlgorithmTypeValues.MANUAL,
            anatomic_regions=None,
        )
        if side is None
        else _sided(number, label, code, side)
    )


def _sided(number, label, code, side):
    segment = described(number, label, code, None)
    modifier = hd.sr.CodedConcept(*side)
    segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [
        modifier
    ]
    return segment


def drawn_labels(shape):
    """(columns, rows, slices) numbers of three segments that nothing mirrors."""
    numbers = np.zeros(shape, np.uint8)
    numbers[3:9, 4:7, 2:9] = 1
    numbers[12:20, 10:17, 5:7] = 2
    numbers[10:12, 2:18, 8:13] = 3
    return numbers


def seg_of(headers, numbers, kind="LABELMAP", segments=CODED, syntax=None, omit=True):
    """highdicom's SEG of source headers in the order of the slices of `numbers`."""
    sources = []
    for header in headers:
        source = pydicom.Dataset(header)
        source.file_meta = header.file_meta
        sources.append(source)
    plain = RLELossless if kind == "LABELMAP" else ExplicitVRLittleEndian
    return hd.seg.Segmentation(
        sources, np.ascontiguousarray(numbers.transpose(2, 1, 0)), kind,
        [described(i, *one) for i, one in enumerate(segments, 1)],
        generate_uid(entropy_srcs=["series"]), 100, generate_uid(entropy_srcs=["seg"]), 1,
        "Drawn", "Pencil", "1", "1",
        transfer_syntax_uid=syntax or plain,
        omit_empty_frames=omit,
    )  # fmt: skip


@pytest.fixture
def series(tmp_path):
    phantom = Phantom.placed("sagittal", (1, -1, -1), (4.0, -7.0, 12.0))
    return open_series(write_series(phantom.images(), tmp_path / "scan"), LIMITS)


@pytest.fixture
def saved(tmp_path):
    def saved(seg, change=None):
        if change is not None:
            change(seg)
        path = tmp_path / "seg"
        seg.save_as(path)
        return path

    return saved


@pytest.mark.parametrize("segments", [CODED, NAMED], ids=["codes", "labels"])
@pytest.mark.parametrize("omit", [True, False], ids=["some-frames", "all-frames"])
@pytest.mark.parametrize("kind", ["LABELMAP", "BINARY"])
def test_labels_come_back_as_they_were_drawn(series, saved, kind, omit, segments):
    numbers = drawn_labels(series.shape)
    path = saved(seg_of(series.headers, numbers, kind, segments, omit=omit))
    labels = read_seg_labels(path, series, LIMITS, "freesurfer")
    np.testing.assert_array_equal(labels.data, IDS[numbers])
    np.testing.assert_array_equal(labels.affine, series.affine)
    assert labels.data.dtype == np.int32


@pytest.mark.parametrize("kind", ["LABELMAP", "BINARY"])
def test_the_order_of_the_sources_does_not_matter(series, saved, kind):
    numbers = drawn_labels(series.shape)
    shuffled = np.random.default_rng(1).permutation(series.shape[2])
    headers = [series.headers[i] for i in shuffled]
    path = saved(seg_of(headers, numbers[:, :, shuffled], kind))
    labels = read_seg_labels(path, series, LIMITS, "freesurfer")
    np.testing.assert_array_equal(labels.data, IDS[numbers])


def test_labels_of_an_enhanced_image_are_matched_to_its_frames(tmp_path, saved):
    phantom = Phantom.placed("coronal")
    order = np.random.default_rng(2).permutation(phantom.voxels.shape[2])
    (tmp_path / "one").write_bytes(as_bytes(phantom.enhanced(order.tolist())))
    series = open_series(tmp_path / "one", LIMITS)
    numbers = drawn_labels(series.shape)
    full = pydicom.dcmread(tmp_path / "one")
    path = saved(seg_of([full], numbers[:, :, order]))
    labels = read_seg_labels(path, series, LIMITS, "freesurfer")
    np.testing.assert_array_equal(labels.data, IDS[numbers])


@pytest.mark.parametrize("scheme", LABEL_SCHEMES)
def test_ids_are_those_of_the_scheme(series, saved, scheme):
    path = saved(seg_of(series.headers, drawn_labels(series.shape)))
    labels = read_seg_labels(path, series, LIMITS, scheme)
    table, sides = structures_of(scheme), ids_of_sides(scheme)
    left, right = labels.data[4, 5, 4], labels.data[14, 12, 5]
    assert (left, right) == sides["hippocampus"]
    assert table[labels.data[10, 5, 10]] == "brain-stem"


@pytest.mark.parametrize("scheme", LABEL_SCHEMES)
def test_every_structure_has_ids_that_mean_it(scheme):
    sides = ids_of_sides(scheme)
    assert set(sides) == set(FREESURFER_OUTPUT)
    for name, pair in sides.items():
        assert {structures_of(scheme)[i] for i in pair} == {name}


def test_a_mapping_names_what_nobody_understands(series, saved):
    segments = [("blob", THING, None), ("stem", THING, None), ("Brain-Stem", THING, None)]
    path = saved(seg_of(series.headers, drawn_labels(series.shape), segments=segments))
    with pytest.raises(UnknownLabelError, match=r"1 \(blob\), 2 \(stem\)") as caught:
        read_seg_labels(path, series, LIMITS, "freesurfer")
    assert caught.value.code == "unknown_segments"
    labels = read_seg_labels(path, series, LIMITS, "freesurfer", {"blob": 17, "2": 53})
    np.testing.assert_array_equal(labels.data, IDS[drawn_labels(series.shape)])


def test_a_paired_structure_needs_a_side(series, saved):
    segments = [("Hippocampus", codes.SCT.Hippocampus, None)] * 3
    path = saved(seg_of(series.headers, drawn_labels(series.shape), segments=segments))
    with pytest.raises(UnknownLabelError, match="side"):
        read_seg_labels(path, series, LIMITS, "freesurfer")


@pytest.mark.parametrize(
    ("label", "meaning"),
    [
        ("Left Hippocampus", ("hippocampus", "left")),
        ("left-hippocampus", ("hippocampus", "left")),
        ("Hippocampus Left", ("hippocampus", "left")),
        ("Right-Thalamus-Proper", ("thalamus", "right")),
        ("caudate_nucleus_left", ("caudate", "left")),
        ("brainstem", ("brain-stem", None)),
        ("3rd-Ventricle", ("third-ventricle", None)),
        ("Right-VentralDC", ("ventral-dc", "right")),
        ("ctx-rh-superiorfrontal", ("cerebral-gm", "right")),
        ("wm-lh-insula", ("cerebral-wm", "left")),
        ("Right Cerebellum WM", ("cerebellum-wm", "right")),
        ("left inferior lateral ventricle", ("inferior-lateral-ventricle", "left")),
        ("liver", (None, None)),
        ("left or right hippocampus", (None, None)),
    ],
)
def test_labels_are_understood_as_common_tools_write_them(label, meaning):
    assert understood(label) == meaning


def other_series(seg):
    seg.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3"


def other_reference(seg):
    seg.FrameOfReferenceUID = "1.2.3"


def fractional(seg):
    seg.SegmentationType = "FRACTIONAL"


def moved(seg):
    frame = seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    frame.ImagePositionPatient = [float(v) + 1.5 for v in frame.ImagePositionPatient]


def turned(seg):
    shared = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    row, column = shared.ImageOrientationPatient[:3], shared.ImageOrientationPatient[3:]
    shared.ImageOrientationPatient = [*column, *row]


def swapped_places(seg):
    frames = seg.PerFrameFunctionalGroupsSequence
    first, last = (frames[i].PlanePositionSequence[0] for i in (0, -1))
    first.ImagePositionPatient, last.ImagePositionPatient = (
        last.ImagePositionPatient,
        first.ImagePositionPatient,
    )


def cut_off(seg):
    seg.PixelData = seg.PixelData[:-200]


def not_described(seg):
    seg.SegmentSequence = seg.SegmentSequence[:2]


@pytest.mark.parametrize(
    ("change", "kind", "error", "code"),
    [
        (other_series, "LABELMAP", DicomError, "seg_of_another_series"),
        (other_reference, "LABELMAP", DicomError, "seg_of_another_series"),
        (fractional, "BINARY", DicomError, "fractional_segmentation"),
        (moved, "LABELMAP", GeometryMismatchError, "geometry_mismatch"),
        (turned, "LABELMAP", GeometryMismatchError, "geometry_mismatch"),
        (swapped_places, "LABELMAP", GeometryMismatchError, "geometry_mismatch"),
        (cut_off, "BINARY", DicomError, "broken_pixels"),
        (cut_off, "LABELMAP", NormbankError, "broken_pixels"),
        (not_described, "BINARY", NormbankError, "unknown_segments"),
        (not_described, "LABELMAP", NormbankError, "unknown_segments"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_seg_that_does_not_fit_is_refused(series, saved, change, kind, error, code):
    path = saved(seg_of(series.headers, drawn_labels(series.shape), kind), change)
    with pytest.raises(error) as caught:
        read_seg_labels(path, series, LIMITS, "freesurfer")
    assert caught.value.code == code


def test_overlapping_segments_are_refused(series, saved):
    masks = np.stack([drawn_labels(series.shape) == 1] * 3, axis=-1).transpose(2, 1, 0, 3)
    path = saved(seg_of_masks(series.headers, masks))
    with pytest.raises(DicomError) as caught:
        read_seg_labels(path, series, LIMITS, "freesurfer")
    assert caught.value.code == "overlapping_segments"


def seg_of_masks(headers, masks):
    """A BINARY SEG of (slices, rows, columns, segments)."""
    return hd.seg.Segmentation(
        list(headers), masks.astype(np.uint8), "BINARY",
        [described(i, *one) for i, one in enumerate(CODED, 1)],
        "1.2.3.4", 100, "1.2.3.5", 1, "Drawn", "Pencil", "1", "1",
    )  # fmt: skip


def test_a_scan_is_no_segmentation(series):
    with pytest.raises(DicomError) as caught:
        read_seg_labels(series.files[0], series, LIMITS, "freesurfer")
    assert caught.value.code == "not_a_segmentation"
