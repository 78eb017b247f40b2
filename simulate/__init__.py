"""Labels become scans of simulated scanners; plain arrays in and out."""

from simulate.acquisition import SimulatedScan, scan
from simulate.deform import (
    NO_DEFORMATION,
    UPRIGHT_DEFORMATION,
    WIDE_DEFORMATION,
    Deformation,
    deform,
)
from simulate.scanner import SCANNERS, Scanner, altered, random_contrast, random_scanner
from simulate.tissue import CONTRASTS, TISSUE_IDS, TISSUES, Brightness, Contrast

__all__ = [
    "CONTRASTS",
    "NO_DEFORMATION",
    "SCANNERS",
    "TISSUES",
    "TISSUE_IDS",
    "UPRIGHT_DEFORMATION",
    "WIDE_DEFORMATION",
    "Brightness",
    "Contrast",
    "Deformation",
    "Scanner",
    "SimulatedScan",
    "altered",
    "deform",
    "random_contrast",
    "random_scanner",
    "scan",
]
