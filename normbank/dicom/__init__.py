"""DICOM: series in, segmentations and reports out."""

import warnings

# What these libraries warn of quotes the header: a name, a date of birth.
for _library in ("pydicom", "highdicom"):
    warnings.filterwarnings("ignore", category=UserWarning, module=rf"{_library}(\.|$)")
