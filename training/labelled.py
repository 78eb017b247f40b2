"""A user's labelled scans in a network's space."""

from __future__ import annotations

from models.cases import LabelledSlices
from models.spec import BackboneSpec
from normbank.anatomy import PROTOCOLS_DISAGREE
from normbank.config import Settings
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.scan import Limits
from pipeline.cases import LabelledFiles, LabelledScan, read_labelled
from training.manifest import Row


def read_row(
    row: Row, spec: BackboneSpec, *, leave_out: frozenset[str] = frozenset()
) -> LabelledScan:
    """A manifest's scan with its reference; annotated is what occurs in the labels.

    Parameters
    ----------
    leave_out : structures that are not asked about

    Raises
    ------
    NormbankError
        A file that cannot be read, another grid, ids outside the scheme.
    """
    files = LabelledFiles(row.scan, row.labels, row.scheme)
    return read_labelled(row.name, files, spec.classes, Limits.of(Settings()), leave_out=leave_out)


def read_case(
    row: Row, spec: BackboneSpec, predictor: SlicePredictor | None = None
) -> LabelledSlices:
    """One labelled scan as a network sees it.

    Parameters
    ----------
    predictor : finds the brain; None, or one that sees none: the outline of the
        head has to do, as in an adaptation

    Returns
    -------
    LabelledSlices
        Every slice of the window. Annotated is what occurs in the labels, but
        for what protocols disagree about.

    Raises
    ------
    NormbankError
        See `read_row`.
    """
    return read_row(row, spec, leave_out=PROTOCOLS_DISAGREE).slices(predictor, spec)
