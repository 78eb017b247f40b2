"""Scans in the ways in which files go wrong, on heads whose right answer is known.

    python -m bench.robustness.odd_scans MANIFEST [--subjects …] [--domain …] [--only …]

Prints one JSON line for each head and kind of `simulate.odd_scans`: what is
refused and why, or the mean Dice of the evaluated structures, of both sides
together and of the deep ones of each side, the flags, and the seconds that it took.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.robustness.heads import LIMITS, Head, Subjects, parser_of, subjects_of
from normbank.errors import NormbankError
from normbank.imaging.nifti import read_scan
from pipeline.segment import segment_scan
from simulate.odd_scans import ODD_SCANS


def outcome(kind: str, head: Head, subjects: Subjects, folder: Path) -> dict[str, Any]:
    """What comes of one odd scan."""
    odd = ODD_SCANS[kind](head.data, head.affine)
    path = folder / "scan.nii"
    path.write_bytes(odd.file)
    started = time.perf_counter()
    try:
        answer = segment_scan(read_scan(path, LIMITS), subjects.predictor, subjects.space)
    except NormbankError as error:
        return {"refused": error.code, "reason": str(error)}
    seconds = time.perf_counter() - started
    ids = odd.back(answer.ids)
    left, right = head.dice_of_sides(ids)
    return {
        "dice": round(head.dice(ids), 3),
        "left": round(left, 3),
        "right": round(right, 3),
        "flags": sorted({f"{flag.code} {flag.severity}" for flag in answer.flags}),
        "seconds": round(seconds, 1),
    }


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--only", default="", help="a part of the kinds' names")
    options = parser.parse_args()
    subjects = subjects_of(options)
    with tempfile.TemporaryDirectory() as folder:
        for head in subjects.heads:
            for kind in ODD_SCANS:
                if options.only in kind:
                    found = outcome(kind, head, subjects, Path(folder))
                    print(json.dumps({"head": head.name, "kind": kind, **found}), flush=True)


if __name__ == "__main__":
    main()
