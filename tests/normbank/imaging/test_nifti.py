"""Files in, files out, and the files that must not get in."""

import gzip
import io

import nibabel as nib
import numpy as np
import pytest

from normbank.errors import (
    EmptyScanError,
    GeometryError,
    GeometryMismatchError,
    InvalidError,
    TooLargeError,
    UnknownFileKindError,
    UnreadableScanError,
)
from normbank.imaging import nifti
from normbank.imaging.headers import START_BYTES, kind_of

LIMITS = nifti.Limits(
    max_file_bytes=1 << 24, max_volume_bytes=1 << 24, max_voxels=1 << 20, min_thickness_mm=30.0
)
SHAPE = (40, 36, 32)
AFFINE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.1, -0.2, 0.3) @ np.diag([-1.0, 1.5, 1.25]), [10, -20, 30]
)


def voxels(dtype=np.int16):
    return np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)


def packed(image, ending=".nii.gz"):
    raw = image.to_bytes()
    return gzip.compress(raw, 1, mtime=0) if ending in (".nii.gz", ".mgz") else raw


def packed_start(count):
    """The first bytes of a gzipped image."""
    return packed(nib.Nifti1Image(voxels(), AFFINE))[:count]


def header_bytes(change, ending=".nii", data=None):
    """A NIfTI file whose header was changed behind nibabel's back."""
    raw = bytearray(nib.Nifti1Image(voxels() if data is None else data, AFFINE).to_bytes())
    header = nib.Nifti1Header(bytes(raw[:348]), check=False)
    change(header)
    raw[:348] = header.binaryblock
    return gzip.compress(bytes(raw), 1) if ending == ".nii.gz" else bytes(raw)


@pytest.fixture
def read(tmp_path):
    def read(data, reader=nifti.read_scan, limits=LIMITS):
        path = tmp_path / "spooled"
        path.write_bytes(data)
        return reader(path, limits)

    return read


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgh", ".mgz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_scan_is_read_as_nibabel_reads_it(read, ending, dtype):
    cls = nib.MGHImage if "mg" in ending else nib.Nifti1Image
    image = cls(voxels(dtype), AFFINE.astype(np.float32))
    data = packed(image, ending)
    assert kind_of(data[:START_BYTES]).ending == ending
    scan = read(data)
    again = cls.from_bytes(image.to_bytes())
    np.testing.assert_array_equal(scan.data, np.asarray(again.dataobj, np.float32))
    np.testing.assert_array_equal(scan.affine, again.affine)
    assert scan.data.dtype == np.float32
    np.testing.assert_allclose(scan.spacing_mm, (1, 1.5, 1.25), rtol=1e-6)


def test_big_endian_and_nifti_2_are_read(read):
    for image in (
        nib.Nifti1Image(voxels(), AFFINE, nib.Nifti1Header(endianness=">")),
        nib.Nifti2Image(voxels(), AFFINE),
    ):
        np.testing.assert_array_equal(read(packed(image)).data, voxels())


def test_scaling_is_applied_and_a_slope_of_zero_or_nan_is_none(read):
    def scaled(slope, intercept):
        def change(header):
            header["scl_slope"], header["scl_inter"] = slope, intercept

        return read(header_bytes(change)).data

    np.testing.assert_allclose(scaled(0.5, -3), voxels() * 0.5 - 3)
    np.testing.assert_array_equal(scaled(0, 7), voxels())
    np.testing.assert_array_equal(scaled(np.nan, np.nan), voxels())


def test_one_volume_stored_in_four_dimensions_is_one_volume(read):
    assert read(packed(nib.Nifti1Image(voxels()[..., None], AFFINE))).shape == SHAPE


def test_a_few_voxels_that_are_no_numbers_become_zero(read):
    data = voxels(np.float32)
    data[0, 0, :3] = np.nan, np.inf, -np.inf
    scan = read(packed(nib.Nifti1Image(data, AFFINE)))
    assert scan.data[0, 0, :3].tolist() == [0, 0, 0]
    assert np.isfinite(scan.data).all()


@pytest.mark.parametrize("value", [0, 7, np.nan])
def test_a_scan_without_content_is_refused(read, value):
    with pytest.raises(EmptyScanError):
        read(packed(nib.Nifti1Image(np.full(SHAPE, value, np.float32), AFFINE)))


@pytest.mark.parametrize("data", [b"h", b"\x5c\x01", b"hello", b"not an image at all " * 50])
def test_a_file_that_begins_like_no_image_is_of_no_known_kind(read, data):
    for bytes_ in (data, gzip.compress(data), gzip.compress(gzip.compress(data))):
        with pytest.raises(UnknownFileKindError):
            read(bytes_)


def test_an_image_gzipped_twice_is_of_no_known_kind(read):
    with pytest.raises(UnknownFileKindError):
        read(gzip.compress(packed(nib.Nifti1Image(voxels(), AFFINE))))


@pytest.mark.parametrize(
    "data",
    [b"", gzip.compress(b"", mtime=0), packed_start(5), packed_start(12)],
    ids=["nothing", "gzip of nothing", "5 bytes", "12 bytes"],
)
def test_a_file_that_ends_before_its_kind_shows_is_cut_off(read, data):
    with pytest.raises(UnreadableScanError) as caught:
        read(data)
    assert caught.value.code == "truncated"


def test_a_gzip_with_a_long_name_in_its_header_is_read(read):
    stream = io.BytesIO()
    with gzip.GzipFile("n" * 60_000, "wb", fileobj=stream) as file:
        file.write(nib.Nifti1Image(voxels(), AFFINE).to_bytes())
    np.testing.assert_array_equal(read(stream.getvalue()).data, voxels())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mgh", ".mgz"])
@pytest.mark.parametrize("kept", [0.02, 0.5, 0.98, -1])
def test_a_truncated_file_is_noticed(read, ending, kept):
    cls = nib.MGHImage if "mg" in ending else nib.Nifti1Image
    data = packed(cls(voxels(), AFFINE.astype(np.float32)), ending)
    if kept == -1 and ending == ".mgh":
        pytest.skip("its last bytes are an optional footer")
    cut = data[:kept] if kept == -1 else data[: int(len(data) * kept)]
    with pytest.raises(UnreadableScanError) as caught:
        read(cut)
    assert caught.value.code == "truncated"


def test_a_damaged_gzip_is_noticed(read):
    data = bytearray(packed(nib.Nifti1Image(voxels(), AFFINE)))
    data[len(data) // 2] ^= 0xFF
    with pytest.raises(UnreadableScanError):
        read(bytes(data))


def test_a_header_that_claims_2000_voxels_cubed_is_refused_before_a_voxel_is_read(read):
    def change(header):
        header["dim"][1:4] = 2000
        header["datatype"], header["bitpix"] = 64, 64

    bomb = gzip.compress(gzip.decompress(header_bytes(change, ".nii.gz"))[:352])
    with pytest.raises(TooLargeError):
        read(bomb)


def test_bytes_behind_the_voxels_are_not_read_for_ever(read):
    raw = nib.Nifti1Image(voxels(), AFFINE).to_bytes() + bytes(40 << 20)
    with pytest.raises(TooLargeError):
        read(gzip.compress(raw, 1))


def test_limits_on_file_and_volume_bytes_hold(read):
    data = packed(nib.Nifti1Image(voxels(), AFFINE))
    for limits in (
        nifti.Limits(1000, 1 << 24, 1 << 20, 30),
        nifti.Limits(1 << 24, 1000, 1 << 20, 30),
        nifti.Limits(1 << 24, 1 << 24, 1000, 30),
    ):
        with pytest.raises(TooLargeError):
            read(data, limits=limits)


def test_more_than_one_volume_is_refused(read):
    with pytest.raises(GeometryError) as caught:
        read(packed(nib.Nifti1Image(np.stack([voxels()] * 2, -1), AFFINE)))
    assert caught.value.code == "not_one_volume"


def _zero_sform(header):
    header["srow_x"] = header["srow_y"] = header["srow_z"] = 0
    header["sform_code"] = 1


def _nan_sform(header):
    header["srow_x"][0] = np.nan
    header["sform_code"] = 1


def _nan_zooms(header):
    header["sform_code"] = header["qform_code"] = 0
    header["pixdim"][1:4] = np.nan


def _zero_zooms(header):
    header["sform_code"] = header["qform_code"] = 0
    header["pixdim"][1:4] = 0


def _bad_quaternion(header):
    header["sform_code"], header["qform_code"] = 0, 1
    header["quatern_b"] = 5


def _flat_sform(header):
    header["srow_z"] = header["srow_y"]
    header["sform_code"] = 1


@pytest.mark.parametrize(
    "change", [_zero_sform, _nan_sform, _nan_zooms, _zero_zooms, _bad_quaternion, _flat_sform]
)
def test_affines_on_which_nothing_can_lie_are_refused(read, change):
    with pytest.raises(GeometryError):
        read(header_bytes(change))


def test_without_any_form_the_zooms_are_taken(read):
    def change(header):
        header["sform_code"] = header["qform_code"] = 0

    np.testing.assert_allclose(read(header_bytes(change)).spacing_mm, (1, 1.5, 1.25), rtol=1e-6)


def test_a_volume_two_voxels_thick_is_refused(read):
    with pytest.raises(GeometryError) as caught:
        read(packed(nib.Nifti1Image(voxels()[:, :, :2], AFFINE)))
    assert caught.value.code == "too_thin"


def test_a_volume_wider_than_any_scanner_is_refused(read):
    with pytest.raises(GeometryError) as caught:
        read(packed(nib.Nifti1Image(voxels(), np.diag([90.0, 90, 90, 1]))))
    assert caught.value.code == "too_wide"


@pytest.mark.parametrize("dtype", [np.complex64, [("R", "u1"), ("G", "u1"), ("B", "u1")]])
def test_colours_and_complex_numbers_are_refused(read, dtype):
    data = np.zeros(SHAPE, dtype)
    with pytest.raises(UnreadableScanError) as caught:
        read(packed(nib.Nifti1Image(data, AFFINE)))
    assert caught.value.code == "unsupported_dtype"


@pytest.mark.parametrize("endianness", "<>")
def test_a_data_type_that_nobody_knows_is_named_as_the_reason(read, endianness):
    header = nib.Nifti1Header(endianness=endianness)
    raw = bytearray(nib.Nifti1Image(voxels(), AFFINE, header).to_bytes())
    raw[70:72] = (77).to_bytes(2, "little" if endianness == "<" else "big")
    mgh = bytearray(nib.MGHImage(voxels(), AFFINE.astype(np.float32)).to_bytes())
    mgh[20:24] = (77).to_bytes(4, "big")
    for data in (bytes(raw), gzip.compress(raw), bytes(mgh)):
        with pytest.raises(UnreadableScanError) as caught:
            read(data)
        assert caught.value.code == "unsupported_dtype"


@pytest.mark.parametrize("count", [0, 8, -1, 32767])
def test_a_number_of_dimensions_that_cannot_be_is_refused(read, count):
    def change(header):
        header["dim"][0] = count

    with pytest.raises(UnreadableScanError, match="gives no dimensions"):
        read(header_bytes(change))


@pytest.mark.parametrize("off", [1e-9, -6e-8, 9e-4])
def test_labels_a_hair_off_are_taken_for_the_whole_numbers_they_are(read, off):
    data = packed(nib.Nifti1Image(voxels(np.float64) + off, AFFINE))
    labels = read(data, reader=nifti.read_labels)
    assert labels.data.dtype == np.int32
    np.testing.assert_array_equal(labels.data, voxels())


def test_labels_that_nibabel_scaled_into_int16_are_read(read):
    image = nib.Nifti1Image(voxels(np.float64) * 20 + 3, AFFINE)
    image.set_data_dtype(np.int16)
    labels = read(image.to_bytes(), reader=nifti.read_labels)
    np.testing.assert_array_equal(labels.data, voxels().astype(int) * 20 + 3)


def test_fractions_that_nibabel_scaled_into_int16_are_refused(read):
    data = voxels(np.float64) * 20
    data[3, 3, 3] = 17.5
    image = nib.Nifti1Image(data, AFFINE)
    image.set_data_dtype(np.int16)
    with pytest.raises(InvalidError) as caught:
        read(image.to_bytes(), reader=nifti.read_labels)
    assert caught.value.code == "labels_not_integer"


@pytest.mark.parametrize(("value", "said"), [(17.5, "17.5"), (2.998, "2.998"), (np.nan, "nan")])
def test_the_label_that_is_furthest_from_a_whole_number_is_named(read, value, said):
    data = voxels(np.float64)
    data[3, 3, 3], data[4, 4, 20] = value, 5.0015
    with pytest.raises(InvalidError, match=rf"{said}\.$") as caught:
        read(packed(nib.Nifti1Image(data, AFFINE)), reader=nifti.read_labels)
    assert caught.value.code == "labels_not_integer"


def test_labels_may_be_stored_as_any_number_that_is_whole(read):
    for dtype in (np.int32, np.uint8, np.float32):
        data = packed(nib.Nifti1Image(voxels(dtype), AFFINE))
        labels = read(data, reader=nifti.read_labels)
        assert labels.data.dtype == np.int32
        np.testing.assert_array_equal(labels.data, voxels())


@pytest.mark.parametrize("value", [1.5, np.nan, 1e12])
def test_labels_that_are_no_whole_numbers_are_refused(read, value):
    data = voxels(np.float32)
    data[3, 3, 3] = value
    with pytest.raises(InvalidError) as caught:
        read(packed(nib.Nifti1Image(data, AFFINE)), reader=nifti.read_labels)
    assert caught.value.code == "labels_not_integer"


def test_labels_must_lie_where_their_scan_lies():
    scan = nifti.Scan(voxels(np.float32), AFFINE)
    nifti.check_same_grid(scan, nifti.LabelVolume(voxels(np.int32), AFFINE + 1e-5))
    moved = AFFINE.copy()
    moved[0, 3] += 0.5
    for labels in (
        nifti.LabelVolume(voxels(np.int32), moved),
        nifti.LabelVolume(voxels(np.int32)[1:], AFFINE),
        nifti.LabelVolume(voxels(np.int32), AFFINE @ np.diag([1, 1, 1.02, 1])),
    ):
        with pytest.raises(GeometryMismatchError):
            nifti.check_same_grid(scan, labels)


def written(data, scan):
    raw = nifti.write_labels(data, scan)
    return nib.Nifti1Image.from_bytes(gzip.decompress(raw)), raw


@pytest.mark.parametrize(("highest", "dtype"), [(255, "u1"), (300, "i2"), (70000, "i4")])
def test_labels_are_written_with_the_least_type_that_holds_them(highest, dtype):
    data = voxels(np.int32)
    data[0, 0, 0] = highest
    image, raw = written(data, nifti.Scan(voxels(np.float32), AFFINE))
    assert image.get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(image.dataobj), data)
    assert raw == nifti.write_labels(data, nifti.Scan(voxels(np.float32), AFFINE))


@pytest.mark.parametrize(("sform", "qform"), [(0, 0), (0, 1), (1, 0), (2, 1), (4, 4)])
@pytest.mark.parametrize("endianness", "<>")
def test_a_nifti_scan_gets_its_own_spatial_header_back(read, sform, qform, endianness):
    source = nib.Nifti1Image(voxels()[..., None], AFFINE, nib.Nifti1Header(endianness=endianness))
    source.header["sform_code"], source.header["qform_code"] = sform, qform
    source.header["descrip"] = b"DOE^JANE"
    source.header["pixdim"][4] = 2.3
    raw = bytearray(source.to_bytes())
    raw[:348] = source.header.binaryblock
    header = nib.Nifti1Header(bytes(raw[:348]), endianness)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    raw[:348] = header.binaryblock
    scan = read(bytes(raw))
    image, packed_bytes = written(voxels(), scan)
    for field in ("pixdim", "sform_code", "qform_code", "srow_x", "srow_y", "srow_z", "quatern_b"):
        np.testing.assert_array_equal(image.header[field], header[field], field)
    assert image.shape == SHAPE
    assert image.header.get_zooms() == header.get_zooms()[:3]
    np.testing.assert_array_equal(image.affine, scan.affine)
    assert b"JANE" not in gzip.decompress(packed_bytes)


def test_an_mgh_scan_gets_a_nifti_on_its_own_grid(read):
    source = nib.MGHImage(voxels(), AFFINE.astype(np.float32))
    scan = read(packed(source, ".mgz"))
    image, _ = written(voxels(), scan)
    assert image.header.get_zooms() == tuple(source.header.get_zooms())
    np.testing.assert_allclose(image.affine, scan.affine, atol=1e-6)
    np.testing.assert_allclose(image.header.get_qform(), scan.affine, atol=1e-4)


def test_a_written_scan_is_read_back(read):
    scan = nifti.Scan(voxels(np.float32), AFFINE)
    again = read(nifti.write_scan(scan))
    np.testing.assert_array_equal(again.data, scan.data)
    np.testing.assert_allclose(again.affine, AFFINE, atol=1e-5)


def test_what_nibabel_writes_to_a_stream_is_the_same_file(read):
    stream = io.BytesIO()
    nib.Nifti1Image(voxels(), AFFINE).to_stream(stream)
    assert read(stream.getvalue()).shape == SHAPE
