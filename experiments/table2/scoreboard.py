"""Scores of networks on test scans, each measured once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from experiments.kit.scoring import Judge, ScanScore, TestScan
from experiments.kit.stages import Document, Stage, Stages
from experiments.table2.paper import Row
from models.bench import Bench
from models.state import State


class Scoreboard:
    """Scores kept as stages.

    Parameters
    ----------
    data : what the scans depend on
    """

    def __init__(self, stages: Stages, judge: Judge, data: Mapping[str, Any]) -> None:
        self._stages, self._judge, self._data = stages, judge, data

    def score(
        self,
        name: str,
        bench: Bench,
        state: State,
        scans: Sequence[TestScan],
        *,
        distances: bool = False,
        note: str = "",
    ) -> list[ScanScore]:
        """Score the scans, unless that was done before.

        Parameters
        ----------
        name : of the stage
        distances : measure these too
        note : what else was done to the scans
        """

        def work(_stage: Stage) -> Document:
            return as_document(self.now(bench, state, scans, distances=distances))

        settings = {
            **self._data,
            "state": state.sha256,
            "distances": distances,
            "note": note,
        }
        return from_document(self._stages.run(f"scores-{name}", settings, work))

    def now(
        self, bench: Bench, state: State, scans: Sequence[TestScan], *, distances: bool = False
    ) -> list[ScanScore]:
        """Score the scans, whatever was done before."""
        return self._judge.score(bench, state, scans, distances=distances)


def stage_name(row: Row) -> str:
    """A row as a file name."""
    return "-".join(row).replace("→", "to").replace("*", "").replace(", ", "-").replace(" ", "-")


def as_document(scores: Sequence[ScanScore]) -> Document:
    return {"scores": [score.to_document() for score in scores]}


def from_document(document: Document) -> list[ScanScore]:
    return [ScanScore.from_document(one) for one in document["scores"]]
