"""One training, from its first case to the backbone's files; can be taken up again."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from models.backbone import save_backbone
from models.packs import write_pack
from models.spec import BackboneSpec
from models.train import Start, Trained, Trainer
from training.loader import Make, open_loader
from training.pool import Pool

CHECKPOINT = "checkpoint.pt"
LOG = "log.csv"
LOG_EVERY = 20


@dataclass(frozen=True)
class Plan:
    """The settings of a training.

    Attributes
    ----------
    spec : of the network to be
    order : which domain each step trains
    make : cases by number; case i belongs to domain `domains[i % len(domains)]`
    domains : names, in the order in which cases are made
    batch_size : slices per step
    crop : pixels (H, W) of the slices that are drawn; None: whole ones
    mirrored : swap left and right in one slice of two
    kept : cases of a domain held ready
    renew_every : steps between two new cases; 0: never, the first ones are all
    """

    spec: BackboneSpec
    order: Sequence[str]
    make: Make
    domains: Sequence[str]
    batch_size: int = 12
    learning_rate: float = 1e-3
    warm_up: int = 100
    crop: tuple[int, int] | None = None
    mirrored: bool = True
    kept: int = 6
    renew_every: int = 5
    seed: int = 0
    start: Start | None = field(default=None, repr=False)


OnProgress = Callable[[int, int, float], None]
"""(steps done, steps in all, mean loss of late)"""


def run(
    plan: Plan,
    folder: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    workers: int = 1,
    checkpoint_s: float = 120.0,
    budget_s: float = float("inf"),
    on_progress: OnProgress = lambda _done, _steps, _loss: None,
) -> Trained | None:
    """Train, or go on training, and write checkpoints and a log to `folder`.

    Parameters
    ----------
    workers : processes that make cases
    checkpoint_s : seconds between two checkpoints
    budget_s : seconds after which to stop with a checkpoint

    Returns
    -------
    None when the budget ran out first; call again to go on

    Notes
    -----
    A run that was interrupted draws other batches afterwards than one that
    was not: the pool is filled anew.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trainer = _trainer(plan, folder, device, precision)
    steps, began, stored = len(plan.order), time.monotonic(), time.monotonic()
    rng = np.random.default_rng([plan.seed, trainer.done])
    first = trainer.done // plan.renew_every if plan.renew_every else 0
    pools = {name: Pool(plan.kept, plan.crop) for name in plan.domains}
    filled = plan.kept * len(plan.domains)
    with open_loader(plan.make, first=first, workers=workers, ahead=2 * workers) as loader:
        for number in range(first, first + filled):
            pools[plan.domains[number % len(plan.domains)]].add(loader.take())
        number = first + filled
        while trainer.done < steps:
            name = plan.order[trainer.done]
            trainer.step(name, *pools[name].draw(plan.batch_size, rng, mirrored=plan.mirrored))
            if trainer.done % LOG_EVERY == 0:
                loss = float(np.mean(trainer.losses[-LOG_EVERY:]))
                _log(folder / LOG, trainer.done, loss, time.monotonic() - began)
                on_progress(trainer.done, steps, loss)
            if plan.renew_every and trainer.done % plan.renew_every == 0:
                pools[plan.domains[number % len(plan.domains)]].add(loader.take())
                number += 1
            now = time.monotonic()
            if now - stored > checkpoint_s or now - began > budget_s:
                _store(trainer, folder)
                stored = now
            if now - began > budget_s:
                return None
    _store(trainer, folder)
    return trainer.result()


def _trainer(plan: Plan, folder: Path, device: torch.device, precision: torch.dtype) -> Trainer:
    trainer = Trainer(
        plan.spec,
        plan.domains,
        steps=len(plan.order),
        learning_rate=plan.learning_rate,
        warm_up=plan.warm_up,
        seed=plan.seed,
        device=device,
        precision=precision,
        start=plan.start,
    )
    stored = folder / CHECKPOINT
    if stored.exists():  # our own file: tensors and numbers, nothing that runs
        trainer.restore(torch.load(stored, weights_only=True))
    return trainer


def _store(trainer: Trainer, folder: Path) -> None:
    draft = folder / f"{CHECKPOINT}.draft"
    torch.save(trainer.checkpoint(), draft)
    draft.replace(folder / CHECKPOINT)


def _log(path: Path, step: int, loss: float, seconds: float) -> None:
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.writer(file)
        if new:
            writer.writerow(("step", "loss", "seconds"))
        writer.writerow((step, f"{loss:.4f}", f"{seconds:.0f}"))


def save_release(trained: Trained, folder: Path) -> None:
    """Write a backbone's folder: its weights, and a pack for each of its domains."""
    save_backbone(trained.backbone, folder)
    states: Mapping[str, object] = trained.states
    (folder / "states").mkdir(exist_ok=True)
    for name in states:
        state = trained.states[name]
        facts = {"backbone": state.backbone, "domain": name, "version": "1"}
        pack = write_pack(state.to_bytes(), facts)
        (folder / "states" / f"{name}.safetensors").write_bytes(pack)
