"""The printed table is complete and adds up."""

from __future__ import annotations

import numpy as np
import pytest

from experiments.table2.results import TableRow, read_paper
from normbank.anatomy import EVALUATED


def test_the_table_has_the_papers_rows():
    paper = read_paper()
    assert len(paper) == 31
    assert list(paper) == [*EVALUATED, "mean"]
    assert paper.notna().all(axis=None)


@pytest.mark.parametrize("row", [TableRow(*key) for key in read_paper().index], ids="-".join)
def test_the_means_are_those_of_the_structures(row):
    # N5 is printed as 0.81 where its structures give 0.807.
    allowed = 0.0031 if row == TableRow("N5", "D5", "bn5") else 0.0011
    figures = read_paper().loc[row]
    assert np.mean(figures[list(EVALUATED)]) == pytest.approx(figures["mean"], abs=allowed)
