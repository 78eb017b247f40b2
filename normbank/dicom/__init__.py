"""DICOM: series in, segmentations and reports out."""

import warnings

# What the libraries warn of quotes the header: a name, a date of birth.
for _module in ("pydicom", "highdicom", "normbank\\.dicom"):
    warnings.filterwarnings("ignore", category=UserWarning, module=_module)
