"""What kinds of DICOM images can be one volume of a head, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from normbank.dicom import tags
from normbank.dicom.elements import broken
from normbank.dicom.files import DicomFile
from normbank.dicom.frames import Frame
from normbank.dicom.values import Where
from normbank.entities import Flag
from normbank.entities.flags import info, warning
from normbank.errors import DicomError

_STORAGE = "1.2.840.10008.5.1.4.1.1."
_MR = f"{_STORAGE}4"
_ENHANCED_MR = (f"{_MR}.1", f"{_MR}.4")  # the latter: converted from classic images
_COLOUR_MR = f"{_MR}.3"
_DIRECTORY = "1.2.840.10008.1.3.10"
_MEDIA_CLASS = 0x00020002
_OTHERS: tuple[tuple[str, str, str], ...] = (  # how the class goes on, code, what it is
    ("7", "secondary_capture", "secondary captures (pictures of a screen or of paper)"),
    ("104.", "encapsulated_document", "documents, such as PDF"),
    ("66", "not_an_image", "segmentations, registrations or raw data"),
    ("88.", "not_an_image", "structured reports"),
    ("11.", "not_an_image", "presentation states"),
    ("481.", "not_an_image", "objects of radiotherapy"),
    ("30", "not_an_image", "parametric maps"),
    ("4.2", "not_an_image", "spectra"),
)
_WITHOUT_IMAGES = tuple(f"{_STORAGE}{rest}" for rest in ("11.", "88.", "66", "104."))
_COLOURS = ("RGB", "YBR", "PALETTE", "HSV", "ARGB", "CMYK")
_REFORMATTED = {"MPR", "DIS2D", "DIS3D"}
_PROJECTED = {"MIP", "MINIP", "MAX_IP", "MIN_IP", "PROJECTION IMAGE", "AVERAGE", "MEAN"}
_COMPONENTS = {  # of a complex signal, as ImageType calls them
    **dict.fromkeys(("M", "MAGNITUDE"), "magnitude"),
    **dict.fromkeys(("P", "PHASE", "PHASE MAP"), "phase"),
    **dict.fromkeys(("R", "REAL"), "real"),
    **dict.fromkeys(("I", "IMAGINARY"), "imaginary"),
}
_LOSSY_SYNTAXES = tuple(f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81))
_SEND = "Send the series of original MR images as the scanner made it."


def is_enhanced(file: DicomFile) -> bool:
    """Whether all slices lie in one file."""
    return file.where.text(tags.SOP_CLASS) in _ENHANCED_MR


def is_directory(file: DicomFile) -> bool:
    """Whether it is a DICOMDIR."""
    classes = Where((file.meta,)).text(_MEDIA_CLASS), file.where.text(tags.SOP_CLASS)
    return _DIRECTORY in classes


def is_beside_images(file: DicomFile) -> bool:
    """Whether it holds no image: a report, a presentation state, raw data, a document."""
    named = file.where.text(tags.SOP_CLASS) or ""
    return file.pixels is None and named.startswith(_WITHOUT_IMAGES)


def check_whole(file: DicomFile) -> None:
    """Refuse an MR image whose file ends between two elements, before its pixels.

    Raises
    ------
    DicomError
        `broken_dicom`.
    """
    named = file.where.text(tags.SOP_CLASS)
    is_mr = named is None or named == _MR or named in _ENHANCED_MR
    if is_mr and file.pixels is None and file.where.find(tags.ROWS) is None:
        raise broken("it ends before its pixels")


def check_kind(files: Iterable[DicomFile]) -> None:
    """Refuse a series that is not of MR images in grey.

    Raises
    ------
    DicomError
        `secondary_capture`, `encapsulated_document`, `not_an_image`, `not_mr` or
        `colour_image`.
    """
    seen = set()
    for file in files:
        where = file.where
        kind = (
            where.text(tags.SOP_CLASS) or "",
            where.text(tags.MODALITY) or "MR",
            where.whole(tags.SAMPLES) or 1,
            where.text(tags.PHOTOMETRIC) or "",
        )
        if kind not in seen:
            seen.add(kind)
            _check_class(kind[0], kind[1])
            if kind[0] == _COLOUR_MR or kind[2] != 1 or kind[3].startswith(_COLOURS):
                raise DicomError(
                    f"The images are in colour: pictures or maps, not a scan. {_SEND}",
                    code="colour_image",
                )


def _check_class(sop_class: str, modality: str) -> None:
    stored = sop_class.startswith(_STORAGE)
    rest = sop_class.removeprefix(_STORAGE)
    for start, code, what in _OTHERS:
        if stored and rest.startswith(start):
            raise DicomError(f"The series holds {what}, not MR images. {_SEND}", code=code)
    if modality != "MR" or (stored and sop_class not in (_MR, _COLOUR_MR, *_ENHANCED_MR)):
        raise DicomError(
            "The series is of another modality than MR, by its header. Only MR scans of the "
            f"head can be segmented. {_SEND}",
            code="not_mr",
        )
    if not stored:
        raise DicomError(
            f"The files are no images, by their SOP class. {_SEND}", code="not_an_image"
        )


def check_types(frames: Sequence[Frame]) -> None:
    """Refuse localisers, what was computed from other images, and phase images.

    `DERIVED` is refused, with one exception: reformatted or distortion-corrected originals
    (`DERIVED\\PRIMARY` with `MPR`, `DIS2D` or `DIS3D`, and no projection), of which some
    scanners send no other form; they get the flag `derived_image` of `flags_of`.

    Raises
    ------
    DicomError
        `localiser`, `derived_image` or `not_magnitude`.
    """
    for types, _ in {_types_of(frame) for frame in frames}:
        if "LOCALIZER" in types:
            raise DicomError(
                f"The series is a localiser, made to plan others. {_SEND}", code="localiser"
            )
        derived = types[:1] == ("DERIVED",) and not _is_reformatted(types)
        if derived or _PROJECTED & set(types[2:]):
            raise DicomError(
                "The images are derived: computed from others (ImageType DERIVED), such as a "
                f"projection, an average or a map. {_SEND}",
                code="derived_image",
            )
    if {"phase", "imaginary"} & components_of(frames):
        raise DicomError(
            "The images show phase, not magnitude. Send the magnitude images of the scan.",
            code="not_magnitude",
        )


def _types_of(frame: Frame) -> tuple[tuple[str, ...], str | None]:
    """Types of the frame and of its image in one, and its complex component."""
    of_frame = frame.where.texts(tags.FRAME_TYPE)
    of_image = frame.where.texts(tags.IMAGE_TYPE)
    return of_frame or of_image, frame.where.text(tags.COMPLEX_COMPONENT)


def components_of(frames: Iterable[Frame]) -> set[str]:
    """Which parts of the complex signal the frames show, as far as they say so."""
    shown = {_component(*kind) for kind in {_types_of(frame) for frame in frames}}
    return {part for part in shown if part is not None}


def _component(types: Sequence[str], said: str | None) -> str | None:
    """The part of the complex signal that an image shows; phase where it says several."""
    named = {_COMPONENTS[word] for word in (*types[2:], said) if word in _COMPONENTS}
    for part in ("phase", "imaginary", "real", "magnitude"):
        if part in named:
            return part
    return None


def _is_reformatted(types: tuple[str, ...]) -> bool:
    rest = set(types[2:])
    return types[1:2] == ("PRIMARY",) and bool(rest & _REFORMATTED) and not rest & _PROJECTED


def flags_of(files: Sequence[DicomFile], frames: Sequence[Frame]) -> tuple[Flag, ...]:
    """What is doubtful about images that are taken: derived, lossy, interpolated."""
    flags = []
    if any(types[:1] == ("DERIVED",) for types, _ in map(_types_of, frames)):
        flags.append(
            warning(
                "derived_image",
                "The images were reformatted or corrected after the scan (ImageType DERIVED); "
                "the scanner's originals are better where there are any.",
            )
        )
    if any(f.syntax in _LOSSY_SYNTAXES or f.where.text(tags.LOSSY) == "01" for f in files):
        flags.append(
            warning(
                "lossy_compression",
                "The images were compressed with loss; small structures may be less exact.",
            )
        )
    return (*flags, *_interpolated(frames[0]))


def _interpolated(frame: Frame) -> tuple[Flag, ...]:
    """A flag where the matrix is larger than what was acquired."""
    acquired = frame.where.vector(
        tags.ACQUISITION_MATRIX, 4
    )  # rows, columns, by frequency or phase
    sizes = (frame.where.whole(tags.ROWS), frame.where.whole(tags.COLUMNS))
    if acquired is None or None in sizes:
        return ()
    frequency, phase = max(acquired[0], acquired[1]), max(acquired[2], acquired[3])
    most = max(frequency, phase)
    largest = max(size for size in sizes if size is not None)
    if not 0 < most < 0.9 * largest:
        return ()
    return (
        info(
            "interpolated_matrix",
            f"The scanner acquired {frequency:g} × {phase:g} points and wrote {sizes[1]} × "
            f"{sizes[0]}: the images are finer than what was measured.",
        ),
    )
