"""What the gate measures on whole scans."""

from __future__ import annotations

import numpy as np

from normbank.imaging.masks import box_of
from normbank.imaging.metrics import dice, hd95_mm
from normbank.imaging.scan import Scan
from pipeline.cases import LabelledScan
from pipeline.evaluate import _agreement

SHAPE, SPACING_MM = (30, 26, 22), (1.0, 1.0, 2.0)


def test_scores_within_the_box_are_those_of_the_whole_scan() -> None:
    """The first structure is in both, the second in one of them, the third in none."""
    reference, answer = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    reference[8:15, 6:14, 5:9], answer[9:17, 6:13, 5:10] = 1, 1
    answer[20:22, 9:12, 6:8] = 2
    scan = Scan(np.zeros(SHAPE, np.float32), np.diag([*SPACING_MM, 1.0]))
    case = LabelledScan("a", scan, reference, frozenset())
    box = box_of(answer | reference)
    assert box == (slice(8, 22), slice(6, 14), slice(5, 10))
    scores = []
    for number in (1, 2, 3):
        mine, theirs = answer == number, reference == number
        whole = dice(mine, theirs), hd95_mm(mine, theirs, SPACING_MM)
        scores.append(_agreement(case, answer, box, np.arange(4) == number))
        assert scores[-1] == whole
    assert scores[1][0] == 0.0
    assert scores[2] == (None, None)
