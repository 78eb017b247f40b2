"""What the stages have in common: where things lie, how large they are, how results are kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from experiments.kit.environment import environment
from models.backbone import SHIPPED, Backbone, load_backbone
from models.packs import read_states
from models.predict import choose_device, choose_precision
from models.state import State
from normbank.imaging.nifti import write_scan
from normbank.imaging.scan import Scan
from simulate import SCANNERS, deform, scan
from simulate.phantom import HEAD_SHAPE, SMALL_SHAPE, SMALL_SPACING_MM, draw_head, head_affine
from training.heads import label_maps
from training.manifest import Row, read_manifest

FACTS = "pack.json"
"""In a pack: what it was made of."""

HELD_OUT = 2
"""The last label maps (head_13 and head_14 of fourteen): nobody trains on them."""


@dataclass(frozen=True)
class Scene:
    """One stage's surroundings.

    Attributes
    ----------
    pack : folder that `bench.gpu.pack` made
    out : what comes back: few files, small ones
    work : what is lost with the machine
    ends : time.time() at which the stage has to have ended
    smoke : tiny sizes, to rehearse on a CPU
    """

    pack: Path
    out: Path
    work: Path
    ends: float
    smoke: bool

    @property
    def left_s(self) -> float:
        return self.ends - time.time()

    @property
    def device(self) -> torch.device:
        return choose_device("cpu" if self.smoke else "auto")

    @property
    def precision(self) -> torch.dtype:
        return torch.float32 if self.smoke else choose_precision("auto", self.device)

    @property
    def workers(self) -> int:
        """Processes beside this one."""
        import os

        return max(1, (os.cpu_count() or 2) - 1)

    def maps(self) -> tuple[list[Path], list[Path]]:
        """Label maps to train on, and those held out; drawn by code where none were packed."""
        folder = self.pack / "labelmaps"
        paths = label_maps(folder) if folder.is_dir() else self._drawn_maps()
        return paths[:-HELD_OUT], paths[-HELD_OUT:]

    def _drawn_maps(self) -> list[Path]:
        folder = self.work / "drawn"
        shape, spacing = (SMALL_SHAPE, SMALL_SPACING_MM) if self.smoke else (HEAD_SHAPE, 1.0)
        for number in range(1, (3 if self.smoke else 6) + 1):
            path = folder / f"head_{number:02d}.nii.gz"
            if not path.exists():
                folder.mkdir(parents=True, exist_ok=True)
                ids = draw_head(number, shape, spacing).astype(np.int16)
                image = nibabel.Nifti1Image(ids, head_affine(shape, spacing))  # type: ignore[no-untyped-call]
                image.to_filename(path)
        return label_maps(folder)

    def cases(self, count: int = 4) -> list[Row]:
        """Labelled cases of one scanner: the packed ones, or simulated."""
        manifest = self.pack / "cases" / "cases.csv"
        if manifest.exists():
            rows = read_manifest(manifest)
            return [row for row in rows if row.domain == rows[0].domain][:count]
        training, held = self.maps()
        people = (held + training)[:count]
        return [self._simulated(number, people[number % len(people)]) for number in range(count)]

    def _simulated(self, number: int, path: Path) -> Row:
        folder = self.work / "cases"
        folder.mkdir(parents=True, exist_ok=True)
        image: Any = nibabel.as_closest_canonical(nibabel.load(path))  # type: ignore[no-untyped-call]
        ids = np.asanyarray(image.dataobj).round().astype(np.int16)
        drawn = scan(deform(ids, number), image.affine, SCANNERS["d4-t1w-3t-raw"], number)
        row = Row("d4-t1w-3t-raw", folder / f"{number}-scan.nii.gz",
                  folder / f"{number}-labels.nii.gz", "freesurfer", "adapt")  # fmt: skip
        row.scan.write_bytes(write_scan(Scan(drawn.data, drawn.affine)))
        inside = np.where(drawn.labels < 500, drawn.labels, 0).astype(np.int16)
        nibabel.Nifti1Image(inside, drawn.affine).to_filename(row.labels)  # type: ignore[no-untyped-call]
        return row

    @property
    def release(self) -> Path:
        """Folder of the backbone that stage 3 trains."""
        return self.work / "release"

    def backbone(self, folder: Path = SHIPPED) -> tuple[Backbone, dict[str, State]]:
        """One with its states; by default the shipped one."""
        backbone = load_backbone(folder)
        return backbone, read_states(folder, backbone)

    def keep(self, stage: str, facts: dict[str, Any], *, done: bool = False) -> None:
        """Write a stage's JSON; what was there before is replaced whole."""
        record = {**facts, **environment(self.device, self.precision)}
        facts_path = self.pack / FACTS
        packed = json.loads(facts_path.read_text()) if facts_path.exists() else {}
        record |= {"packed": packed, "smoke": self.smoke, "done": done}
        path = self.out / f"{stage}.json"
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(record, indent=1, default=str) + "\n")
        draft.replace(path)

    def kept(self, stage: str) -> dict[str, Any]:
        """What a stage has written; nothing where it has not."""
        path = self.out / f"{stage}.json"
        return json.loads(path.read_text()) if path.exists() else {}

    def wait(self) -> None:
        """Until the device has done everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def seconds(self, run: Callable[[], object], *, least_s: float = 0.3) -> float:
        """Median seconds of a call, after one that warms up."""
        run()
        self.wait()
        times: list[float] = []
        while len(times) < (1 if self.smoke else 3) or sum(times) < (0 if self.smoke else least_s):
            began = time.perf_counter()
            run()
            self.wait()
            times.append(time.perf_counter() - began)
        return float(np.median(times))

    def within(self, seconds: float) -> Scene:
        """The same, over so soon at the latest."""
        return replace(self, ends=min(self.ends, time.time() + seconds))
