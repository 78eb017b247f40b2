"""Stage 4, a new scanner: the product's own function on four labelled cases, timed by part."""

from __future__ import annotations

import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from bench.gpu.memory import MemoryServices
from bench.gpu.scene import Scene
from models.pool import BackbonePool
from normbank.anatomy import present_structures
from normbank.config import Settings
from normbank.entities import Case, Job, JobKind, JobState, Recipe
from normbank.imaging.nifti import read_labels
from normbank.imaging.scan import Limits
from normbank.storage.blobs import BlobStore
from normbank.wiring import CoreServices
from pipeline.networks import Networks
from training.manifest import Row
from worker.adaptation import adapt_domain
from worker.context import WorkerContext

NEW = "new-scanner"


def run(scene: Scene) -> None:
    """One adaptation with the service's defaults, and what the gate said of it."""
    rows = scene.cases(2 if scene.smoke else 4)
    blobs = BlobStore(scene.work / "blobs")
    limits = Limits.of(Settings())
    cases = [_case(number, row, blobs, limits) for number, row in enumerate(rows)]
    context, recipe = _context(scene, cases, blobs), Recipe()
    if scene.smoke:
        recipe = Recipe(steps=2, validate_every=2, slice_stride=4, batch_size=2, refit=False)
    spent: dict[str, float] = defaultdict(float)
    doing, last = "", time.perf_counter()
    facts: dict[str, Any] = {"cases": len(cases), "domain": rows[0].domain}
    facts["recipe"] = recipe.to_json()

    def on_progress(_progress: float, step: str) -> None:
        nonlocal doing, last
        now = time.perf_counter()
        if doing:
            spent[doing] += now - last
        doing, last = step.split(",")[0].split(" sim-")[0], now
        facts["steps_s"] = {name: round(seconds, 2) for name, seconds in spent.items()}

    began = time.perf_counter()
    result = adapt_domain(_job(recipe), context, on_progress)
    on_progress(1.0, "")
    facts["seconds"] = round(time.perf_counter() - began, 2)
    version = context.core.versions.get(NEW, 1)
    facts |= {"result": dict(result), "after": version.metrics["after"]["mean_dice"]}
    facts |= {"candidates": version.metrics["candidates"], "history": version.metrics["history"]}
    scene.keep("adaptation", facts, done=True)


def _case(number: int, row: Row, blobs: BlobStore, limits: Limits) -> Case:
    labels = read_labels(row.labels, limits)
    return Case(
        id=str(number),
        domain_id=NEW,
        scan_sha256=blobs.put_file(row.scan),
        labels_sha256=blobs.put_file(row.labels),
        scan_name=row.scan.name.split("-", 1)[1],
        labels_name=row.labels.name.split("-", 1)[1],
        label_scheme=row.scheme,
        structures=present_structures(labels.data, row.scheme),
        shape=labels.data.shape,
        spacing_mm=(1.0, 1.0, 1.0),
        created_at=datetime.now(UTC),
    )


def _context(scene: Scene, cases: Sequence[Case], blobs: BlobStore) -> WorkerContext:
    # A rehearsal takes the tiny one that stage 3 has left.
    backbone, states = scene.backbone(scene.release) if scene.smoke else scene.backbone()
    settings = Settings(device=str(scene.device), backend="eager" if scene.smoke else "auto")
    pool = BackbonePool.open(
        backbone,
        (),
        device=settings.device,
        precision=settings.precision,
        batch_slices=settings.batch_slices,
        backend=settings.backend,
    )
    core = cast(CoreServices, MemoryServices(settings, blobs, states, cases))
    return WorkerContext(core, Networks(backbone, pool), "bench", Path(tempfile.gettempdir()))


def _job(recipe: Recipe) -> Job:
    now = datetime.now(UTC)
    return Job(
        id="bench", kind=JobKind.ADAPT, domain_id=NEW, state=JobState.RUNNING, attempt=1,
        progress=0.0, step="", eta_s=None, payload=recipe.to_json(), result=None,
        error_code=None, error_detail=None, cancel_requested=False, created_at=now,
        started_at=now, finished_at=None,
    )  # fmt: skip
