"""`normbank experiment …`: studies that a reader can repeat."""

from __future__ import annotations

import os
import shlex
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from cli.output import console, fail, note
from normbank.errors import NormbankError

RUN_AGAIN = 75
"""Exit status of a run that its budget ended: nothing failed, the rest is still to do."""

_ROWS = "recalibrated, paper, plain, headed, half, two, whole, scratch; comma-separated."

app = typer.Typer(no_args_is_help=True, help="Studies that a reader can repeat.")


@app.callback()
def _experiment() -> None:
    """Studies that a reader can repeat."""


@app.command()
def table2(
    out: Annotated[Path, typer.Option(help="Folder for the report; kept work lies in it too.")],
    labelmaps: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of head_01 … head_14.nii.gz."),
    ] = None,
    preset: Annotated[str, typer.Option(help="smoke, cpu or full.")] = "cpu",
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    budget_s: Annotated[
        float | None, typer.Option(help="End cleanly after about so many seconds.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that simulate and measure; default: one a core.")
    ] = None,
) -> None:
    """The paper's table 2 on five simulated scanners; resumes what an earlier run began."""
    # Imported here because torch takes its time, and the figures need an extra.
    from experiments.presets import PRESETS
    from experiments.study import Run, run_table2
    from models.predict import choose_device, choose_precision

    if preset not in PRESETS:
        fail(f"there is no preset {preset}; there are {', '.join(PRESETS)}", status=2)
    chosen = choose_device(device)
    run = Run(
        PRESETS[preset],
        labelmaps,
        out,
        chosen,
        choose_precision(precision, chosen),
        budget_s,
        _workers(preset) if workers is None else workers,
        _command(preset, labelmaps),
    )
    _carry_out(lambda bars: run_table2(run, bars))


@app.command()
def scanners(
    out: Annotated[Path, typer.Option(help="Folder for the report; kept work lies in it too.")],
    manifest: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="CSV: domain,scan,labels,scheme,role."),
    ],
    rotate: Annotated[
        str, typer.Option(help="Scanners whose every case is a test case once, comma-separated.")
    ] = "",
    preset: Annotated[str, typer.Option(help="smoke, cpu or full.")] = "cpu",
    without: Annotated[str, typer.Option(help="Rows to leave out, of " + _ROWS)] = "",
    backbone: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of a backbone; else the shipped."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    budget_s: Annotated[
        float | None, typer.Option(help="End cleanly after about so many seconds.")
    ] = None,
) -> None:
    """Your own labelled scans: what adaptation, fine-tuning and nothing at all achieve."""
    from experiments.scanners import PLANS
    from experiments.scanners_study import ScannersRun, run_scanners
    from models.predict import choose_device, choose_precision

    if preset not in PLANS:
        fail(f"there is no preset {preset}; there are {', '.join(PLANS)}", status=2)
    chosen = choose_device(device)
    words = ["normbank", "experiment", "scanners", "--manifest", "cases.csv", "--out", "FOLDER"]
    words += ["--preset", preset, *(["--rotate", rotate] if rotate else [])]
    words += ["--without", without] if without else []
    run = ScannersRun(
        preset,
        manifest,
        out,
        chosen,
        choose_precision(precision, chosen),
        [name for name in rotate.split(",") if name],
        [name for name in without.split(",") if name],
        backbone,
        budget_s,
        command=shlex.join(words),
    )
    _carry_out(lambda bars: run_scanners(run, bars))


@app.command()
def sequence(
    out: Annotated[Path, typer.Option(help="Folder for the report; kept work lies in it too.")],
    manifest: Annotated[
        Path,
        typer.Option(exists=True, dir_okay=False, help="CSV: domain,scan,labels,scheme,role."),
    ],
    preset: Annotated[str, typer.Option(help="smoke, cpu or full.")] = "cpu",
    backbone: Annotated[
        Path | None,
        typer.Option(exists=True, file_okay=False, help="Folder of a backbone; else the shipped."),
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    precision: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    budget_s: Annotated[
        float | None, typer.Option(help="End cleanly after about so many seconds.")
    ] = None,
) -> None:
    """Your scanners learnt one after another: what is left of the earlier ones."""
    from experiments.scanners import PLANS
    from experiments.sequence_study import SequenceRun, run_sequence
    from models.predict import choose_device, choose_precision

    if preset not in PLANS:
        fail(f"there is no preset {preset}; there are {', '.join(PLANS)}", status=2)
    chosen = choose_device(device)
    words = ["normbank", "experiment", "sequence", "--manifest", "cases.csv", "--out", "FOLDER"]
    run = SequenceRun(
        preset,
        manifest,
        out,
        chosen,
        choose_precision(precision, chosen),
        backbone,
        budget_s,
        command=shlex.join([*words, "--preset", preset]),
    )
    _carry_out(lambda bars: run_sequence(run, bars))


def _carry_out(study: Callable[[Bars], Path]) -> None:
    """Run a study with bars, and say how it ended."""
    from experiments.stages import OutOfTimeError
    from experiments.study import NoLabelMapsError

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

    def at(self, fraction: float, words: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, completed=fraction, words=words)

    def end(self, stage: str, seconds: float, fresh: bool) -> None:
        self._clear()
        words = f"{seconds:7.1f} s" if fresh else "done before"
        self._progress.console.print(f"{words:>12}  {stage}")

    def _clear(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
