"""The manifest of the development data's scanners, as CSV.

    python bench/development_manifest.py FOLDER cases.csv [--simulated]

FOLDER holds `georgetown/`, `oasis/` and `labelmaps/` as laid out in the
development data's README; a user does not have it. The first four subjects of
each scanner are the labelled cases, all others only judge. With `--simulated`
two simulated scanners (D4 and D5 of the table-2 study, at the label maps'
spacing) come first; their scans are written beside the manifest.
"""

from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from simulate import SCANNERS, deform, scan

_nibabel: Any = nibabel  # it has no types for what is used here

ADAPT = {
    "oasis": ("1000", "1001", "1002", "1006"),
    "georgetown": ("sub-01", "sub-02", "sub-03", "sub-04"),
}
FILES = {
    "oasis": ("{}_t1w_brain.nii.gz", "{}_labels_nm.nii.gz", "neuromorphometrics"),
    "georgetown": ("{}_T1w.mgz", "{}_aseg.mgz", "freesurfer"),
}
SIMULATED = ("d4-t1w-3t-raw", "d5-t2w-3t-raw")
HEADS = {"adapt": (1, 2, 3, 4), "test": (11, 12, 13)}
OTHER_IDS = 500  # from here on ids stand for tissue outside the brain

Row = tuple[str, Path, Path, str, str]


def real(data: Path) -> Iterator[Row]:
    """Subjects of the two real scanners."""
    for scanner, (name, labels, scheme) in FILES.items():
        for path in sorted((data / scanner).glob(name.format("*"))):
            subject = path.name.removesuffix(name.format(""))
            role = "adapt" if subject in ADAPT[scanner] else "test"
            yield scanner, path, path.with_name(labels.format(subject)), scheme, role


def simulated(labelmaps: Path, out: Path) -> Iterator[Row]:
    """Deformed heads, scanned anew; no head on both sides."""
    out.mkdir(parents=True, exist_ok=True)
    for index, scanner in enumerate(SIMULATED):
        for role, heads in HEADS.items():
            for head in heads:
                name = f"{scanner}_head_{head:02d}"
                files = out / f"{name}.nii.gz", out / f"{name}_labels.nii.gz"
                if not files[1].exists():
                    source = _nibabel.as_closest_canonical(
                        _nibabel.load(labelmaps / f"head_{head:02d}.nii.gz")
                    )
                    seed = 1000 * (index + 1) + head
                    spacing = source.header.get_zooms()[:3]
                    labels = np.asanyarray(source.dataobj).astype(np.int16)
                    labels = deform(labels, seed, spacing_mm=spacing).astype(np.int16)
                    simulated_scan = scan(labels, source.affine, SCANNERS[scanner], seed + 1)
                    ids = np.where(
                        simulated_scan.labels < OTHER_IDS, simulated_scan.labels, 0
                    ).astype(np.int16)
                    _nibabel.save(
                        _nibabel.Nifti1Image(simulated_scan.data, simulated_scan.affine), files[0]
                    )
                    _nibabel.save(_nibabel.Nifti1Image(ids, simulated_scan.affine), files[1])
                yield scanner, *files, "freesurfer", role


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--simulated", action="store_true")
    options = parser.parse_args()
    data, manifest = options.data.resolve(), options.manifest.resolve()
    rows = list(real(data))
    if options.simulated:
        rows = [*simulated(data / "labelmaps", manifest.parent / "simulated"), *rows]
    with manifest.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("domain", "scan", "labels", "scheme", "role"))
        for scanner, image, labels, scheme, role in rows:
            files = (os.path.relpath(path, manifest.parent) for path in (image, labels))
            writer.writerow((scanner, *files, scheme, role))


if __name__ == "__main__":
    main()
