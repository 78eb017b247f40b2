"""Labelled scans: read, and shown to a network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from models.cases import LabelledSlices, map_array
from models.spec import BackboneSpec
from normbank.anatomy import BACKGROUND, labels_to_classes, members_of, present_structures
from normbank.errors import EmptyScanError
from normbank.imaging.brain import SlicePredictor
from normbank.imaging.nifti import check_same_grid, read_labels, read_scan
from normbank.imaging.scan import Limits, Scan
from pipeline.crop import CroppedScan, crop_to_brain, crop_to_outline


@dataclass(frozen=True)
class LabelledFiles:
    """Where a scan and its reference lie.

    Attributes
    ----------
    scheme : one of `normbank.anatomy.LABEL_SCHEMES`
    """

    scan: Path
    labels: Path
    scheme: str


class LabelledCase(Protocol):
    """One case on its own grid, in memory or in files."""

    @property
    def id(self) -> str: ...

    def annotates(self, name: str) -> bool:
        """Whether a structure, or every member of a group, is annotated."""

    def opened(self) -> LabelledScan:
        """Its voxels; ask again rather than keep them: those in files cost memory while held."""


@dataclass(frozen=True, eq=False)
class LabelledScan:
    """One case on its own grid.

    Attributes
    ----------
    id : names it among the cases of its domain
    reference : (X, Y, Z) uint8, classes of the backbone
    structures : names that the reference can be asked about; no groups
    """

    id: str
    scan: Scan
    reference: npt.NDArray[np.uint8]
    structures: frozenset[str]

    def annotates(self, name: str) -> bool:
        """Whether a structure, or every member of a group, is annotated."""
        return members_of([name]) <= self.structures

    def opened(self) -> LabelledScan:
        """Itself; see `LabelledCase`."""
        return self

    def slices(self, predictor: SlicePredictor | None, spec: BackboneSpec) -> LabelledSlices:
        """What a network sees of it, with the reference beside.

        Parameters
        ----------
        predictor : finds the brain; None, or one that sees none: the outline
            of the head has to do

        Raises
        ------
        EmptyScanError
            If nothing stands out from the background.
        """
        cropped = self._cropped(predictor, spec)
        annotated = np.array([self.annotates(name) for name in spec.classes])
        classes = cropped.label_slices(self.reference, len(spec.classes))
        return LabelledSlices(cropped.slices, classes, annotated, consecutive=True)

    def _cropped(self, predictor: SlicePredictor | None, spec: BackboneSpec) -> CroppedScan:
        if predictor is not None:
            try:
                return crop_to_brain(self.scan, predictor, spec)
            except EmptyScanError:
                pass  # a state that sees no brain cannot say where it is
        return crop_to_outline(self.scan, spec)


@dataclass(frozen=True, eq=False)
class StoredScan:
    """The same in two files, of which no more is in memory than is looked at.

    Attributes
    ----------
    data, reference : `.npy` files in the scan's order
    bare : the case without its voxels
    """

    data: Path
    reference: Path
    bare: LabelledScan

    @classmethod
    def of(cls, case: LabelledScan, folder: Path) -> StoredScan:
        """Write a case into a folder."""
        data, reference = folder / f"{case.id}-scan.npy", folder / f"{case.id}-reference.npy"
        np.save(data, case.scan.data)
        np.save(reference, case.reference)
        scan = replace(case.scan, data=np.zeros((0, 0, 0), np.float32))
        none = np.zeros((0, 0, 0), np.uint8)
        return cls(data, reference, replace(case, scan=scan, reference=none))

    @property
    def id(self) -> str:
        """Names it among the cases of its domain."""
        return self.bare.id

    def annotates(self, name: str) -> bool:
        """See `LabelledCase`."""
        return self.bare.annotates(name)

    def opened(self) -> LabelledScan:
        """See `LabelledCase`; mapped anew each time, so that memory is given back with it."""
        scan = replace(self.bare.scan, data=map_array(self.data))
        return replace(self.bare, scan=scan, reference=map_array(self.reference))


def read_labelled(
    name: str,
    files: LabelledFiles,
    classes: Sequence[str],
    limits: Limits,
    *,
    structures: Sequence[str] | None = None,
    leave_out: frozenset[str] = frozenset(),
) -> LabelledScan:
    """Read a scan with its reference.

    Parameters
    ----------
    name : its id
    classes : of the backbone that the reference is translated to
    structures : annotated ones and groups; None: those that occur
    leave_out : structures that are not asked about

    Raises
    ------
    NormbankError
        A file that cannot be read, another grid, ids outside the scheme.
    """
    scan = read_scan(files.scan, limits)
    labels = read_labels(files.labels, limits)
    check_same_grid(scan, labels)
    reference = labels_to_classes(labels.data, files.scheme, classes)
    if structures is None:
        structures = present_structures(labels.data, files.scheme)
    annotated = members_of(structures) - {BACKGROUND} - leave_out
    return LabelledScan(name, scan, reference, frozenset(annotated))
