"""How large the structures of a head are, and where they lie: what answers are held against.

Volumes: the least and greatest of 14 label maps of whole heads (young to strongly
atrophied), 16 reference segmentations of two scanners and normbank's own answers for 45
scans of adults, by side. Positions: the median of those answers. Both are made by
`bench/reference_anatomy.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple


class Reference(NamedTuple):
    """One structure of one side, or one without sides.

    Attributes
    ----------
    least_ml, greatest_ml : volumes met
    x, y, z : mm to the right, to the front and up from the middle of the brain; of the
        right one where it is paired
    deep : a nucleus or its like, compact and met in every brain
    """

    least_ml: float
    greatest_ml: float
    x: float
    y: float
    z: float
    deep: bool = False


REFERENCES: Mapping[str, Reference] = MappingProxyType(
    {
        "cerebellum-gm": Reference(36.0, 78.0, 22.8, -34.1, -42.8),
        "cerebellum-wm": Reference(10.0, 22.0, 17.0, -26.4, -39.9),
        "cerebral-gm": Reference(155.0, 375.0, 29.6, 3.2, 5.6),
        "cerebral-wm": Reference(149.0, 285.0, 25.5, 3.1, 8.3),
        "thalamus": Reference(5.7, 10.4, 10.5, 3.4, -0.9, deep=True),
        "hippocampus": Reference(2.1, 5.2, 23.5, 2.6, -19.9, deep=True),
        "amygdala": Reference(0.8, 2.4, 20.7, 18.9, -22.8, deep=True),
        "lateral-ventricle": Reference(2.2, 34.0, 12.9, 4.0, 4.3),
        "third-ventricle": Reference(0.3, 3.6, 0.0, 11.3, -10.2),
        "fourth-ventricle": Reference(0.8, 3.4, 0.0, -17.6, -38.3),
        "caudate": Reference(2.5, 4.8, 11.9, 29.0, 3.8, deep=True),
        "putamen": Reference(3.5, 7.2, 24.2, 21.8, -5.8, deep=True),
        "pallidum": Reference(0.77, 2.75, 18.7, 17.9, -6.8, deep=True),
        "ventral-dc": Reference(2.8, 6.0, 9.9, 7.5, -15.2, deep=True),
        "brain-stem": Reference(15.3, 26.6, 0.0, -4.9, -35.9, deep=True),
    }
)

BRAIN_ML = (970.0, 1515.0)
"""Of all these structures together: without the fluid around them."""
