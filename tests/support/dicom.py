"""Drawn MR series as DICOM files, of every kind that a scanner or a PACS may send."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import gdcm
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    MRImageStorage,
)

ROOT = "1.2.826.0.1.3680043.8.498.77"  # pydicom's own, for made-up instances
CANARY = "Canary^Quetzalcoatl"
SHAPE = (24, 20, 16)  # columns, rows, slices
PLAIN_SYNTAXES = {
    "explicit": ExplicitVRLittleEndian,
    "implicit": ImplicitVRLittleEndian,
    "big-endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
}
COMPRESSED = {
    "jpeg-lossless-57": gdcm.TransferSyntax.JPEGLosslessProcess14,
    "jpeg-lossless-70": gdcm.TransferSyntax.JPEGLosslessProcess14_1,
    "jpeg-ls-80": gdcm.TransferSyntax.JPEGLSLossless,
    "jpeg-2000-90": gdcm.TransferSyntax.JPEG2000Lossless,
    "jpeg-2000-91": gdcm.TransferSyntax.JPEG2000,
    "rle": gdcm.TransferSyntax.RLELossless,
}
PLANES = {  # directions of a row and of a column, LPS+
    "axial": ((1, 0, 0), (0, 1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
}
SIGNS = tuple(product((1, -1), repeat=3))  # of rows, columns and the order of slices


def turned(degrees: Sequence[float]) -> np.ndarray:
    """Rotation about x, y and z in turn."""
    matrix = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        one[i, i] = one[j, j] = np.cos(angle)
        one[i, j], one[j, i] = -np.sin(angle), np.sin(angle)
        matrix = one @ matrix
    return matrix


def drawn_voxels(shape: tuple[int, int, int] = SHAPE, seed: int = 0) -> np.ndarray:
    """(columns, rows, slices) uint16 of 12 bits: no two slices alike, air at the faces."""
    voxels = np.random.default_rng(seed).integers(100, 4000, shape).astype(np.uint16)
    ramp = np.arange(shape[2], dtype=np.uint16) * 3
    voxels = np.minimum(voxels + ramp, 4095).astype(np.uint16)
    for axis in range(3):
        faces = np.moveaxis(voxels, axis, 0)
        faces[0] = faces[-1] = 0
    return voxels


@dataclass
class Phantom:
    """A series that can be changed before it is written.

    Attributes
    ----------
    voxels : (columns, rows, slices) as stored
    row, column : directions, LPS+
    spacing : mm between rows, columns, slices
    reverse : whether the slices are numbered against the normal
    """

    voxels: np.ndarray = field(default_factory=drawn_voxels)
    row: Sequence[float] = (1, 0, 0)
    column: Sequence[float] = (0, 1, 0)
    spacing: tuple[float, float, float] = (2.5, 2.0, 3.0)
    origin: tuple[float, float, float] = (-21.5, 30.25, -11.0)
    reverse: bool = False
    slope: float = 1.0
    intercept: float = 0.0
    bits: int = 12
    series: str = "1"

    @classmethod
    def placed(
        cls,
        plane: str = "axial",
        signs: Sequence[int] = (1, 1, 1),
        degrees: Sequence[float] = (0, 0, 0),
        **others: Any,
    ) -> Phantom:
        """In a plane, with directions turned round, then rotated."""
        row, column = (turned(degrees) @ np.array(direction) for direction in PLANES[plane])
        return cls(
            row=tuple(row * signs[0]), column=tuple(column * signs[1]), reverse=signs[2] < 0,
            **others,
        )  # fmt: skip

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.row, self.column)

    @property
    def affine(self) -> np.ndarray:
        """Voxel (column, row, slice along the normal) to RAS+, mm."""
        affine = np.eye(4)
        affine[:3, 0] = np.array(self.row) * self.spacing[1]
        affine[:3, 1] = np.array(self.column) * self.spacing[0]
        affine[:3, 2] = self.normal * self.spacing[2]
        affine[:3, 3] = self.origin
        return np.diag([-1, -1, 1, 1]) @ affine

    def position(self, k: int) -> list[float]:
        return [
            float(f"{v:.10g}") for v in np.array(self.origin) + k * self.spacing[2] * self.normal
        ]

    def images(self) -> list[Dataset]:
        """Classic images in the order of their InstanceNumber."""
        count = self.voxels.shape[2]
        order = range(count - 1, -1, -1) if self.reverse else range(count)
        return [self._image(k, number) for number, k in enumerate(order, 1)]

    def _image(self, k: int, number: int) -> Dataset:
        image = self._common(MRImageStorage, f"{ROOT}.{self.series}.{number}")
        image.ImageType = ["ORIGINAL", "PRIMARY", "M"]
        image.InstanceNumber = number
        image.ImagePositionPatient = self.position(k)
        image.ImageOrientationPatient = self._directions()
        image.PixelSpacing = list(self.spacing[:2])
        image.SliceThickness = self.spacing[2]
        image.EchoTime = 3.5
        image.RescaleSlope, image.RescaleIntercept = self.slope, self.intercept
        image.PixelData = self.voxels[:, :, k].T.tobytes()
        return image

    def _directions(self) -> list[float]:
        return [float(f"{v:.10g}") for v in (*self.row, *self.column)]

    def _common(self, sop_class: UID, instance: str) -> Dataset:
        image = Dataset()
        image.SOPClassUID, image.SOPInstanceUID = sop_class, instance
        image.Modality = "MR"
        image.Manufacturer, image.ManufacturerModelName = "Drawn Systems", "Pencil 3T"
        image.DeviceSerialNumber = "424242"
        image.PatientName, image.PatientID, image.PatientBirthDate = CANARY, "canary-1", "19700101"
        image.PatientSex, image.StudyDate, image.StudyTime = "O", "20200101", "120000"
        image.AccessionNumber, image.StudyID = "canary-2", "1"
        image.ReferringPhysicianName = ""
        image.StudyInstanceUID = f"{ROOT}.9"
        image.SeriesInstanceUID = f"{ROOT}.{self.series}"
        image.FrameOfReferenceUID = f"{ROOT}.8"
        image.PositionReferenceIndicator = ""
        image.SeriesNumber = 7
        image.SeriesDescription = "t1 of canary"
        image.MagneticFieldStrength = 3
        image.RepetitionTime, image.FlipAngle = 1900, 9
        image.ScanningSequence, image.SequenceVariant = ["GR", "IR"], "MP"
        image.MRAcquisitionType = "3D"
        image.Columns, image.Rows = self.voxels.shape[:2]
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.BitsAllocated = self.voxels.dtype.itemsize * 8
        image.BitsStored, image.HighBit = self.bits, self.bits - 1
        image.PixelRepresentation = int(self.voxels.dtype.kind == "i")
        return image

    def enhanced(self, order: Sequence[int] | None = None) -> Dataset:
        """One multi-frame image; `order` says which slice is which frame."""
        count = self.voxels.shape[2]
        order = list(range(count)) if order is None else list(order)
        image = self._common(EnhancedMRImageStorage, f"{ROOT}.{self.series}.1")
        image.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
        image.InstanceNumber, image.NumberOfFrames = 1, len(order)
        image.ComplexImageComponent, image.PresentationLUTShape = "MAGNITUDE", "IDENTITY"
        image.ContentDate, image.ContentTime = "20200101", "120000"
        shared = Dataset()
        shared.PlaneOrientationSequence = [_item(ImageOrientationPatient=self._directions())]
        shared.PixelMeasuresSequence = [
            _item(PixelSpacing=list(self.spacing[:2]), SliceThickness=self.spacing[2])
        ]
        shared.MREchoSequence = [_item(EffectiveEchoTime=3.5)]
        image.SharedFunctionalGroupsSequence = [shared]
        image.PerFrameFunctionalGroupsSequence = Items([self._groups(k) for k in order])
        image.PixelData = b"".join(self.voxels[:, :, k].T.tobytes() for k in order)
        return image

    def _groups(self, k: int) -> Dataset:
        return _item(
            PlanePositionSequence=[_item(ImagePositionPatient=self.position(k))],
            FrameContentSequence=[_item(StackID="1", InStackPositionNumber=k + 1)],
            PixelValueTransformationSequence=[
                _item(RescaleSlope=self.slope, RescaleIntercept=self.intercept, RescaleType="US")
            ],
        )


def _item(**values: Any) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        setattr(item, keyword, value)
    return item


def as_bytes(image: Dataset, syntax: UID = ExplicitVRLittleEndian, preamble: bool = True) -> bytes:
    """The file of an image, or its bare data set."""
    image = deepcopy(image)
    stream = io.BytesIO()
    if syntax == ExplicitVRBigEndian and image.get("BitsAllocated") == 16:
        image.PixelData = np.frombuffer(image.PixelData, "<u2").astype(">u2").tobytes()
    if "PixelData" in image:
        image["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
    if not preamble:
        image.save_as(
            stream, implicit_vr=syntax == ImplicitVRLittleEndian,
            little_endian=syntax != ExplicitVRBigEndian, enforce_file_format=False,
        )  # fmt: skip
        return stream.getvalue()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = syntax
    image.file_meta.MediaStorageSOPClassUID = image.get("SOPClassUID", "")
    image.file_meta.MediaStorageSOPInstanceUID = image.get("SOPInstanceUID", "1.2")
    image.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def compressed(image: Dataset, kind: str, scratch: Path) -> bytes:
    """The file of an image, its pixels compressed by GDCM."""
    plain, packed = scratch / "plain.dcm", scratch / "packed.dcm"
    unscaled = deepcopy(image)
    unscaled.pop("RescaleSlope", None)
    unscaled.pop("RescaleIntercept", None)
    plain.write_bytes(as_bytes(unscaled))
    reader = gdcm.ImageReader()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change = gdcm.ImageChangeTransferSyntax()
    change.SetTransferSyntax(gdcm.TransferSyntax(COMPRESSED[kind]))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer = gdcm.ImageWriter()
    writer.SetFileName(str(packed))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()  # it makes enhanced images of classic ones, so take its pixels alone
    done = pydicom.dcmread(packed)
    result = deepcopy(image)
    result.PixelData = done.PixelData
    result["PixelData"].is_undefined_length = True
    return as_bytes(result, done.file_meta.TransferSyntaxUID)


def write_series(
    images: Sequence[Dataset], folder: Path, pack: Callable[[Dataset], bytes] = as_bytes
) -> Path:
    """The images as files whose names say nothing, in an order that says nothing either."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        name = f"{(number * 7919) % 1009:04d}"
        (folder / name).write_bytes(pack(image))
    return folder
