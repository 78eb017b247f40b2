"""How a domain is learnt, and how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from statistics import fmean
from typing import Any, Self

from normbank.entities.signatures import Signature


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of one adaptation (Karani et al., MICCAI 2018, section 2).

    Attributes
    ----------
    seed : every random draw of the run follows from it
    steps : optimiser steps at most
    batch_size : slices per step
    learning_rate : Adam's, at the start of a cosine decay
    augment : mirror the training slices at random, vary contrast and noise
    head : learn a last 1×1 convolution of the domain's own too (2 KB)
    adapters : learn 1×1 convolutions parallel to the shared ones too (432 KB)
    refit : once the validation half has judged, learn from all cases
    validate_every : steps between two validation points
    patience : validation points without progress before early stopping
    slice_stride : the probe and the validation score every n-th slice
    parent : `domain@version` to start from; None: the nearest stored state
    publish : promote when the gate passes; otherwise keep as a candidate
    gate_margin : Dice the new version may lie below the active one
    gate_floor : mean Dice below which a domain's first version does not serve
    gate_least : the same for any one structure
    gate_loss : Dice that no version may lose of any one structure
    """

    seed: int = 0
    steps: int = 100
    batch_size: int = 8
    learning_rate: float = 1e-2
    augment: bool = True
    head: bool = True
    adapters: bool = True
    refit: bool = True
    validate_every: int = 25
    patience: int = 3
    slice_stride: int = 4
    parent: str | None = None
    publish: bool = True
    gate_margin: float = 0.0
    gate_floor: float = 0.6
    gate_least: float = 0.3
    gate_loss: float = 0.03

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Build from stored JSON; keys of older or newer recipes are ignored."""
        names = {attribute.name for attribute in fields(cls)}
        return cls(**{key: value for key, value in values.items() if key in names})


@dataclass(frozen=True, slots=True)
class CaseScores:
    """One measure of one structure.

    Attributes
    ----------
    mean : over the cases that have a value; None where none has
    cases : in their order; None where a structure is not annotated, or empty
        in answer and reference
    """

    mean: float | None
    cases: tuple[float | None, ...]

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Self:
        """Four digits, and their mean."""
        rounded = tuple(None if value is None else round(value, 4) for value in values)
        numbers = [value for value in rounded if value is not None]
        return cls(round(fmean(numbers), 4) if numbers else None, rounded)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        return cls(values["mean"], tuple(values["cases"]))

    def to_json(self) -> dict[str, Any]:
        return {"mean": self.mean, "cases": list(self.cases)}


@dataclass(frozen=True, slots=True)
class Scores:
    """How well a state answers some labelled cases.

    Attributes
    ----------
    mean_dice : of the structures that decide
    dice, hd95_mm : of every structure, on the scans' own grids
    """

    mean_dice: float
    dice: Mapping[str, CaseScores] = field(default_factory=dict)
    hd95_mm: Mapping[str, CaseScores] = field(default_factory=dict)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        dice, hd95_mm = (
            {name: CaseScores.from_json(scores) for name, scores in values.get(key, {}).items()}
            for key in ("dice", "hd95_mm")
        )
        return cls(float(values["mean_dice"]), dice, hd95_mm)

    def to_json(self) -> dict[str, Any]:
        return {
            "mean_dice": self.mean_dice,
            "dice": {name: scores.to_json() for name, scores in self.dice.items()},
            "hd95_mm": {name: scores.to_json() for name, scores in self.hd95_mm.items()},
        }


@dataclass(frozen=True, slots=True)
class ProbeScore:
    """How a stored state does on the training half.

    Attributes
    ----------
    state : `domain@version`
    structures : Dice by name
    """

    state: str
    dice: float
    structures: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """A validation point: mean Dice on the validation half after some steps."""

    step: int
    dice: float


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a new version was compared with; None where there was nothing, or no score."""

    version: int | None
    dice: float | None


@dataclass(frozen=True, slots=True)
class UsedCases:
    """Ids of cases by what they were used for; `learnt` may hold both halves."""

    training: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    learnt: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class AdaptationRecord:
    """How a version came about; what `DomainState.metrics` holds of an adapted one.

    Attributes
    ----------
    before, after : on the validation half: the parent, and what the training
        half has taught
    precision : in which it was learnt
    candidates : every state that was probed, the nearest first
    objections : why the gate does not let it serve; empty where it does
    signature : what the cases look like; None where an older release made the version
    """

    before: Scores
    after: Scores
    precision: str
    candidates: tuple[ProbeScore, ...]
    replaced: Replaced
    history: tuple[HistoryPoint, ...]
    cases: UsedCases
    objections: tuple[str, ...] = ()
    signature: Signature | None = None

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """Read what a job has recorded; what an older release did not record stays empty."""
        replaced = values.get("replaced") or {}
        return cls(
            before=Scores.from_json(values["before"]),
            after=Scores.from_json(values["after"]),
            precision=values.get("precision", ""),
            candidates=tuple(
                ProbeScore(candidate["state"], candidate["dice"], candidate.get("structures", {}))
                for candidate in values.get("candidates", ())
            ),
            replaced=Replaced(replaced.get("version"), replaced.get("dice")),
            history=tuple(
                HistoryPoint(point["step"], point["dice"]) for point in values.get("history", ())
            ),
            cases=cls.cases_of(values),
            objections=tuple(values.get("objections", ())),
            signature=cls.signature_of(values),
        )

    @staticmethod
    def signature_of(values: Mapping[str, Any]) -> Signature | None:
        """What a version's cases look like, whatever else is recorded of it."""
        stored = values.get("signature")
        return None if stored is None else Signature.from_json(stored)

    @staticmethod
    def cases_of(values: Mapping[str, Any]) -> UsedCases:
        """Which cases a version was made with, whatever else is recorded of it."""
        cases = values.get("cases") or {}
        return UsedCases(
            **{
                attribute.name: tuple(cases.get(attribute.name, ()))
                for attribute in fields(UsedCases)
            }
        )

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before.to_json(),
            "after": self.after.to_json(),
            "precision": self.precision,
            "objections": list(self.objections),
            "candidates": [asdict(candidate) for candidate in self.candidates],
            "replaced": asdict(self.replaced),
            "history": [asdict(point) for point in self.history],
            "cases": {key: list(ids) for key, ids in asdict(self.cases).items()},
        } | ({} if self.signature is None else {"signature": self.signature.to_json()})
