"""The manifest of the two real scanners of the development data, as CSV.

    python bench/development_manifest.py FOLDER cases.csv

FOLDER holds `georgetown/` and `oasis/` as laid out in the development data's
README; a user does not have it. The first four subjects of each scanner are
the labelled cases, all others only judge.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

ADAPT = {
    "oasis": ("1000", "1001", "1002", "1006"),
    "georgetown": ("sub-01", "sub-02", "sub-03", "sub-04"),
}
FILES = {
    "oasis": ("{}_t1w_brain.nii.gz", "{}_labels_nm.nii.gz", "neuromorphometrics"),
    "georgetown": ("{}_T1w.mgz", "{}_aseg.mgz", "freesurfer"),
}


def main() -> None:
    data, manifest = (Path(argument).resolve() for argument in sys.argv[1:3])
    rows = [("domain", "scan", "labels", "scheme", "role")]
    for scanner, (scan, labels, scheme) in FILES.items():
        for path in sorted((data / scanner).glob(scan.format("*"))):
            subject = path.name.removesuffix(scan.format(""))
            role = "adapt" if subject in ADAPT[scanner] else "test"
            files = (path, path.with_name(labels.format(subject)))
            scan_file, labels_file = (os.path.relpath(file, manifest.parent) for file in files)
            rows.append((scanner, scan_file, labels_file, scheme, role))
    with manifest.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


if __name__ == "__main__":
    main()
