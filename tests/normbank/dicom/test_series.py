"""Series that are right, whatever they are written in, become the scan that they show."""

import highdicom as hd
import numpy as np
import pydicom
import pytest

from normbank.dicom.listing import series_of_files
from normbank.dicom.series import open_series
from normbank.imaging.scan import Limits
from tests.support.dicom import (
    CANARY,
    COMPRESSED,
    PLAIN_SYNTAXES,
    PLANES,
    SIGNS,
    Phantom,
    as_bytes,
    compressed,
    drawn_voxels,
    write_series,
)

LIMITS = Limits(1 << 24, 1 << 26, 1 << 22, 30.0)


def check(series, phantom, voxels=None):
    """That the series is the phantom's volume."""
    np.testing.assert_allclose(series.affine, phantom.affine, atol=2e-5)
    expected = phantom.voxels * phantom.slope + phantom.intercept if voxels is None else voxels
    scan = series.read()
    assert scan.data.dtype == np.float32
    assert scan.shape == series.shape == phantom.voxels.shape
    np.testing.assert_array_equal(scan.data, expected.astype(np.float32))
    np.testing.assert_array_equal(scan.affine, series.affine)


def highdicom_volume(paths):
    """Voxels (columns, rows, slices) and affine to RAS+, as highdicom assembles them."""
    volume = hd.get_volume_from_series([pydicom.dcmread(path) for path in paths])
    affine = np.diag([-1, -1, 1, 1]) @ volume.affine  # slice, row, column to LPS+
    return volume.array.transpose(2, 1, 0), affine[:, [2, 1, 0, 3]]


def same_grid(series, voxels, affine):
    """The series' voxels and affine, its slices in the order of the other's."""
    if np.dot(affine[:3, 2], series.affine[:3, 2]) < 0:
        last = voxels.shape[2] - 1
        voxels, affine = (
            voxels[:, :, ::-1],
            affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, last], [0, 0, 0, 1]]),
        )
    return voxels, affine


@pytest.mark.parametrize("degrees", [(0, 0, 0), (8.0, -11.0, 17.0)], ids=["straight", "oblique"])
@pytest.mark.parametrize("signs", SIGNS, ids=str)
@pytest.mark.parametrize("plane", PLANES)
def test_every_plane_and_sign_is_assembled_as_highdicom_does(tmp_path, plane, signs, degrees):
    phantom = Phantom.placed(plane, signs, degrees, slope=2.25, intercept=0.0)
    series = open_series(write_series(phantom.images(), tmp_path / "in"), LIMITS)
    check(series, phantom)
    voxels, affine = same_grid(series, *highdicom_volume(sorted((tmp_path / "in").iterdir())))
    np.testing.assert_array_equal(series.read().data, voxels.astype(np.float32))
    np.testing.assert_allclose(series.affine, affine, atol=2e-5)


@pytest.mark.parametrize("plane", PLANES)
def test_enhanced_images_are_the_same_volume_whatever_the_order_of_frames(tmp_path, plane):
    phantom = Phantom.placed(plane, (1, -1, 1), (5.0, 3.0, -9.0), slope=0.5, intercept=0.0)
    order = np.random.default_rng(3).permutation(phantom.voxels.shape[2])
    path = tmp_path / "one"
    path.write_bytes(as_bytes(phantom.enhanced(order.tolist())))
    series = open_series(path, LIMITS)
    check(series, phantom)
    assert series.enhanced
    assert series.files == (path,)
    assert [one.frame for one in series.slices] == np.argsort(order).tolist()


@pytest.mark.parametrize(
    ("syntax", "preamble"),
    [
        *((syntax, True) for syntax in PLAIN_SYNTAXES),
        *((syntax, False) for syntax in PLAIN_SYNTAXES if syntax != "deflated"),
    ],
)
def test_uncompressed_syntaxes_are_read(tmp_path, syntax, preamble):
    phantom = Phantom()
    images = write_series(
        phantom.images(), tmp_path, lambda i: as_bytes(i, PLAIN_SYNTAXES[syntax], preamble)
    )
    check(open_series(images, LIMITS), phantom)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_syntaxes_are_read(tmp_path, kind):
    phantom = Phantom(slope=1.5)
    images = write_series(
        phantom.images(), tmp_path / "in", lambda i: compressed(i, kind, tmp_path)
    )
    check(open_series(images, LIMITS), phantom)


@pytest.mark.parametrize("kind", COMPRESSED)
@pytest.mark.parametrize("bits", [12, 16])
def test_compressed_signed_pixels_keep_their_sign(tmp_path, kind, bits):
    voxels = drawn_voxels().astype(np.int16) - 2048
    phantom = Phantom(voxels=voxels, bits=bits, intercept=2048)
    images = write_series(
        phantom.images(), tmp_path / "in", lambda i: compressed(i, kind, tmp_path)
    )
    check(open_series(images, LIMITS), phantom)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_pixels_of_a_byte_are_read(tmp_path, kind):
    phantom = Phantom(voxels=(drawn_voxels() // 16).astype(np.uint8), bits=8)
    images = write_series(
        phantom.images(), tmp_path / "in", lambda i: compressed(i, kind, tmp_path)
    )
    check(open_series(images, LIMITS), phantom)


@pytest.mark.parametrize("kind", COMPRESSED)
def test_compressed_multi_frame_images_are_read(tmp_path, kind):
    phantom = Phantom()
    path = tmp_path / "one"
    path.write_bytes(compressed(phantom.enhanced(), kind, tmp_path))
    check(open_series(path, LIMITS), phantom)


@pytest.mark.parametrize("syntax", ["explicit", "big-endian"])
@pytest.mark.parametrize(("dtype", "bits"), [("u1", 8), ("i2", 16), ("i2", 12), ("u2", 16)])
def test_every_kind_of_pixel_is_read(tmp_path, syntax, dtype, bits):
    voxels = (drawn_voxels() // (16 if dtype == "u1" else 2)).astype(dtype)
    phantom = Phantom(voxels=voxels, bits=bits)
    folder = write_series(phantom.images(), tmp_path, lambda i: as_bytes(i, PLAIN_SYNTAXES[syntax]))
    if (dtype, syntax) == ("u1", "big-endian"):  # written as words
        for path in folder.iterdir():
            data = pydicom.dcmread(path)
            data.PixelData = np.frombuffer(data.PixelData, "<u2").astype(">u2").tobytes()
            data["PixelData"].VR = "OW"
            data.save_as(path)
    check(open_series(folder, LIMITS), phantom)


def test_the_sign_of_short_numbers_is_that_of_their_highest_bit(tmp_path):
    phantom = Phantom(voxels=drawn_voxels().astype(np.int16) - 2048, intercept=2048)
    unsigned = Phantom(voxels=phantom.voxels & 0x0FFF, bits=12, intercept=2048).images()
    assert unsigned[0].PixelRepresentation == 1
    check(open_series(write_series(unsigned, tmp_path), LIMITS), phantom)


def test_black_and_white_are_turned_round_where_the_least_is_white(tmp_path):
    phantom = Phantom()
    images = phantom.images()
    for image in images:
        image.PhotometricInterpretation = "MONOCHROME1"
        image.PixelData = (4095 - np.frombuffer(image.PixelData, np.uint16)).tobytes()
    check(open_series(write_series(images, tmp_path), LIMITS), phantom)


def test_each_slice_has_a_slope_of_its_own(tmp_path):
    phantom, images = Phantom(), Phantom().images()
    for k, image in enumerate(images):
        image.RescaleSlope = 1 + k / 8
    slopes = 1 + np.arange(len(images)) / 8
    check(open_series(write_series(images, tmp_path), LIMITS), phantom, phantom.voxels * slopes)


def test_drawings_in_unused_bits_are_cleared(tmp_path):
    phantom, images = Phantom(), Phantom().images()
    for image in images:
        pixels = np.frombuffer(image.PixelData, np.uint16) | 0x8000
        image.PixelData = pixels.tobytes()
        image.add_new(0x60000102, "US", 15)
    check(open_series(write_series(images, tmp_path), LIMITS), phantom)


def test_slices_with_gaps_keep_the_distance_of_their_positions(tmp_path):
    phantom = Phantom(spacing=(2.5, 2.0, 4.5))
    images = phantom.images()
    for image in images:
        image.SliceThickness, image.SpacingBetweenSlices = 3, 4.5
    check(open_series(write_series(images, tmp_path), LIMITS), phantom)


def test_sequences_of_unknown_length_are_passed_over(tmp_path):
    phantom, images = Phantom(), Phantom().images()
    for image in images:
        inner = pydicom.Dataset()
        inner.ReferencedSOPInstanceUID = "1.2.3"
        inner.PurposeOfReferenceCodeSequence = [pydicom.Dataset()]
        inner["PurposeOfReferenceCodeSequence"].is_undefined_length = True
        inner.is_undefined_length_sequence_item = True
        image.ReferencedImageSequence = [inner, inner]
        image["ReferencedImageSequence"].is_undefined_length = True
    series = open_series(write_series(images, tmp_path), LIMITS)
    check(series, phantom)
    assert len(series.headers[0].ReferencedImageSequence) == 2
    assert series.headers[0].ReferencedImageSequence[1].ReferencedSOPInstanceUID == "1.2.3"


def test_headers_are_those_that_pydicom_reads(tmp_path):
    phantom = Phantom.placed("coronal", (1, 1, -1))
    series = open_series(write_series(phantom.images(), tmp_path), LIMITS)
    for path, header in zip(series.files, series.headers, strict=True):
        read = pydicom.dcmread(path, stop_before_pixels=True)
        assert header == read
        assert header.file_meta == read.file_meta
        assert header.PatientName == CANARY
    numbers = [header.InstanceNumber for header in series.headers]
    assert numbers == list(range(phantom.voxels.shape[2], 0, -1))


@pytest.mark.parametrize("terms", ["ISO_IR 192", ["", "ISO 2022 IR 87"], "ISO_IR 100", "what"])
def test_names_in_other_scripts_are_those_that_pydicom_reads(tmp_path, terms):
    images = Phantom().images()
    name = {"ISO_IR 100": "Müller^Ä", "what": "Mueller"}.get(str(terms), "Yamada^Tarou=山田^太郎")
    for image in images:
        image.SpecificCharacterSet, image.PatientName = terms if terms != "what" else "", name
    folder = write_series(images, tmp_path)
    if terms == "what":
        for path in folder.iterdir():
            empty = b"\x08\x00\x05\x00CS\x00\x00"
            path.write_bytes(path.read_bytes().replace(empty, empty[:6] + b"\x04\x00what"))
    assert open_series(folder, LIMITS).headers[3].PatientName == name


def test_folder_noise_is_skipped_and_counted(tmp_path):
    phantom = Phantom()
    folder = write_series(phantom.images(), tmp_path / "deep" / "er").parent
    (folder / "LICENSE").write_text("Do as you like.")
    (folder / ".DS_Store").write_bytes(bytes(range(256)))
    (folder / "empty").touch()
    directory = pydicom.Dataset()
    directory.SOPClassUID = "1.2.840.10008.1.3.10"
    (folder / "DICOMDIR").write_bytes(as_bytes(directory))
    (folder / "link").symlink_to(folder / "LICENSE")
    series = open_series(folder, LIMITS)
    assert series.skipped == 4
    check(series, phantom)


def test_a_named_series_is_taken_out_of_several(tmp_path):
    first, second = Phantom(), Phantom(voxels=drawn_voxels(seed=5), series="2")
    write_series(first.images(), tmp_path / "a")
    write_series(second.images(), tmp_path / "b")
    wanted = second.images()[0].SeriesInstanceUID
    check(open_series(tmp_path, LIMITS, series_uid=wanted), second)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"AcquisitionMatrix": [0, 12, 10, 0]}, "interpolated_matrix"),
        ({"LossyImageCompression": "01"}, "lossy_compression"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, "derived_image"),
        ({"AcquisitionMatrix": [0, 24, 20, 0]}, None),
    ],
    ids=["interpolated", "lossy", "reformatted", "full-matrix"],
)
def test_doubts_are_flagged(tmp_path, change, code):
    images = Phantom().images()
    for image in images:
        for keyword, value in change.items():
            setattr(image, keyword, value)
    series = open_series(write_series(images, tmp_path), LIMITS)
    assert [flag.code for flag in series.flags] == ([code] if code else [])
    assert [flag.code for flag in series.read().flags] == ([code] if code else [])


def test_a_damaged_file_goes_with_the_series_that_are_listed(tmp_path):
    folder = write_series(Phantom().images(), tmp_path)
    last = max(folder.iterdir())
    last.write_bytes(last.read_bytes()[:300])
    (listed,) = series_of_files(folder.iterdir(), LIMITS)
    assert last in listed.files
    assert len(listed.files) == 16
    (alone,) = series_of_files([last], LIMITS)
    assert alone.files == (last,)


def test_a_series_number_that_is_none_is_listed_as_0(tmp_path):
    folder = write_series(Phantom().images(), tmp_path)
    for path in folder.iterdir():
        number = b"\x20\x00\x11\x00IS\x02\x007 "
        data = path.read_bytes()
        assert number in data
        path.write_bytes(data.replace(number, number[:-2] + b"x "))
    (listed,) = series_of_files(folder.iterdir(), LIMITS)
    assert (listed.number, len(listed.files)) == (0, 16)
