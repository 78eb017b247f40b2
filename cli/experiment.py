"""`normbank experiment …`: studies that a reader can repeat."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cli.output.terminal import console, fail, note
from normbank.errors import NormbankError

RUN_AGAIN = 75
"""Exit status of a run that its budget ended: nothing failed, the rest is still to do."""

Out = Annotated[Path, typer.Option(help="Folder for the report; kept work lies in it too.")]
Manifest = Annotated[
    Path, typer.Option(exists=True, dir_okay=False, help="CSV: domain,scan,labels,scheme,role.")
]
PresetName = Annotated[str, typer.Option(help="smoke, cpu or full.")]
BackboneFolder = Annotated[
    Path | None,
    typer.Option(exists=True, file_okay=False, help="Folder of a backbone; else the shipped."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Precision = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Budget = Annotated[float | None, typer.Option(help="End cleanly after about so many seconds.")]
_ROWS = "recalibrated, paper, plain, headed, half, two, whole, scratch; comma-separated."

app = typer.Typer(no_args_is_help=True, help="Studies that a reader can repeat.")


@app.callback()
def _experiment() -> None:
    """Studies that a reader can repeat."""


@app.command()
def table2(
    out: Out,
    labelmaps: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of head_01 … head_14.nii.gz."),
    ] = None,
    preset: PresetName = "cpu",
    device: Device = "auto",
    precision: Precision = "auto",
    budget_s: Budget = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that simulate and measure; default: one a core.")
    ] = None,
) -> None:
    """The paper's table 2 on five simulated scanners; resumes what an earlier run began."""
    # Imported here because torch takes its time, and the figures need an extra.
    from experiments.table2.design import PRESETS
    from experiments.table2.run import Table2Options, run_table2

    chosen_device = _device(preset, PRESETS, device, precision)
    options = Table2Options(
        PRESETS[preset],
        labelmaps,
        out,
        *chosen_device,
        budget_s,
        _workers(preset) if workers is None else workers,
        _command(preset, labelmaps),
    )
    _carry_out(lambda bars: run_table2(options, bars))


@app.command()
def scanners(
    out: Out,
    manifest: Manifest,
    rotate: Annotated[
        str, typer.Option(help="Scanners whose every case is a test case once, comma-separated.")
    ] = "",
    preset: PresetName = "cpu",
    without: Annotated[str, typer.Option(help="Rows to leave out, of " + _ROWS)] = "",
    backbone: BackboneFolder = None,
    device: Device = "auto",
    precision: Precision = "auto",
    budget_s: Budget = None,
) -> None:
    """Your own labelled scans: what adaptation, fine-tuning and nothing at all achieve."""
    from experiments.kit.manifest import PRESETS, ManifestOptions
    from experiments.scanners.run import run_scanners

    typed = ["--rotate", rotate] if rotate else []
    typed += ["--without", without] if without else []
    options = ManifestOptions(
        preset,
        manifest,
        out,
        _device(preset, PRESETS, device, precision)[0],
        precision,
        backbone,
        budget_s,
        _manifest_command("scanners", preset, *typed),
    )
    rotated, left_out = ([name for name in names.split(",") if name] for names in (rotate, without))
    _carry_out(lambda bars: run_scanners(options, bars, rotated=rotated, without=left_out))


@app.command()
def sequence(
    out: Out,
    manifest: Manifest,
    preset: PresetName = "cpu",
    backbone: BackboneFolder = None,
    device: Device = "auto",
    precision: Precision = "auto",
    budget_s: Budget = None,
) -> None:
    """Your scanners learnt one after another: what is left of the earlier ones."""
    from experiments.kit.manifest import PRESETS, ManifestOptions
    from experiments.sequence.run import run_sequence

    options = ManifestOptions(
        preset,
        manifest,
        out,
        _device(preset, PRESETS, device, precision)[0],
        precision,
        backbone,
        budget_s,
        _manifest_command("sequence", preset),
    )
    _carry_out(lambda bars: run_sequence(options, bars))


def _device(
    preset: str, presets: Mapping[str, object], device: str, precision: str
) -> tuple[Any, Any]:
    """torch's device and data type; refuses an unknown preset first."""
    from models.predict import choose_device, choose_precision

    if preset not in presets:
        fail(f"there is no preset {preset}; there are {', '.join(presets)}", status=2)
    chosen = choose_device(device)
    return chosen, choose_precision(precision, chosen)


def _manifest_command(name: str, preset: str, *typed: str) -> str:
    """What to type to get the same, without this machine's folders."""
    words = ["normbank", "experiment", name, "--manifest", "cases.csv", "--out", "FOLDER"]
    return shlex.join([*words, "--preset", preset, *typed])


def _carry_out(study: Callable[[Bars], Path]) -> None:
    """Run a study with bars, and say how it ended."""
    from experiments.kit.stages import OutOfTimeError
    from experiments.table2.run import NoLabelMapsError

    started = time.monotonic()
    try:
        with Bars() as bars:
            report = study(bars)
    except OutOfTimeError:
        note("normbank: the time given is used up; what is done is kept. Run me again.")
        raise typer.Exit(RUN_AGAIN) from None
    except (NormbankError, NoLabelMapsError, ModuleNotFoundError) as error:
        fail(str(error), status=2)
    console().print(f"done in {time.monotonic() - started:.0f} s; see {report}")


def _workers(preset: str) -> int:
    """None for the small preset: starting them would take longer than its work."""
    return 0 if preset == "smoke" else os.cpu_count() or 1


def _command(preset: str, labelmaps: Path | None) -> str:
    """What to type to get the same, without this machine's folders."""
    words = ["normbank", "experiment", "table2", "--preset", preset, "--out", "FOLDER"]
    return shlex.join([*words, *(["--labelmaps", "FOLDER"] if labelmaps else [])])


class Bars:
    """Progress in the terminal: a line per finished stage, a bar for the present one."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[words]}"),
            console=Console(stderr=True, highlight=False),
            transient=True,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._progress.stop()

    def begin(self, stage: str) -> None:
        self._clear()
        self._task = self._progress.add_task(stage, total=1.0, words="")

    def on_progress(self, fraction: float, message: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=fraction, words=message)

    def end(self, stage: str, seconds: float, fresh: bool) -> None:
        self._clear()
        words = f"{seconds:7.1f} s" if fresh else "done before"
        self._progress.console.print(f"{words:>12}  {stage}")

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
