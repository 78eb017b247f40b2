"""Mutated files, read in this process.

    python -m bench.chaos.readers [--files 20000] [--seed 0]

For each reader prints one JSON line: how many files were read, refused with which code,
and what was raised that is no refusal; the slowest file, and the process's peak memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from bench.chaos.mutations import Generator, mutated, mutated_gzip
from models.backbone import SHIPPED
from models.packs import read_pack
from models.state import BrokenStateError, State
from normbank.config import Settings
from normbank.errors import NormbankError
from normbank.imaging.nifti import read_labels, read_scan
from normbank.imaging.scan import Limits

LIMITS = Limits.of(Settings())
SHAPE, SPACING_MM = (24, 26, 28), 3.0
PACK_HEAD = 2048

_nibabel: Any = nibabel  # it has no types for what is used here

Make = Callable[[Generator], bytes]
Read = Callable[[Path], object]


def images() -> dict[str, bytes]:
    """A small scan and its labels in each format, as bytes."""
    affine = np.diag([SPACING_MM] * 3 + [1.0])
    rng = np.random.default_rng(0)
    scan = rng.integers(0, 1000, SHAPE).astype(np.int16)
    labels = rng.choice(np.array([0, 2, 41, 17, 53], np.int16), SHAPE)
    return {
        "nifti": _nibabel.Nifti1Image(scan, affine).to_bytes(),
        "nifti 2": _nibabel.Nifti2Image(scan.astype(np.float32), affine).to_bytes(),
        "mgh": _nibabel.MGHImage(scan.astype(np.float32), affine).to_bytes(),
        "labels": _nibabel.Nifti1Image(labels, affine).to_bytes(),
        "mgh labels": _nibabel.MGHImage(labels, affine).to_bytes(),
    }


def readers() -> dict[str, tuple[Make, Read]]:
    """Reader -> what makes a file for it, and what reads it."""
    made: dict[str, tuple[Make, Read]] = {}
    for name, data in images().items():
        read = _labels if "labels" in name else _scan
        made[name] = (lambda rng, data=data: mutated(data, rng), read)  # type: ignore[misc]
        made[f"{name}, gzip"] = (
            lambda rng, data=data: mutated_gzip(data, rng),  # type: ignore[misc]
            read,
        )
    pack = next((SHIPPED / "states").glob("*.safetensors")).read_bytes()
    made["pack"] = (lambda rng: mutated(pack, rng, PACK_HEAD), _pack)
    return made


def _scan(path: Path) -> object:
    return read_scan(path, LIMITS)


def _labels(path: Path) -> object:
    return read_labels(path, LIMITS)


def _pack(path: Path) -> object:
    pack = read_pack(path.read_bytes())
    return State.from_bytes(pack.tensors, backbone=pack.backbone)


def attack(make: Make, read: Read, files: int, seed: int, path: Path) -> dict[str, Any]:
    """What came of so many files."""
    rng, outcomes, slowest_s = np.random.default_rng(seed), Counter[str](), 0.0
    for _ in range(files):
        path.write_bytes(make(rng))
        started = time.perf_counter()
        try:
            read(path)
            outcomes["read"] += 1
        except NormbankError as error:
            outcomes[error.code] += 1
        except BrokenStateError:
            outcomes["broken_state"] += 1
        except Exception as error:  # what this script is for
            outcomes[f"RAISED {error!r:.80}"] += 1
        slowest_s = max(slowest_s, time.perf_counter() - started)
    return {"slowest_s": round(slowest_s, 2), **dict(outcomes.most_common())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        for name, (make, read) in readers().items():
            found = attack(make, read, options.files, options.seed, Path(folder) / "file")
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
            print(json.dumps({"reader": name, "peak_mib": peak, **found}), flush=True)


if __name__ == "__main__":
    main()
