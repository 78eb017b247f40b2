"""Where the scan of a form lies: a file, or the folder of a DICOM series."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.http.forms import Form, Upload
from normbank.dicom.package import unpack
from normbank.imaging.nifti import write_scan
from normbank.imaging.scan import Limits, Scan
from normbank.source import DICOM, ZIP


def scan_path(form: Form, field: str, limits: Limits) -> Path:
    """The scan of a field of one scan, its zip unpacked, its parts brought together.

    Errors as of `unpack`; InvalidError where the field is missing.
    """
    form.upload(field)  # is there
    parts = form.files[field]
    return _single_path(parts[0], limits) if len(parts) == 1 else _together(parts)


@contextmanager
def unpacked(upload: Upload, limits: Limits) -> Iterator[Path]:
    """The scan of one part; of a zip a folder that goes with the block.

    A request may have many zips, and the disk room for what is in one of them.
    """
    try:
        yield _single_path(upload, limits)
    finally:
        shutil.rmtree(_beside(upload), ignore_errors=True)


def is_dicom_upload(upload: Upload) -> bool:
    """Whether a part is DICOM, which is never kept as it came."""
    return upload.name.endswith((DICOM, ZIP))


def without_patient(scan: Scan, upload: Upload) -> Upload:
    """The scan of a DICOM upload as a NIfTI file beside it: its voxels and grid alone.

    PS3.15's basic profile removes or replaces all that could name a patient, UIDs too; of a
    volume's header nothing is left then that NIfTI has no place for.
    """
    return kept_beside(write_scan(scan), upload)


def kept_beside(content: bytes, upload: Upload) -> Upload:
    """What is stored in place of a DICOM upload: a `.nii.gz` beside it."""
    path = upload.path.with_name(f"{upload.path.name}-kept")
    path.write_bytes(content)
    name = upload.name.rsplit(".", 1)[0] + ".nii.gz"
    return Upload(path, name, hashlib.sha256(content).hexdigest(), len(content))


def _single_path(upload: Upload, limits: Limits) -> Path:
    """The scan of one part; a folder where that is a zip."""
    if not upload.name.endswith(ZIP):
        return upload.path
    folder = _folder_beside(upload)
    unpack(upload.path, folder, limits)
    return folder


def _together(parts: list[Upload]) -> Path:
    folder = _folder_beside(parts[0])
    for number, part in enumerate(parts):
        part.path.rename(folder / str(number))
    return folder


def _folder_beside(upload: Upload) -> Path:
    """A new folder that goes with the request."""
    folder = _beside(upload)
    folder.mkdir()
    return folder


def _beside(upload: Upload) -> Path:
    return upload.path.with_name(f"{upload.path.name}-series")
