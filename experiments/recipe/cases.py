"""The scans of the study in the network's space at 2 mm, made once and kept in a folder.

    python -m experiments.recipe.cases --data FOLDER --cache FOLDER [--count 250]

The data's folder is laid out as the development data's README says; a user
does not have it. The cache is never to be committed: it holds real scans.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.cases import LabelledSlices
from models.spec import BackboneSpec
from normbank.anatomy import PROTOCOLS_DISAGREE, STRUCTURES, labels_to_classes, members_of
from normbank.anatomy import present_structures as present
from normbank.config import Settings
from normbank.imaging.geometry import Geometry
from normbank.imaging.intensity import divide_by_percentile
from normbank.imaging.nifti import read_labels, read_scan
from normbank.imaging.scan import Limits
from normbank.imaging.window import Window
from training.families import FAMILIES
from training.heads import CROWN_MM, draw_case, label_maps

SPEC = BackboneSpec(
    name="recipe",
    classes=STRUCTURES,
    down=(16, 32, 64, 128),
    up=(64, 32, 16),
    spacing_mm=2.0,
    window=(96, 112, 80),
)
HEADS = {"train": slice(0, 12), "valid": slice(12, 14)}
SCANS = {  # the labelled cases for adaptation; never a test scan
    "oasis": ("1000", "1001", "1002", "1006"),
    "georgetown": ("sub-01", "sub-02", "sub-03", "sub-04"),
}
FILES = {
    "oasis": ("{}_t1w_brain.nii.gz", "{}_labels_nm.nii.gz", "neuromorphometrics"),
    "georgetown": ("{}_T1w.mgz", "{}_aseg.mgz", "freesurfer"),
}
MARGIN = 8  # voxels beyond any brain, at every edge of an axial slice
LIMITS = Limits.of(Settings())


@dataclass(frozen=True)
class Scans:
    """Scans of the same window.

    Attributes
    ----------
    domains : (n,) a family of simulated scanners, or a folder of real scans
    images : (n, N, H, W) float16, intensities by percentile; axial slices
    classes : (n, N, H, W) uint8
    annotated : (n, K) bool; nothing where there are no labels
    """

    domains: Sequence[str]
    images: npt.NDArray[np.float16]
    classes: npt.NDArray[np.uint8]
    annotated: npt.NDArray[np.bool_]

    @classmethod
    def load(cls, cache: Path, name: str) -> Scans:
        """Read what `make` kept; arrays are mapped, so that runs share their memory."""
        folder = cache / name
        arrays = [
            np.load(folder / f"{part}.npy", mmap_mode="r")
            for part in ("images", "classes", "annotated")
        ]
        return cls((folder / "domains.txt").read_text().split(), *arrays)

    def first(self, count: int) -> Scans:
        """Some of the scans, cut to the brain and little more."""
        at = np.s_[:count, :, MARGIN:-MARGIN, MARGIN:-MARGIN]
        return Scans(
            self.domains[:count], self.images[at], self.classes[at], self.annotated[:count]
        )


def keep(cases: Iterator[tuple[str, LabelledSlices]], count: int, folder: Path) -> None:
    """Write `count` cases, one after the other, as `Scans.load` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    depth = SPEC.window[SPEC.slice_axis]
    shape = (count, depth, *SPEC.slice_shape)
    images = np.lib.format.open_memmap(folder / "images.npy", "w+", np.float16, shape)
    classes = np.lib.format.open_memmap(folder / "classes.npy", "w+", np.uint8, shape)
    annotated, domains = [], []
    for number, (domain, case) in enumerate(cases):
        images[number], classes[number] = case.images, case.classes
        annotated.append(case.annotated)
        domains.append(domain)
    np.save(folder / "annotated.npy", np.stack(annotated))
    (folder / "domains.txt").write_text("\n".join(domains))


def simulated(data: Path, role: str, count: int, seed: int) -> Iterator[tuple[str, LabelledSlices]]:
    """Simulated scans; the families take turns, in proportion to nothing."""
    heads = label_maps(data / "labelmaps")[HEADS[role]]
    names = list(FAMILIES)
    for number in range(count):
        name = names[number % len(names)]
        head = heads[number // len(names) % len(heads)]
        yield name, draw_case(head, FAMILIES[name], SPEC, seed * 1_000_003 + number)


def real(data: Path) -> Iterator[tuple[str, LabelledSlices]]:
    """The labelled cases of both real scanners, the window placed by their labels."""
    for scanner, subjects in SCANS.items():
        name, labels, scheme = FILES[scanner]
        for subject in subjects:
            path, reference = (data / scanner / f.format(subject) for f in (name, labels))
            yield scanner, _real_case(path, reference, scheme)


def unlabelled(data: Path) -> Iterator[tuple[str, LabelledSlices]]:
    """Real scans without labels, the window placed by the stripped brain."""
    for path in sorted((data / "cc0").glob("*.nii.gz")):
        yield "cc0", _real_case(path, None, "")


def _real_case(path: Path, reference: Path | None, scheme: str) -> LabelledSlices:
    scan = read_scan(path, LIMITS)
    geometry = Geometry.of(scan, SPEC.spacing_mm)
    volume = geometry.to_network(scan.data)
    truth, annotated = (volume > 0).astype(np.uint8), np.zeros(len(SPEC.classes), bool)
    if reference is not None:
        ids = read_labels(reference, LIMITS).data
        numbers = labels_to_classes(ids, scheme, SPEC.classes)
        truth = geometry.labels_to_network(numbers, len(SPEC.classes))
        known = set(present(ids, scheme)) - PROTOCOLS_DISAGREE
        annotated = np.array([members_of([name]) <= known for name in SPEC.classes])
    window = Window(SPEC.window, _centre(truth))
    images = divide_by_percentile(window.cut(volume), SPEC.percentile)
    box = window.cut(truth)
    return LabelledSlices(
        np.moveaxis(images, SPEC.slice_axis, 0), np.moveaxis(box, SPEC.slice_axis, 0), annotated
    )


def _centre(truth: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The middle of the labels, the crown as far below the top as the service puts it."""
    where = np.argwhere((truth > 0) & (truth != SPEC.classes.index("csf")))
    low, high = where.min(0), where.max(0) + 1
    centre = (low + high) / 2
    centre[2] = high[2] + CROWN_MM / SPEC.spacing_mm - SPEC.window[2] / 2
    return np.asarray(centre)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--count", type=int, default=250, help="simulated scans to learn from")
    parser.add_argument("--valid", type=int, default=20, help="simulated scans to judge by")
    options = parser.parse_args()
    data, cache = options.data, options.cache
    keep(real(data), sum(map(len, SCANS.values())), cache / "real")
    count = len(list((data / "cc0").glob("*.nii.gz")))
    keep(unlabelled(data), count, cache / "cc0")
    keep(simulated(data, "valid", options.valid, 1), options.valid, cache / "valid")
    keep(simulated(data, "train", options.count, 0), options.count, cache / "train")


if __name__ == "__main__":
    main()
