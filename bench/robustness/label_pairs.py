"""Scans with labels that are theirs, and with labels that are not.

    python -m bench.robustness.label_pairs MANIFEST [--subjects …] [--domain …] [--right-only]

Prints one JSON line for each pair: codes for which `POST /domains` would refuse it, by the
labels alone and then against what the stored state sees, and codes of milder doubts.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import numpy as np

from bench.robustness.heads import Head, Subjects, parser_of, subjects_of
from normbank.anatomy import sided_ids, structures_of
from normbank.entities import Flag
from normbank.entities.flags import severe_ones
from normbank.imaging.scan import LabelVolume, Scan
from pipeline.label_check import check_labels, compare_with_answer
from pipeline.segment import SegmentedScan, segment_scan
from simulate.wrong_labels import WRONG_LABELS, Ids


def wrong_pairs(head: Head, other: Head) -> Iterator[tuple[str, Scan, Ids, str]]:
    """Kind, scan, labels and the scheme they are said to be of."""
    sides = sided_ids(head.scheme)
    for kind, change in WRONG_LABELS.items():
        yield kind, head.scan, change(head.labels, sides), head.scheme
    yield "another person's", head.scan, fitted(other.labels, head.data.shape), head.scheme
    map_as_scan = Scan(head.labels.astype(np.float32), head.affine)
    yield "label map as scan", map_as_scan, head.labels, head.scheme
    scheme = "freesurfer" if head.scheme != "freesurfer" else "neuromorphometrics"
    known = np.isin(head.labels, list(structures_of(scheme)))
    yield "another scheme's", head.scan, np.where(known, head.labels, 0), scheme


def fitted(labels: Ids, shape: tuple[int, ...]) -> Ids:
    """Labels of another grid's voxels, cut or filled up."""
    there = np.zeros(shape, np.int32)
    part = tuple(slice(0, min(a, b)) for a, b in zip(labels.shape, shape, strict=True))
    there[part] = labels[part]
    return there


def doubts(
    scan: Scan, affine: np.ndarray, ids: Ids, scheme: str, answer: SegmentedScan
) -> list[Flag]:
    """What is doubtful about a pair."""
    labels = LabelVolume(ids.astype(np.int32), affine)
    flags = list(check_labels(scan, labels, scheme).flags)
    if not severe_ones(flags):
        flags += compare_with_answer(scan, labels, scheme, answer)
    return flags


def try_head(head: Head, other: Head, subjects: Subjects, *, right_only: bool) -> Counter[str]:
    """All pairs of one head; how many of each kind are refused."""
    counts: Counter[str] = Counter()
    answer = segment_scan(head.scan, subjects.predictor, subjects.space)
    pairs = [("right", head.scan, head.labels, head.scheme)]
    for kind, scan, ids, scheme in (*pairs, *(() if right_only else wrong_pairs(head, other))):
        flags = doubts(scan, head.affine, ids, scheme, answer)
        refused = [flag.code for flag in severe_ones(flags)]
        mild = [flag.code for flag in flags if flag.code not in refused]
        sort = "right" if kind == "right" else "wrong"
        counts.update({sort: 1, f"{sort} refused": bool(refused), f"{sort} flagged": bool(flags)})
        line = {"head": head.name, "kind": kind, "refused": refused, "doubts": mild}
        print(json.dumps(line), flush=True)
    return counts


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--right-only", action="store_true")
    options = parser.parse_args()
    subjects = subjects_of(options)
    counts: Counter[str] = Counter()
    heads = list(subjects.heads)
    for head, other in zip(heads, heads[1:] + heads[:1], strict=True):
        counts.update(try_head(head, other, subjects, right_only=options.right_only))
    print(json.dumps(dict(counts)))


if __name__ == "__main__":
    main()
