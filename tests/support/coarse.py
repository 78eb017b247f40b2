"""A backbone that is trained in seconds: it sees the drawn head in voxels of 5 mm."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from models.backbone import save_backbone
from models.cases import LabelledSlices, Sampler
from models.packs import write_pack
from models.spec import BackboneSpec
from models.train import train
from normbank.anatomy import labels_to_classes
from normbank.imaging.scan import Scan
from pipeline.crop import crop_to_outline
from simulate import SCANNERS, scan
from simulate.phantom import draw_head, head_affine
from tests.support.phantoms import SHAPE, SPACING_MM

CLASSES = (
    "background",
    "cerebral-gm",
    "cerebral-wm",
    "cerebellum-gm",
    "brain-stem",
)
SPEC = BackboneSpec(
    name="coarse",
    classes=CLASSES,
    down=(12, 16, 24, 24),
    up=(24, 16, 12),
    spacing_mm=5.0,
    window=(40, 48, 32),
)
JUDGED = replace(SPEC, name="coarse-judged", classes=(*CLASSES, "ventricles", "thalamus"))
"""One that knows structures which studies are judged by."""
DOMAINS = {"plain": "d1-t1w-3t", "inverse": "d2-t2w-3t"}


def phantom_slices(seed: int, scanner: str, spec: BackboneSpec = SPEC) -> LabelledSlices:
    """One labelled phantom as a coarse network sees it."""
    drawn = scan(
        draw_head(seed, SHAPE, SPACING_MM), head_affine(SHAPE, SPACING_MM), SCANNERS[scanner], seed
    )
    ids = np.where(drawn.labels < 500, drawn.labels, 0).astype(np.int32)
    count = len(spec.classes)
    classes = labels_to_classes(ids, "freesurfer", spec.classes)
    cropped = crop_to_outline(Scan(drawn.data, drawn.affine), spec)
    return LabelledSlices(
        cropped.slices, cropped.label_slices(classes, count), np.ones(count, bool)
    )


def save_coarse_backbone(folder: Path, *, steps: int = 240, spec: BackboneSpec = SPEC) -> Path:
    """Train on two simulated scanners; backbone and states as the shipped ones lie."""
    sources = {
        domain: Sampler([phantom_slices(seed, scanner, spec) for seed in (11, 12)], seed=0).draw
        for domain, scanner in DOMAINS.items()
    }
    found = train(spec, sources, steps=steps, batch_size=8, learning_rate=1e-2, seed=0)
    save_backbone(found.backbone, folder)
    (folder / "states").mkdir()
    for domain, state in found.states.items():
        pack = write_pack(state.to_bytes(), {"backbone": state.backbone, "domain": domain})
        (folder / "states" / f"{domain}.safetensors").write_bytes(pack)
    return folder
