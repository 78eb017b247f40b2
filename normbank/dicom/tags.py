"""Numbers of the data elements that are asked for, by their keywords."""

from __future__ import annotations

from pydicom.datadict import tag_for_keyword


def tag(keyword: str) -> int:
    """The number of a data element; KeyError where the dictionary does not have it."""
    number = tag_for_keyword(keyword)
    if number is None:
        raise KeyError(keyword)
    return int(number)


IMAGE_TYPE = tag("ImageType")
SOP_CLASS = tag("SOPClassUID")
SOP_INSTANCE = tag("SOPInstanceUID")
MODALITY = tag("Modality")
PATIENT = tag("PatientID")
STUDY = tag("StudyInstanceUID")
SERIES = tag("SeriesInstanceUID")
SERIES_NUMBER = tag("SeriesNumber")
FRAME_OF_REFERENCE = tag("FrameOfReferenceUID")
INSTANCE_NUMBER = tag("InstanceNumber")
IN_STACK_POSITION = tag("InStackPositionNumber")
POSITION = tag("ImagePositionPatient")
ORIENTATION = tag("ImageOrientationPatient")
PIXEL_SPACING = tag("PixelSpacing")
BETWEEN_SLICES = tag("SpacingBetweenSlices")
SAMPLES = tag("SamplesPerPixel")
PHOTOMETRIC = tag("PhotometricInterpretation")
FRAMES = tag("NumberOfFrames")
ROWS = tag("Rows")
COLUMNS = tag("Columns")
BITS_ALLOCATED = tag("BitsAllocated")
BITS_STORED = tag("BitsStored")
HIGH_BIT = tag("HighBit")
SIGNED = tag("PixelRepresentation")
SLOPE = tag("RescaleSlope")
INTERCEPT = tag("RescaleIntercept")
MODALITY_LUT = tag("ModalityLUTSequence")
LOSSY = tag("LossyImageCompression")
ACQUISITION_MATRIX = tag("AcquisitionMatrix")
COMPLEX_COMPONENT = tag("ComplexImageComponent")
IMAGES_IN_ACQUISITION = tag("ImagesInAcquisition")
RELATED_INSTANCES = tag("NumberOfSeriesRelatedInstances")
NUMBER_OF_SLICES = tag("NumberOfSlices")
SHARED_GROUPS = tag("SharedFunctionalGroupsSequence")
FRAME_GROUPS = tag("PerFrameFunctionalGroupsSequence")
ECHO_TIME = tag("EchoTime")
EFFECTIVE_ECHO_TIME = tag("EffectiveEchoTime")
B_VALUE = tag("DiffusionBValue")
FRAME_TYPE = tag("FrameType")
