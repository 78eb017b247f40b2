"""MR series of the drawn head as DICOM files, and a SEG that needs no network."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from normbank.config import Settings
from normbank.dicom.provenance import AnswerOrigin
from normbank.dicom.seg import write_seg
from normbank.dicom.series import open_series
from normbank.imaging.scan import Limits
from tests.support.phantoms import SHAPE, SPACING_MM, phantom_case

CANARY = "CANARY^PATIENT"
BRAIN_STEM = 16
SLICES = 24  # coarse along the head, so that a series is stored in a moment


@cache
def _volume() -> npt.NDArray[np.uint16]:
    """(slices, rows, columns) of the drawn head, every fourth slice."""
    import gzip

    import nibabel

    image = nibabel.Nifti1Image.from_bytes(gzip.decompress(phantom_case(3).scan))
    data = np.asarray(image.dataobj, np.float32)
    scaled = np.clip(data / data.max() * 1000, 0, 1000).astype(np.uint16)
    assert scaled.shape == SHAPE
    return np.ascontiguousarray(scaled[:, :, :: SHAPE[2] // SLICES].transpose(2, 1, 0)[:, ::-1])


def write_series(folder: Path, **attributes: Any) -> list[Path]:
    """A whole axial MR series of one person, a file a slice.

    Parameters
    ----------
    attributes : DICOM keywords, the same in every file, for example
        `SeriesDescription="localizer"`
    """
    folder.mkdir(parents=True, exist_ok=True)
    shared = {
        "StudyInstanceUID": generate_uid(),
        "SeriesInstanceUID": generate_uid(),
        "FrameOfReferenceUID": generate_uid(),
        **attributes,
    }
    paths = []
    for number, pixels in enumerate(_volume()):
        dataset = _slice(number, pixels)
        for keyword, value in shared.items():
            setattr(dataset, keyword, value)
        paths.append(folder / f"{number:03}.dcm")
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths


def _slice(number: int, pixels: npt.NDArray[np.uint16]) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
    dataset.PatientName, dataset.PatientID = CANARY, "CANARY-ID"
    dataset.PatientBirthDate, dataset.PatientSex = "19010203", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20200101", "101112", "1"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "CANARY-ACC", ""
    dataset.Modality, dataset.ImageType = "MR", ["ORIGINAL", "PRIMARY", "M", "ND"]
    dataset.Manufacturer, dataset.ManufacturerModelName = "Phantoms", "Drawn 3T"
    dataset.MagneticFieldStrength, dataset.SeriesDescription = 3.0, "t1 mprage"
    dataset.RepetitionTime, dataset.DeviceSerialNumber = 2300.0, "424242"
    dataset.BodyPartExamined, dataset.PatientPosition = "HEAD", "HFS"
    dataset.PositionReferenceIndicator = ""
    dataset.SeriesNumber, dataset.InstanceNumber = 2, number + 1
    step_mm = SPACING_MM * (SHAPE[2] // SLICES)
    dataset.SliceThickness = dataset.SpacingBetweenSlices = step_mm
    dataset.PixelSpacing = [SPACING_MM, SPACING_MM]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.ImagePositionPatient = [-90.0, -110.0, number * step_mm]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    return dataset


def bright_seg(folder: Path, key: str | None = None) -> Dataset:
    """A SEG of all that is brighter than the mean in the series of a folder."""
    series = open_series(folder, Limits.of(Settings()))
    voxels = series.read().data
    ids = np.where(voxels > voxels.mean(), BRAIN_STEM, 0).astype(np.int16)
    return write_seg(series, ids, AnswerOrigin("plain", 1, "b" * 64, "5" * 64, key))
