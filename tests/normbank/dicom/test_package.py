"""Zips: what is a series comes out under names of ours, the rest never does."""

import io
import struct
import tracemalloc
import zipfile

import pytest

from normbank.dicom.package import is_dicom, is_zip, unpack
from normbank.dicom.series import open_series
from normbank.errors import NormbankError, TooLargeError
from normbank.imaging.scan import Limits
from tests.support.dicom import PLAIN_SYNTAXES, Phantom, as_bytes

LIMITS = Limits(1 << 22, 1 << 23, 1 << 20, 30.0)
IMAGE = as_bytes(Phantom().images()[0])


def zipped(*members, method=zipfile.ZIP_DEFLATED):
    """A zip of (name or ZipInfo, bytes)."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def info(name, mode):
    """A member with a Unix mode."""
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


@pytest.fixture
def taken_apart(tmp_path):
    def taken_apart(data, limits=LIMITS):
        (tmp_path / "zip").write_bytes(data)
        folder = tmp_path / "out"
        folder.mkdir()
        return unpack(tmp_path / "zip", folder, limits), folder

    return taken_apart


def test_a_zipped_series_is_read_and_its_noise_is_counted(taken_apart):
    phantom = Phantom()
    members = [(f"disk/patient {n}/ä", as_bytes(i)) for n, i in enumerate(phantom.images())]
    noise = [("DICOMDIR", b"x"), ("disk/.DS_Store", b"x"), ("__MACOSX/a", b"x"), ("empty", b"")]
    skipped, folder = taken_apart(zipped(*members, *noise))
    assert skipped == 4
    assert sorted(path.name for path in folder.iterdir()) == sorted(map(str, range(16)))
    assert open_series(folder, LIMITS).shape == phantom.voxels.shape


def test_zip64_and_stored_members_are_read(taken_apart, tmp_path):
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w") as archive,
        archive.open("a", "w", force_zip64=True) as member,
    ):
        member.write(IMAGE)
    assert b"\x01\x00" in stream.getvalue()
    _, folder = taken_apart(stream.getvalue())
    assert (folder / "0").read_bytes() == IMAGE


def test_nothing_is_written_outside(taken_apart, tmp_path):
    before = {path for path in tmp_path.parent.rglob("*") if tmp_path not in path.parents}
    with pytest.raises(NormbankError) as caught:
        taken_apart(zipped(("../../evil", IMAGE)))
    assert caught.value.code == "unsafe_zip"
    assert not list((tmp_path / "out").iterdir())
    assert before == {p for p in tmp_path.parent.rglob("*") if tmp_path not in p.parents}


def encrypted():
    data = bytearray(zipped(("a", IMAGE)))
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def lying_about_its_size():
    """The directory says ten bytes; what is packed are many more."""
    data = bytearray(zipped(("a", bytes(1 << 20))))
    at = data.index(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    return bytes(data)


def overlapping():
    """Two entries of the directory that name one member, as in a flat bomb."""
    data = zipped(("a", IMAGE), ("b", IMAGE))
    second = data.index(b"PK\x01\x02", data.index(b"PK\x01\x02") + 4)
    return data[: second + 42] + struct.pack("<I", 0) + data[second + 46 :]


def wrong_sum():
    data = bytearray(zipped(("a", IMAGE), method=zipfile.ZIP_STORED))
    data[200] ^= 0xFF
    return bytes(data)


BAD = {
    "dots": (lambda: zipped(("a/../../b", IMAGE)), "unsafe_zip"),
    "absolute": (lambda: zipped(("/etc/passwd", IMAGE)), "unsafe_zip"),
    "windows-drive": (lambda: zipped(("C:\\x", IMAGE)), "unsafe_zip"),
    "windows-dots": (lambda: zipped(("..\\x", IMAGE)), "unsafe_zip"),
    "link": (lambda: zipped((info("a", 0o120777), "/etc/passwd")), "unsafe_zip"),
    "device": (lambda: zipped((info("a", 0o020666), "x")), "unsafe_zip"),
    "encrypted": (encrypted, "encrypted_zip"),
    "bzip2": (lambda: zipped(("a", IMAGE), method=zipfile.ZIP_BZIP2), "unsupported_zip"),
    "nested-zip": (lambda: zipped(("a", zipped(("b", IMAGE)))), "nested_archive"),
    "nested-gzip": (lambda: zipped(("a", b"\x1f\x8b\x08" + bytes(600))), "nested_archive"),
    "nested-tar": (lambda: zipped(("a", bytes(257) + b"ustar" + bytes(300))), "nested_archive"),
    "bomb": (lambda: zipped(("a", bytes(4_000_000))), "zip_bomb"),
    "many-bombs": (
        lambda: zipped(*((str(i), bytes(1 << 20)) for i in range(9))),
        "too_large",
    ),
    "large-member": (
        lambda: zipped(("a", bytes(5_000_000)), method=zipfile.ZIP_STORED),
        "too_large",
    ),
    "lying": (lying_about_its_size, "damaged_zip"),
    "overlapping": (overlapping, "zip_bomb"),
    "wrong-sum": (wrong_sum, "damaged_zip"),
    "cut-off": (lambda: zipped(("a", IMAGE))[:-30], "damaged_zip"),
    "no-directory": (lambda: b"PK\x03\x04" + bytes(500), "damaged_zip"),
    "empty": (lambda: zipped(), "empty_zip"),
    "noise-alone": (lambda: zipped((".DS_Store", b"x")), "empty_zip"),
}


@pytest.mark.parametrize(("data", "code"), BAD.values(), ids=BAD)
def test_a_bad_zip_is_refused(taken_apart, data, code):
    with pytest.raises(NormbankError) as caught:
        taken_apart(data())
    assert caught.value.code == code


def test_too_many_members_are_refused(taken_apart):
    with pytest.raises(NormbankError) as caught:
        taken_apart(zipped(*((str(i), b"x") for i in range(20_001)), method=zipfile.ZIP_STORED))
    assert caught.value.code == "too_large"


def test_a_directory_of_many_members_is_not_read(taken_apart):
    entry = b"PK\x01\x02" + bytes(24) + b"\x01\0" + bytes(16) + b"a"
    directory = entry * 300_000
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0, 0, len(directory), 0, 0)
    tracemalloc.start()
    with pytest.raises(TooLargeError):
        taken_apart(directory + end)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * len(directory)


def test_kinds_are_told_by_content():
    assert is_zip(zipped(("a", b"x")))
    assert is_zip(zipped())
    assert not is_zip(IMAGE)
    for name, syntax in PLAIN_SYNTAXES.items():
        image = Phantom().images()[0]
        assert is_dicom(as_bytes(image, syntax)[:132])
        if name != "deflated":
            assert is_dicom(as_bytes(image, syntax, preamble=False)[:132])


@pytest.mark.parametrize(
    "start",
    [
        b"",
        bytes(400),
        b"\x5c\x01\x00\x00" + bytes(400),  # NIfTI
        b"\x00\x00\x01\x5c" + bytes(400),
        b"\x1f\x8b\x08" + bytes(400),
        b"\x00\x00\x00\x01\x00\x00\x00\x10" + bytes(400),  # MGH
        b"PK\x03\x04" + bytes(400),
        b"\x89PNG\r\n\x1a\n" + bytes(400),
        b"Do as you like with it. " * 20,
        b"\x08\x00",
    ],
    ids=["empty", "zeros", "nifti", "nifti-big", "gzip", "mgh", "zip", "png", "text", "short"],
)
def test_other_files_are_no_dicom(start):
    assert not is_dicom(start)
