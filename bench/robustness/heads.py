"""Labelled heads on upright axes, and how well an answer fits them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.backbone import SHIPPED
from models.packs import read_states
from normbank.anatomy import (
    EVALUATED,
    STRUCTURES,
    answered_ids,
    labels_to_classes,
    sided_ids,
)
from normbank.config import Settings
from normbank.imaging.brain import NetworkSpace, SlicePredictor
from normbank.imaging.geometry import nearest_ras
from normbank.imaging.metrics import dice, dice_by_structure
from normbank.imaging.nifti import read_labels, read_scan
from normbank.imaging.scan import Limits, Scan
from pipeline.networks import Networks
from training.manifest import Row, read_manifest

LIMITS = Limits.of(Settings())
Labels = npt.NDArray[np.integer]


@dataclass(frozen=True)
class Head:
    """A scan with its reference, both on axes to the right, to the front and up.

    Attributes
    ----------
    data : (X, Y, Z) float32
    affine : (4, 4)
    labels : (X, Y, Z), ids of the scheme
    """

    name: str
    data: npt.NDArray[np.float32]
    affine: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int32]
    scheme: str

    @classmethod
    def read(cls, row: Row) -> Head:
        scan = read_scan(row.scan, LIMITS)
        data, affine = upright_axes(scan.data, scan.affine)
        labels, _ = upright_axes(read_labels(row.labels, LIMITS).data, scan.affine)
        return cls(f"{row.domain} {row.name}", data, affine, labels, row.scheme)

    @property
    def scan(self) -> Scan:
        return Scan(self.data, self.affine)

    def dice(self, ids: Labels) -> float:
        """Mean of the evaluated structures, both sides of each together."""
        answered = labels_to_classes(ids.astype(np.int32), "normbank", STRUCTURES)
        return mean_dice(answered, labels_to_classes(self.labels, self.scheme, STRUCTURES))

    def dice_of_sides(self, ids: Labels) -> tuple[float, float]:
        """Mean of the deep structures of the left, and of the right."""
        values: tuple[list[float], list[float]] = ([], [])
        for name, (left, right) in sided_ids(self.scheme).items():
            known = answered_ids(name)
            if known is None or name not in EVALUATED:
                continue
            values[0].append(dice(ids == known.left, self.labels == left) or 0.0)
            values[1].append(dice(ids == known.right, self.labels == right) or 0.0)
        return float(np.mean(values[0])), float(np.mean(values[1]))


def mean_dice(answered: npt.NDArray[np.uint8], truth: npt.NDArray[np.uint8]) -> float:
    """Of the evaluated structures, both as class numbers of `STRUCTURES`."""
    dices = dice_by_structure(answered, truth, STRUCTURES)
    return float(np.mean([value or 0.0 for value in dices.values()]))


def upright_axes(
    volume: npt.NDArray[Any], affine: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.float64]]:
    """The same on axes to the right, to the front and up."""
    order, flips = nearest_ras(affine)
    steps = tuple(slice(None, None, -1 if flip else 1) for flip in flips)
    first = [volume.shape[axis] - 1 if flip else 0 for axis, flip in zip(order, flips, strict=True)]
    signs = [-1.0 if flip else 1.0 for flip in flips]
    turned = np.eye(4)
    turned[:3, :3] = affine[:3, list(order)] * signs
    turned[:3, 3] = affine[:3, 3] + affine[:3, list(order)] @ first
    return np.ascontiguousarray(volume.transpose(order)[steps]), turned


@dataclass(frozen=True)
class Subjects:
    """What a command line names: heads, and the network to try them with."""

    heads: Iterator[Head]
    predictor: SlicePredictor
    space: NetworkSpace


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """Options that all scripts of this room take."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("manifest", type=Path, help="CSV as `normbank train` takes it")
    parser.add_argument("--subjects", default="", help="names of scans, by commas; empty: all")
    parser.add_argument("--domain", default="sim-t1w-3t", help="the stored state that answers")
    return parser


def subjects_of(options: argparse.Namespace) -> Subjects:
    """The heads that were asked for, read one after the other."""
    wanted = set(options.subjects.split(",")) - {""}
    rows = [row for row in read_manifest(options.manifest) if not wanted or row.name in wanted]
    networks = Networks.open(Settings())
    state = read_states(SHIPPED, networks.backbone)[options.domain]
    return Subjects(map(Head.read, rows), networks.predict_with(state), networks.spec)
