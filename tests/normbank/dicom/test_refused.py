"""What is no whole MR volume is refused: a code says why, words say what to do."""

import random
import struct
import tracemalloc
from copy import deepcopy

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from normbank.dicom import folder
from normbank.dicom.decoding import decode
from normbank.dicom.files import read_file
from normbank.dicom.layout import layout_of
from normbank.dicom.series import open_series
from normbank.errors import DicomError, NormbankError, TooLargeError
from normbank.imaging.scan import Limits
from tests.support.dicom import (
    CANARY,
    ROOT,
    Phantom,
    as_bytes,
    compressed,
    drawn_voxels,
    turned,
    write_series,
)

LIMITS = Limits(1 << 24, 1 << 26, 1 << 20, 30.0)
SC = "1.2.840.10008.5.1.4.1.1.7"
CT = "1.2.840.10008.5.1.4.1.1.2"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"
SR = "1.2.840.10008.5.1.4.1.1.88.22"
PDF = "1.2.840.10008.5.1.4.1.1.104.1"


def each(images, **values):
    for image in images:
        for keyword, value in values.items():
            setattr(image, keyword, value)
    return images


def without(images, keyword):
    for image in images:
        delattr(image, keyword)
    return images


def changed(images, at, **values):
    each([images[at]], **values)
    return images


def copied(images, at, **values):
    """The images and a copy of one, under a name of its own."""
    extra = deepcopy(images[at])
    each([extra], SOPInstanceUID=f"{ROOT}.1.999", **values)
    return [*images, extra]


def twice(**values):
    """Two volumes at one place."""
    first = Phantom().images()
    second = Phantom(voxels=drawn_voxels(seed=9)).images()
    for number, image in enumerate(second, 1):
        image.SOPInstanceUID = f"{ROOT}.1.{100 + number}"
        image.InstanceNumber = 100 + number
    return [*first, *each(second, **values)]


def shifted_along_rows(images):
    for number, image in enumerate(images):
        x, y, z = image.ImagePositionPatient
        image.ImagePositionPatient = [x + 0.6 * number, y, z]
    return images


def colour():
    images = each(Phantom().images(), SamplesPerPixel=3, PhotometricInterpretation="RGB")
    return each(images, PlanarConfiguration=0, PixelData=bytes(24 * 20 * 6))


def documents(sop_class, modality):
    images = []
    for number in range(3):
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = sop_class, f"{ROOT}.{number}"
        image.Modality, image.SeriesInstanceUID = modality, f"{ROOT}.1"
        images.append(image)
    return images


def every_second():
    return each(Phantom().images(), SpacingBetweenSlices=3.0)[::2]


def radial():
    images = Phantom().images()
    for number, image in enumerate(images):
        directions = turned((0, 0, 11 * number))[:, :2].round(8)
        image.ImageOrientationPatient = directions.T.ravel().tolist()
    return images


def uneven():
    images = Phantom().images()
    for number, image in enumerate(images):
        image.ImagePositionPatient = [0, 0, 3.0 * number + 0.9 * (number % 3)]
    return images


def without_pixels(images):
    return without(images, "PixelData")


def enhanced(**values):
    return each([Phantom().enhanced()], **values)


def two_echoes_in_one():
    image = Phantom().enhanced([*range(16), *range(16)])
    for number, frame in enumerate(image.PerFrameFunctionalGroupsSequence):
        echo = Dataset()
        echo.EffectiveEchoTime = 3.5 if number < 16 else 80.0
        frame.MREchoSequence = [echo]
    return [image]


def fewer_groups():
    image = Phantom().enhanced()
    image.PerFrameFunctionalGroupsSequence = image.PerFrameFunctionalGroupsSequence[:-1]
    return [image]


def two_enhanced():
    first, second = Phantom().enhanced(), Phantom().enhanced()
    second.SOPInstanceUID = f"{ROOT}.1.2"
    return [first, second]


IMAGES = {
    "two-series": (lambda: [*Phantom().images(), *Phantom(series="2").images()], "several_series"),
    "missing-first": (lambda: Phantom().images()[1:], "incomplete_series"),
    "missing-middle": (
        lambda: [*Phantom().images()[:7], *Phantom().images()[8:]],
        "missing_slices",
    ),
    "two-gaps": (
        lambda: [i for i in Phantom().images() if i.InstanceNumber not in (4, 9, 10)],
        "missing_slices",
    ),
    "missing-last-by-images-in-acquisition": (
        lambda: each(Phantom().images(), ImagesInAcquisition=16)[:-1],
        "incomplete_series",
    ),
    "missing-last-by-related-instances": (
        lambda: each(Phantom().images(), NumberOfSeriesRelatedInstances=16)[:-1],
        "incomplete_series",
    ),
    "missing-last-by-number-of-slices": (
        lambda: each(Phantom().images(), NumberOfSlices=16)[:-1],
        "incomplete_series",
    ),
    "missing-end-of-interleaved-numbers": (
        lambda: [
            image
            for place, image in enumerate(Phantom().images())
            for _ in [setattr(image, "InstanceNumber", 1 + (place * 2) % 16 + place // 8)]
            if place != 15 and place != 0
        ],
        "incomplete_series",
    ),
    "every-second": (every_second, "incomplete_series"),
    "same-instance-twice": (
        lambda: [*Phantom().images(), Phantom().images()[3]],
        "duplicate_instances",
    ),
    "same-place-twice": (lambda: copied(Phantom().images(), 5), "duplicate_positions"),
    "all-places-twice": (twice, "duplicate_positions"),
    "two-echoes": (lambda: twice(EchoTime=80.0), "several_volumes"),
    "two-time-points": (lambda: twice(TemporalPositionIdentifier=2), "several_volumes"),
    "two-b-values": (lambda: twice(DiffusionBValue=1000.0), "several_volumes"),
    "magnitude-and-real": (
        lambda: twice(ImageType=["ORIGINAL", "PRIMARY", "R"]),
        "several_volumes",
    ),
    "one-slice": (lambda: Phantom().images()[:1], "too_few_slices"),
    "four-slices": (lambda: Phantom().images()[:4], "too_few_slices"),
    "mixed-orientation": (
        lambda: changed(Phantom().images(), 4, ImageOrientationPatient=[1, 0, 0, 0, 0, -1]),
        "mixed_orientation",
    ),
    "radial": (radial, "mixed_orientation"),
    "mixed-spacing": (
        lambda: changed(Phantom().images(), 4, PixelSpacing=[2.5, 2.1]),
        "mixed_spacing",
    ),
    "uneven-distances": (uneven, "uneven_slices"),
    "mixed-matrix": (
        lambda: changed(Phantom().images(), 4, Columns=20, Rows=24),
        "mixed_matrix",
    ),
    "mixed-contrast": (
        lambda: [*Phantom().images()[:8], *each(Phantom().images()[8:], EchoTime=80)],
        "mixed_contrast",
    ),
    "tilted-gantry": (lambda: shifted_along_rows(Phantom().images()), "sheared_slices"),
    "one-slice-astray": (
        lambda: changed(Phantom().images(), 5, ImagePositionPatient=[-20.5, 30.25, 4.0]),
        "shifted_slices",
    ),
    "two-frames-of-reference": (
        lambda: changed(Phantom().images(), 4, FrameOfReferenceUID="1.2.3"),
        "mixed_frames_of_reference",
    ),
    "two-studies": (
        lambda: changed(Phantom().images(), 4, StudyInstanceUID="1.2.3"),
        "mixed_studies",
    ),
    "localiser": (
        lambda: each(Phantom().images(), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "localiser",
    ),
    "derived": (
        lambda: each(Phantom().images(), ImageType=["DERIVED", "SECONDARY"]),
        "derived_image",
    ),
    "projection": (
        lambda: each(Phantom().images(), ImageType=["DERIVED", "PRIMARY", "MPR", "MIP"]),
        "derived_image",
    ),
    "derived-frames": (
        lambda: enhanced(ImageType=["DERIVED", "PRIMARY", "VOLUME", "NONE"]),
        "derived_image",
    ),
    "phase": (
        lambda: each(Phantom().images(), ImageType=["ORIGINAL", "PRIMARY", "P"]),
        "not_magnitude",
    ),
    "complex-phase": (lambda: enhanced(ComplexImageComponent="PHASE"), "not_magnitude"),
    "secondary-capture": (
        lambda: each(Phantom().images(), SOPClassUID=SC),
        "secondary_capture",
    ),
    "secondary-capture-multi-frame": (
        lambda: each(Phantom().images(), SOPClassUID=f"{SC}.2"),
        "secondary_capture",
    ),
    "colour": (colour, "colour_image"),
    "palette": (
        lambda: each(Phantom().images(), PhotometricInterpretation="PALETTE COLOR"),
        "colour_image",
    ),
    "enhanced-colour": (
        lambda: enhanced(SOPClassUID="1.2.840.10008.5.1.4.1.1.4.3"),
        "colour_image",
    ),
    "ct": (lambda: each(Phantom().images(), SOPClassUID=CT, Modality="CT"), "not_mr"),
    "mr-class-of-pet": (lambda: each(Phantom().images(), Modality="PT"), "not_mr"),
    "segmentation": (
        lambda: each(Phantom().images(), SOPClassUID=SEG, Modality="SEG"),
        "not_an_image",
    ),
    "reports": (lambda: documents(SR, "SR"), "not_an_image"),
    "documents": (lambda: documents(PDF, "DOC"), "encapsulated_document"),
    "unknown-class": (lambda: each(Phantom().images(), SOPClassUID="1.2.3"), "not_an_image"),
    "no-position": (
        lambda: without(Phantom().images(), "ImagePositionPatient"),
        "missing_geometry",
    ),
    "no-spacing": (lambda: without(Phantom().images(), "PixelSpacing"), "missing_geometry"),
    "bad-orientation": (
        lambda: each(Phantom().images(), ImageOrientationPatient=[1, 0, 0, 1, 0, 0]),
        "bad_orientation",
    ),
    "no-slope": (lambda: each(Phantom().images(), RescaleSlope=0), "bad_rescale"),
    "no-pixels": (lambda: without_pixels(Phantom().images()), "no_pixels"),
    "short-pixels": (
        lambda: changed(Phantom().images(), 4, PixelData=bytes(100)),
        "broken_pixels",
    ),
    "long-pixels": (
        lambda: changed(Phantom().images(), 4, PixelData=bytes(5000)),
        "broken_pixels",
    ),
    "too-many-bits": (lambda: Phantom(bits=8).images(), "broken_pixels"),
    "bits-on-top": (lambda: each(Phantom().images(), HighBit=15), "unsupported_pixels"),
    "no-series": (lambda: without(Phantom().images(), "SeriesInstanceUID"), "no_series_uid"),
    "all-alike": (
        lambda: Phantom(voxels=np.full((24, 20, 16), 7, np.uint16)).images(),
        "empty_scan",
    ),
    "too-thin": (lambda: Phantom(spacing=(2.5, 2.0, 1.0)).images(), "too_thin"),
    "two-echoes-in-one": (two_echoes_in_one, "several_volumes"),
    "two-multi-frames": (two_enhanced, "several_volumes"),
    "imaginary": (
        lambda: each(Phantom().images(), ImageType=["ORIGINAL", "PRIMARY", "IMAGINARY"]),
        "not_magnitude",
    ),
    "original-projection": (
        lambda: each(Phantom().images(), ImageType=["ORIGINAL", "PRIMARY", "MIP"]),
        "derived_image",
    ),
    "a-real-slice": (
        lambda: changed(Phantom().images(), 3, ImageType=["ORIGINAL", "PRIMARY", "R"]),
        "mixed_contrast",
    ),
    "two-patients": (lambda: changed(Phantom().images(), 3, PatientID="x"), "mixed_patients"),
    "huge-slope": (lambda: each(Phantom().images(), RescaleSlope=2e35), "bad_rescale"),
    "stack-without-its-start": (lambda: [Phantom().enhanced(range(4, 16))], "incomplete_series"),
    "stack-without-a-middle": (
        lambda: [Phantom().enhanced([*range(8), *range(9, 16)])],
        "missing_slices",
    ),
    "classic-multi-frame": (
        lambda: enhanced(SOPClassUID="1.2.840.10008.5.1.4.1.1.4"),
        "missing_geometry",
    ),
    "frames-missing": (fewer_groups, "broken_dicom"),
    "classic-with-frames": (
        lambda: each(Phantom().images(), NumberOfFrames=2, PixelData=bytes(1920)),
        "several_volumes",
    ),
    "classic-with-frames-alone": (
        lambda: each(Phantom().images()[:1], NumberOfFrames=2, PixelData=bytes(1920)),
        "missing_geometry",
    ),
    "huge-matrix": (lambda: each(Phantom().images(), Rows=65535, Columns=65535), "too_large"),
    "huge-frames": (lambda: enhanced(NumberOfFrames=60000), "too_large"),
    "more-frames-than-groups": (
        lambda: enhanced(NumberOfFrames=32, PixelData=bytes(30720)),
        "broken_dicom",
    ),
}


@pytest.mark.parametrize(("images", "code"), IMAGES.values(), ids=IMAGES)
def test_what_is_no_volume_is_refused(tmp_path, images, code):
    folder = write_series(images(), tmp_path)
    with pytest.raises(NormbankError) as caught:
        open_series(folder, LIMITS).read()
    assert caught.value.code == code
    said = f"{caught.value} {caught.value.facts}"
    assert len(str(caught.value)) > 20
    for secret in (CANARY, "canary", "Quetzalcoatl", "19700101", str(tmp_path)):
        assert secret not in said


def cut(data, count):
    return data[:count]


def undefined_bomb(data):
    """An item that says to be longer than the file."""
    at = data.index(b"\x08\x00\x60\x00CS")
    bomb = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\x7f"
    return data[:at] + bomb + data[at:]


def nested(data):
    at = data.index(b"\x08\x00\x60\x00CS")
    one = b"\x08\x00\x15\x11SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return data[:at] + one * 2000 + data[at:]


def renamed_syntax(data, uid):
    old = b"1.2.840.10008.1.2.1\0"
    return data.replace(old, uid.ljust(len(old), b"\0"))


BYTES = {
    "cut-in-header": (lambda data: cut(data, 700), "broken_dicom"),
    "cut-in-pixels": (lambda data: cut(data, len(data) - 50), "broken_pixels"),
    "endless-item": (lambda data: undefined_bomb(data), "broken_dicom"),
    "nested-without-end": (lambda data: nested(data), "broken_dicom"),
    "unknown-syntax": (
        lambda data: renamed_syntax(data, b"1.2.840.10008.1.2.9"),
        "unsupported_transfer_syntax",
    ),
    "made-up-syntax": (
        lambda data: renamed_syntax(data, b"1.2.840.10008.1.2.99"),
        "unsupported_transfer_syntax",
    ),
}


@pytest.mark.parametrize(("change", "code"), BYTES.values(), ids=BYTES)
def test_a_damaged_file_is_refused(tmp_path, change, code):
    folder = write_series(Phantom().images(), tmp_path)
    path = sorted(folder.iterdir())[3]
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(DicomError) as caught:
        open_series(folder, LIMITS).read()
    assert caught.value.code == code


def test_the_series_are_listed_without_their_descriptions(tmp_path):
    both = [*Phantom().images(), *Phantom(series="2").images()]
    folder = write_series(both, tmp_path)
    with pytest.raises(DicomError) as caught:
        open_series(folder, LIMITS)
    listed = sorted(caught.value.facts["series"], key=lambda one: one["uid"])
    assert listed == [
        {"uid": f"{ROOT}.{n}", "modality": "MR", "images": 16, "number": 7} for n in (1, 2)
    ]
    with pytest.raises(DicomError) as caught:
        open_series(folder, LIMITS, series_uid="1.2.3")
    assert caught.value.code == "no_such_series"


def test_what_tells_volumes_apart_is_named(tmp_path):
    with pytest.raises(DicomError, match="EchoTime") as caught:
        open_series(write_series(twice(EchoTime=80.0), tmp_path), LIMITS)
    assert caught.value.facts == {"volumes": 2, "by": ["EchoTime"]}


def test_reports_and_states_beside_images_are_noise(tmp_path):
    write_series(Phantom().images(), tmp_path / "images")
    write_series(each(documents(SR, "SR"), SeriesInstanceUID="1.2.3"), tmp_path / "reports")
    assert open_series(tmp_path, LIMITS).skipped == 3


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "LICENSE").write_text("As you like. " * 20)
    with pytest.raises(DicomError) as caught:
        open_series(tmp_path, LIMITS)
    assert caught.value.code == "no_dicom_images"


@pytest.mark.parametrize("kind", ["jpeg-lossless-70", "jpeg-ls-80", "jpeg-2000-90", "rle"])
@pytest.mark.parametrize("damage", ["size", "middle", "cut"])
def test_damaged_compressed_pixels_are_refused(tmp_path, kind, damage):
    image = Phantom().enhanced()
    data = bytearray(compressed(image, kind, tmp_path))
    header = {
        "jpeg-lossless-70": b"\xff\xc3",
        "jpeg-ls-80": b"\xff\xf7",
        "jpeg-2000-90": b"\xff\x51",
        "rle": struct.pack("<I", 2) + struct.pack("<I", 64),
    }[kind]
    at = data.index(header, data.index(b"\xe0\x7f\x10\x00OB"))
    if damage == "size":
        data[at + 5 : at + 8] = b"\xff\xff\xff" if kind != "rle" else data[at + 5 : at + 8]
        if kind == "rle":
            data[at] = 9
    elif damage == "middle":
        data[at : at + 60] = bytes(60)
    else:
        del data[at + 60 :]
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "one").write_bytes(data)
    with pytest.raises(DicomError) as caught:
        open_series(tmp_path / "in", LIMITS).read()
    assert caught.value.code == "broken_pixels"


@pytest.mark.parametrize("damage", ["dies", "complains"])
def test_a_decoder_that_dies_or_complains_is_an_error_of_the_file(tmp_path, damage):
    data = compressed(Phantom().images()[5], "jpeg-lossless-70", tmp_path)
    path = tmp_path / "one"
    path.write_bytes(data)
    file = read_file(path, LIMITS)
    streams = list(generate_frames(data[file.pixels.at :], number_of_frames=1))
    layout = layout_of(file)
    assert decode(streams, file.syntax, layout)[0].shape == (20, 24)
    damaged = bytearray(streams[0])
    if damage == "dies":  # GDCM ends its process for this one
        random_ = random.Random(25)
        for _ in range(random_.randint(1, 3)):
            at = random_.randrange(len(damaged))
            damaged[at] = random_.randrange(256)
    else:
        damaged[60:120] = bytes(60)
    with pytest.raises(DicomError) as caught:
        decode([bytes(damaged)], file.syntax, layout)
    assert caught.value.code == "broken_pixels"


def peak_bytes(work):
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def deflated_bomb(keyword, bytes_):
    image = Phantom().images()[0]
    image.EncapsulatedDocument = bytes(2)
    setattr(image, keyword, bytes(bytes_))
    return as_bytes(image, pydicom.uid.DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize("keyword", ["PixelData", "EncapsulatedDocument"])
def test_a_deflated_bomb_is_not_inflated(tmp_path, keyword):
    path = tmp_path / "bomb"
    path.write_bytes(deflated_bomb(keyword, 3 << 27))
    assert path.stat().st_size < 1 << 20

    def refused():
        with pytest.raises(NormbankError) as caught:
            open_series(path, LIMITS)
        assert caught.value.code in ("broken_pixels", "too_large")

    assert peak_bytes(refused) < 3 << 26


def test_headers_that_fill_the_memory_are_refused_before_they_do(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_MAX_HEADER_BYTES", 1 << 24)
    bomb = deflated_bomb("EncapsulatedDocument", 1 << 22)
    for number in range(40):
        (tmp_path / str(number)).write_bytes(bomb)

    def refused():
        with pytest.raises(TooLargeError, match="headers"):
            open_series(tmp_path, LIMITS)

    assert peak_bytes(refused) < 3 << 25


def test_headers_of_too_many_elements_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(folder, "_MAX_ELEMENTS", 400)
    write_series(Phantom().images(), tmp_path)
    with pytest.raises(TooLargeError, match="headers"):
        open_series(tmp_path, LIMITS)
