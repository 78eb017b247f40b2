"""Does a scan without a header find its domain, and what is no brain none?

    python bench/identification.py DATA [--rounds 3] [--states FOLDER] [--parts real,simulated,…]

DATA is laid out as the development data's README says; a user does not have it. Real
scans: two scanners have a signature of the four cases that they are adapted with, a case
is judged by one that was made without it. Simulated scans: whole heads of label maps that
the identifier has not seen, deformed. FOLDER holds packs of the two scanners' adapted
states, for the part `dice`. Prints tables, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from bench.altered_scans import ALTERED
from bench.development_manifest import ADAPT, FILES
from bench.strange_volumes import drawn, of_head
from models.backbone import SHIPPED
from models.packs import read_pack, read_states
from models.state import State
from normbank.config import Settings
from normbank.entities import Domain, DomainState, Signature
from normbank.imaging.brain import NetworkSpace, SlicePredictor
from normbank.imaging.nifti import read_scan
from normbank.imaging.scan import Limits, Scan
from pipeline.cases import LabelledFiles, read_labelled
from pipeline.evaluate import evaluate
from pipeline.identify import Identification, ServedDomain, identify, shipped_identifier
from pipeline.identify.identifier import Vector
from pipeline.networks import Networks
from pipeline.segment import segment_scan
from simulate import SCANNERS, deform, scan
from training.families import FAMILIES
from training.heads import label_maps

_nibabel: Any = nibabel  # it has no types for what is used here

LIMITS = Limits.of(Settings())
SEEN_HEADS = 12  # of the label maps, see `training.identifier`
CONTRASTS = {name: family.contrast for name, family in FAMILIES.items()} | dict.fromkeys(
    ADAPT, "t1w"
)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


class SevenDomains:
    """Five built-in domains and two adapted ones."""

    def __init__(self, data: Path, states: Path | None) -> None:
        self.data = data
        self.networks = Networks.open(Settings())
        self.identifier = shipped_identifier()
        self.states = read_states(SHIPPED, self.networks.backbone)
        for path in sorted(states.glob("*.safetensors")) if states else ():
            pack = read_pack(path.read_bytes())
            self.states[path.stem] = State.from_bytes(pack.tensors, backbone=pack.backbone)
        self.places = {
            name: {key: self.identifier.place(read_scan(path, LIMITS)) for key, path in of.items()}
            for name, of in ((name, self.cases(name)) for name in ADAPT)
        }

    def cases(self, scanner: str) -> dict[str, Path]:
        """Every scan of one of the two scanners, by subject."""
        pattern = FILES[scanner][0]
        found = sorted((self.data / scanner).glob(pattern.format("*")))
        return {path.name.removesuffix(pattern.format("")): path for path in found}

    def served(self, without: str = "") -> list[ServedDomain]:
        """All domains; the adapted ones know their own cases but one."""
        domains = [served(name, self.states[name].sha256, None) for name in FAMILIES]
        for name, subjects in ADAPT.items():
            kept: list[Vector] = [self.places[name][s] for s in subjects if s != without]
            state = self.states.get(name)
            sha256 = name if state is None else state.sha256
            domains.append(served(name, sha256, self.identifier.signature(kept)))
        return domains

    def network_of(self, state: DomainState) -> tuple[SlicePredictor, NetworkSpace] | None:
        held = self.states.get(state.domain_id)
        return None if held is None else (self.networks.predict_with(held), self.networks.spec)

    def identify(self, image: Scan, without: str = "") -> Identification:
        domains = self.served(without)
        return identify(image, {}, domains, self.identifier, network_of=self.network_of)


def served(name: str, sha256: str, signature: Signature | None) -> ServedDomain:
    metrics = {} if signature is None else {"signature": signature.to_json()}
    state = DomainState(name, 1, sha256, "", None, {}, metrics, None, None, NOW)
    return ServedDomain(Domain(name, name, {}, "freesurfer", (), 1, 1, False, 0, NOW, NOW), state)


def table(title: str, found: Mapping[str, Counter[str]]) -> None:
    columns = sorted({name for row in found.values() for name in row})
    print(f"\n{title}\n| | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name, row in found.items():
        print(f"| {name} | " + " | ".join(str(row[c] or "") for c in columns) + " |", flush=True)


def real(bench: SevenDomains) -> dict[str, Any]:
    """Every real scan: the confusion table, and shares that are right."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    own = []
    for scanner in ADAPT:
        for subject, path in bench.cases(scanner).items():
            chosen = bench.identify(read_scan(path, LIMITS), subject).domain or "none"
            found[scanner][chosen] += 1
            own.append(chosen == scanner)
    for path in [
        *sorted((bench.data / "cc0").glob("*.nii.gz")),
        *sorted((bench.data / "t2").glob("*.nii.gz")),
    ]:
        group = "cc0" if path.parent.name == "cc0" else "t2w" if "t2w" in path.name else "other t1w"
        found[group][bench.identify(read_scan(path, LIMITS)).domain or "none"] += 1
    table("real scans", found)
    total = sum(sum(row.values()) for row in found.values())
    contrast = sum(
        count
        for group, row in found.items()
        for name, count in row.items()
        if CONTRASTS.get(name) == ("t2w" if group == "t2w" else "t1w")
    )
    foreign = sum(found[g][name] for g in ("cc0", "t2w", "other t1w") for name in ADAPT)
    refused = sum(row["none"] for row in found.values())
    return {
        "scans": total, "own_scanner": round(float(np.mean(own)), 4),
        "scanner": round((sum(own) + total - len(own) - foreign) / total, 4),
        "contrast": round(contrast / total, 4), "refused": refused,
    }  # fmt: skip


def altered(bench: SevenDomains) -> dict[str, Any]:
    """Some real scans of each kind, changed: is the contrast still found?"""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    paths = [p for scanner in ADAPT for p in list(bench.cases(scanner).values())[4:6]]
    paths += [
        *sorted((bench.data / "cc0").glob("*.nii.gz"))[::8],
        *(bench.data / "t2").glob("*.gz"),
    ]
    for path in paths:
        contrast = "t2w" if "t2w" in path.name else "t1w"
        for name, change in ALTERED.items():
            chosen = bench.identify(change(read_scan(path, LIMITS))).domain
            kind = "refused" if chosen is None else "right"
            found[name][kind if CONTRASTS.get(chosen or "", contrast) == contrast else "wrong"] += 1
    table("contrast of altered real scans", found)
    return {
        kind: sum(row[kind] for row in found.values()) for kind in ("right", "wrong", "refused")
    }


def unseen_heads(data: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for path in label_maps(data / "labelmaps")[SEEN_HEADS:]:
        image = _nibabel.as_closest_canonical(_nibabel.load(path))
        yield np.asanyarray(image.dataobj).astype(np.int16), image.affine


def simulated(bench: SevenDomains, rounds: int) -> dict[str, Any]:
    """The five scanners of the paper's table, and as many of every family."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    right: dict[str, list[bool]] = defaultdict(list)
    for number, (labels, affine) in enumerate(unseen_heads(bench.data)):
        for turn in range(rounds):
            seed = 7000 + 100 * number + turn
            anatomy = deform(labels, seed).astype(np.int16)
            drawn_ones = {name: (one, name.split("-")[1]) for name, one in SCANNERS.items()}
            for place, (name, family) in enumerate(FAMILIES.items()):
                one = family.scanner(np.random.default_rng([seed, place]))
                drawn_ones[name] = (one, family.contrast)
            for name, (scanner, contrast) in drawn_ones.items():
                image = scan(anatomy, affine, scanner, seed + 1)
                chosen = bench.identify(Scan(image.data, image.affine)).domain or "none"
                found[name][chosen] += 1
                kind = "families" if name in FAMILIES else "presets"
                right[kind].append(CONTRASTS.get(chosen) == contrast)
    table("simulated scans of heads that were not seen", found)
    shares = {f"contrast_of_{kind}": round(float(np.mean(of)), 4) for kind, of in right.items()}
    refused = sum(row["none"] for row in found.values())
    return {"scans": sum(map(len, right.values())), **shares, "refused": refused}


def strange(bench: SevenDomains, rounds: int) -> dict[str, Any]:
    """Volumes that are no brain: how many are taken for one."""
    refused: Counter[str] = Counter()
    taken: Counter[str] = Counter()

    def ask(name: str, image: Scan) -> None:
        (refused if bench.identify(image).domain is None else taken)[name] += 1

    for name, image in drawn(2 * rounds):
        ask(name, image)
    for number, path in enumerate(label_maps(bench.data / "labelmaps")[: 2 * rounds]):
        image = _nibabel.as_closest_canonical(_nibabel.load(path))
        for name, made in of_head(
            np.asanyarray(image.dataobj).astype(np.int16), image.affine, number
        ):
            ask(name, made)
    total = refused.total() + taken.total()
    return {"volumes": total, "refused": round(refused.total() / total, 4), "taken": dict(taken)}


def cost(bench: SevenDomains) -> dict[str, Any]:
    """Seconds of identification beside those of a segmentation, whole heads, in turns."""
    shares, seconds = [], []
    for path in bench.cases("georgetown").values():
        image = read_scan(path, LIMITS)
        domains, predictor = bench.served(), bench.networks.predict_with(bench.states["sim-t1w-3t"])
        for _ in range(2):
            started = time.perf_counter()
            identify(image, {}, domains, bench.identifier, network_of=bench.network_of)
            between = time.perf_counter()
            segment_scan(image, predictor, bench.networks.spec)
            seconds.append(between - started)
            shares.append((between - started) / (time.perf_counter() - between))
    return {
        "identify_s": round(statistics.median(seconds), 3),
        "of_a_segmentation": round(statistics.median(shares), 4),
        "load": round(os.getloadavg()[0], 1),
    }


def dice(bench: SevenDomains, names: Sequence[str]) -> dict[str, Any]:
    """Mean Dice of the cases that nobody was adapted with: the picked domain against the best."""
    losses = {}
    for scanner in ADAPT:
        for subject, path in bench.cases(scanner).items():
            if subject in ADAPT[scanner]:
                continue
            labels = path.with_name(FILES[scanner][1].format(subject))
            files = LabelledFiles(path, labels, FILES[scanner][2])
            case = read_labelled(subject, files, bench.networks.spec.classes, LIMITS)
            picked = bench.identify(case.scan).domain
            scores = {
                name: evaluate([case], bench.networks.predict_with(bench.states[name]),
                               bench.networks.spec).mean_dice
                for name in {*names, *([] if picked is None else [picked])}
            }  # fmt: skip
            losses[subject] = max(scores.values()) - (scores[picked] if picked else 0.0)
            print(subject, picked, scores, flush=True)
    return {"cases": len(losses), "mean_loss": round(float(np.mean(list(losses.values()))), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--states", type=Path)
    parser.add_argument("--parts", default="real,altered,simulated,strange,cost,dice")
    options = parser.parse_args()
    bench = SevenDomains(options.data, options.states)
    parts = options.parts.split(",")
    result: dict[str, Any] = {"space": bench.identifier.space[:12]}
    if "real" in parts:
        result["real"] = real(bench)
    if "altered" in parts:
        result["altered"] = altered(bench)
    if "simulated" in parts:
        result["simulated"] = simulated(bench, options.rounds)
    if "strange" in parts:
        result["strange"] = strange(bench, options.rounds)
    if "cost" in parts:
        result["cost"] = cost(bench)
    if "dice" in parts and options.states:
        result["dice"] = dice(bench, ["sim-t1w-3t", "sim-t1w-1p5t", *ADAPT])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
