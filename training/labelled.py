"""A user's labelled scans in a network's space."""

from __future__ import annotations

import numpy as np

from models.cases import LabelledSlices
from models.spec import BackboneSpec
from normbank.anatomy import PROTOCOLS_DISAGREE, labels_to_classes, members_of
from normbank.anatomy import present_structures as present
from normbank.config import Settings
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.nifti import check_same_grid, read_labels, read_scan
from normbank.imaging.scan import Limits
from pipeline.segment import frame_outline, frame_scan
from training.manifest import Row


def read_case(
    row: Row, spec: BackboneSpec, predictor: SlicePredictor | None = None
) -> LabelledSlices:
    """One labelled scan as a network sees it.

    Parameters
    ----------
    predictor : finds the brain; None: the outline of the head has to do

    Returns
    -------
    LabelledSlices
        Every slice of the window. Annotated is what occurs in the labels, but
        for what protocols disagree about.

    Raises
    ------
    NormbankError
        A file that cannot be read, another grid, ids outside the scheme.
    """
    limits = Limits.of(Settings())
    scan = read_scan(row.scan, row.scan.name, limits)
    labels = read_labels(row.labels, row.labels.name, limits)
    check_same_grid(scan, labels)
    framed = frame_scan(scan, predictor, spec) if predictor else frame_outline(scan, spec)
    numbers = labels_to_classes(labels.data, row.scheme, spec.classes)
    known = set(present(labels.data, row.scheme)) - PROTOCOLS_DISAGREE
    annotated = [members_of([name]) <= known for name in spec.classes]
    return LabelledSlices(
        framed.slices,
        framed.label_slices(numbers, len(spec.classes)),
        np.array(annotated),
        consecutive=True,
    )
