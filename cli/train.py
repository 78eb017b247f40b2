"""`normbank train`: train a backbone, one's own or the release's."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from cli.output.terminal import console, fail, note
from normbank.errors import NormbankError

if TYPE_CHECKING:
    from models.train import Trained
    from training.run import Plan

RUN_AGAIN = 75
RATE_FROM_NOTHING = 1e-2
"""The best of docs/results/recipe."""
RATE_TO_GO_ON = 1e-3
"""That of the shipped backbone; a higher one would forget what it started from."""


@dataclass(frozen=True)
class Settings:
    """Settings that both kinds of training share."""

    name: str
    steps: int
    batch_size: int
    learning_rate: float
    seed: int
    start: Path | None


def train(
    out: Annotated[Path, typer.Option(help="Folder for checkpoints, log.csv and the backbone.")],
    manifest: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="CSV: domain,scan,labels,scheme,role."),
    ] = None,
    labelmaps: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Whole-head label maps to simulate from."),
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="A backbone's folder to go on from."),
    ] = None,
    blend: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Keep only this share of the way from --start to the end."),
    ] = None,
    name: Annotated[str, typer.Option(help="What the backbone calls itself.")] = "own",
    steps: Annotated[int, typer.Option(min=1)] = 10_000,
    batch: Annotated[int, typer.Option(min=1, help="Slices per step.")] = 8,
    rate: Annotated[
        float | None,
        typer.Option(help="Adam's learning rate at its highest; default: 1e-2, with --start 1e-3."),
    ] = None,
    seed: int = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    workers: Annotated[int, typer.Option(min=1, help="Processes that make cases.")] = 1,
    budget_s: Annotated[
        float | None, typer.Option(help="End with a checkpoint after about so many seconds.")
    ] = None,
) -> None:
    """Train a backbone with a state per domain; run again to go on where it ended.

    From your own labelled scans (--manifest), or, as the shipped one was, from
    whole-head label maps of which scans are simulated (--labelmaps).
    """
    # Imported here because torch takes its time.
    from training.blend import blended
    from training.run import save_release

    if blend is not None and start is None:
        fail("--blend needs --start", status=2)
    if (manifest is None) == (labelmaps is None):
        fail("name either --manifest or --labelmaps", status=2)
    if rate is None:
        rate = RATE_FROM_NOTHING if start is None else RATE_TO_GO_ON
    settings = Settings(name, steps, batch, rate, seed, start)
    started_at = time.monotonic()
    try:
        plan = _plan(manifest, labelmaps, settings)
        trained = _run(plan, out, steps, device, precision, workers, budget_s)
    except (NormbankError, FileNotFoundError) as error:
        fail(str(error), status=2)
    if trained is None:
        note("normbank: the time given is used up; the checkpoint is kept. Run me again.")
        raise typer.Exit(RUN_AGAIN)
    if blend is not None:
        assert plan.start is not None
        trained = blended(plan.start, trained, blend)
    save_release(trained, out)
    seconds = time.monotonic() - started_at
    console().print(f"done in {seconds:.0f} s; backbone {trained.backbone.sha256[:12]} in {out}")


def _run(
    plan: Plan,
    out: Path,
    steps: int,
    device: str,
    precision: str,
    workers: int,
    budget_s: float | None,
) -> Trained | None:
    """Train with a progress bar; None when the budget ended it."""
    import torch

    from models.predict import choose_device, choose_precision
    from training.run import run

    torch_device = choose_device(device)
    if torch_device.type == "cpu":
        torch.set_num_threads(os.cpu_count() or 1)
    with _progress() as progress:
        task = progress.add_task("training", total=steps, loss="")
        return run(
            plan,
            out,
            device=torch_device,
            precision=choose_precision(precision, torch_device),
            workers=workers,
            budget_s=float("inf") if budget_s is None else budget_s,
            on_progress=lambda step, _steps, loss: progress.update(
                task, completed=step, loss=f"loss {loss:.3f}"
            ),
        )


def _plan(manifest: Path | None, labelmaps: Path | None, settings: Settings) -> Plan:
    """Read the manifest, or plan from label maps."""
    from training.manifest import read_manifest
    from training.own import own_plan
    from training.release import release_plan

    if manifest is not None:
        return own_plan(read_manifest(manifest), **asdict(settings))
    assert labelmaps is not None
    return release_plan(labelmaps, **asdict(settings))


def _progress() -> Progress:
    """Progress bar with the loss."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.completed}/{task.total}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[loss]}"),
        console=console(),
    )
