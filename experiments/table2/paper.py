"""What Karani et al., MICCAI 2018, print: table 2, mean Dice on their test volumes.

Facts to compare with, no target: their scans are real, ours are simulated.
"""

from __future__ import annotations

from typing import NamedTuple

from normbank.anatomy import EVALUATED


class Row(NamedTuple):
    """One row of the table.

    Attributes
    ----------
    network : as the paper writes it, `bn` for its superscript, `k*` for the closest domain
    domain : whose test scans are segmented
    state : which batch norm is used; `shared` where there is only one
    """

    network: str
    domain: str
    state: str


class Printed(NamedTuple):
    """What the paper prints in one row: Dice in the order of `EVALUATED`, and the mean."""

    dice: tuple[float, ...]
    mean: float


FINE_TUNED = {"D4": "N123→4", "D5": "N123→5"}
ADAPTED = {"D4": "Nbn123,k*→4", "D5": "Nbn123,k*→5"}
MATCHED = "N123, HistEq"

_PRINTED = """
N1           | D1 | bn1    | 0.919 0.861 0.849 0.901 0.900 0.887 0.747 | 0.866
N2           | D2 | bn2    | 0.912 0.840 0.836 0.891 0.889 0.876 0.736 | 0.854
N3           | D3 | bn3    | 0.913 0.872 0.810 0.944 0.864 0.879 0.853 | 0.876
N4           | D4 | bn4    | 0.924 0.879 0.853 0.933 0.912 0.900 0.851 | 0.893
N5           | D5 | bn5    | 0.884 0.790 0.773 0.803 0.793 0.818 0.791 | 0.810
N123         | D1 | shared | 0.909 0.846 0.824 0.891 0.878 0.877 0.745 | 0.853
N123         | D2 | shared | 0.888 0.838 0.815 0.876 0.863 0.860 0.701 | 0.834
N123         | D3 | shared | 0.905 0.851 0.792 0.938 0.863 0.873 0.828 | 0.864
N123         | D4 | shared | 0.745 0.249 0.057 0.787 0.428 0.324 0.071 | 0.380
N123, HistEq | D4 | shared | 0.641 0.428 0.175 0.754 0.628 0.579 0.303 | 0.501
N123→4       | D4 | shared | 0.910 0.856 0.740 0.922 0.894 0.859 0.786 | 0.852
N123→4       | D1 | shared | 0.869 0.809 0.773 0.867 0.861 0.722 0.667 | 0.795
N123→4       | D2 | shared | 0.676 0.418 0.512 0.105 0.635 0.400 0.411 | 0.451
N123→4       | D3 | shared | 0.801 0.762 0.650 0.753 0.728 0.715 0.772 | 0.740
N123         | D5 | shared | 0.418 0.178 0.182 0.438 0.268 0.197 0.025 | 0.244
N123, HistEq | D5 | shared | 0.294 0.143 0.160 0.437 0.261 0.293 0.010 | 0.228
N123→5       | D5 | shared | 0.861 0.777 0.761 0.799 0.760 0.796 0.741 | 0.785
N123→5       | D1 | shared | 0.267 0.022 0.173 0.004 0.050 0.002 0.004 | 0.075
N123→5       | D2 | shared | 0.574 0.574 0.564 0.739 0.657 0.521 0.526 | 0.594
N123→5       | D3 | shared | 0.147 0.029 0.160 0.006 0.114 0.039 0.003 | 0.071
Nbn123       | D1 | bn1    | 0.916 0.852 0.840 0.894 0.893 0.884 0.729 | 0.858
Nbn123       | D2 | bn2    | 0.910 0.853 0.843 0.887 0.882 0.873 0.749 | 0.857
Nbn123       | D3 | bn3    | 0.911 0.868 0.818 0.944 0.867 0.879 0.846 | 0.876
Nbn123       | D4 | bn1    | 0.621 0.288 0.218 0.173 0.676 0.576 0.457 | 0.430
Nbn123       | D4 | bn2    | 0.162 0.000 0.001 0.001 0.040 0.017 0.000 | 0.032
Nbn123       | D4 | bn3    | 0.721 0.271 0.305 0.549 0.569 0.515 0.297 | 0.461
Nbn123,k*→4  | D4 | bn4    | 0.878 0.830 0.772 0.907 0.875 0.852 0.772 | 0.841
Nbn123       | D5 | bn1    | 0.001 0.019 0.062 0.008 0.004 0.000 0.000 | 0.013
Nbn123       | D5 | bn2    | 0.354 0.123 0.268 0.225 0.407 0.276 0.366 | 0.288
Nbn123       | D5 | bn3    | 0.000 0.003 0.031 0.001 0.000 0.000 0.000 | 0.005
Nbn123,k*→5  | D5 | bn5    | 0.774 0.687 0.687 0.761 0.669 0.714 0.713 | 0.715
"""


def _parse(line: str) -> tuple[Row, Printed]:
    network, domain, state, dice, mean = (cell.strip() for cell in line.split("|"))
    values = tuple(float(value) for value in dice.split())
    assert len(values) == len(EVALUATED)
    return Row(network, domain, state), Printed(values, float(mean))


TABLE_2: dict[Row, Printed] = dict(_parse(line) for line in _PRINTED.strip().splitlines())
"""In the paper's order. It prints 0.81 for N5, whose seven structures give 0.807."""
