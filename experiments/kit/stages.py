"""Stages of work: each is done once, cached in a file, and can be interrupted and resumed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import torch

Document = dict[str, Any]
"""Plain values and tensors, nested in dicts and lists: what a stage stores."""


class OutOfTimeError(Exception):
    """The time budget is used up; what is done is stored."""


class Progress(Protocol):
    """Shows how far the work is."""

    def begin(self, stage: str) -> None: ...
    def on_progress(self, fraction: float, message: str) -> None: ...
    def end(self, stage: str, seconds: float, fresh: bool) -> None: ...


class NoProgress:
    """Shows nothing."""

    def begin(self, stage: str) -> None:
        pass

    def on_progress(self, fraction: float, message: str) -> None:
        pass

    def end(self, stage: str, seconds: float, fresh: bool) -> None:
        pass


class Stage:
    """One stage while it runs: its unfinished work, its progress, its clock.

    Parameters
    ----------
    path : of the unfinished work
    """

    def __init__(self, path: Path, deadline: float, progress: Progress) -> None:
        self._path, self._deadline, self._progress = path, deadline, progress
        self._started = time.monotonic()
        self.unfinished: Document | None = _read(path)["value"] if path.exists() else None
        self._spent = float(_read(path)["seconds"]) if path.exists() else 0.0

    @property
    def seconds(self) -> float:
        """Time spent on it, earlier tries included."""
        return self._spent + time.monotonic() - self._started

    def on_progress(self, fraction: float, message: str) -> None:
        self._progress.on_progress(fraction, message)

    def keep(self, value: Document) -> None:
        """Store unfinished work, then stop if the time is used up.

        Raises
        ------
        OutOfTimeError
        """
        _write(self._path, {"value": value, "seconds": self.seconds})
        self.pause()

    def pause(self) -> None:
        """Stop if the time is used up.

        Raises
        ------
        OutOfTimeError
        """
        if time.monotonic() > self._deadline:
            raise OutOfTimeError


class Stages:
    """A folder of finished stages, keyed by name and by the settings behind them.

    Parameters
    ----------
    folder : kept between runs
    budget_s : no stage begins after it, and a stage that can pause does so;
        None: as long as it takes
    """

    def __init__(
        self, folder: Path, *, budget_s: float | None = None, progress: Progress | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._progress: Progress = progress or NoProgress()
        self._deadline = float("inf") if budget_s is None else time.monotonic() + budget_s
        self.seconds: dict[str, float] = {}
        self.fresh: list[str] = []

    def run(
        self, name: str, settings: Mapping[str, Any], work: Callable[[Stage], Document]
    ) -> Document:
        """Do the work, or read what an earlier run has stored of it.

        Parameters
        ----------
        name : of the stage
        settings : everything its result depends on; others are another stage

        Raises
        ------
        OutOfTimeError
        """
        stem = f"{name}-{digest(settings)}"
        stored = self._folder / f"{stem}.pt"
        self._progress.begin(name)
        if stored.exists():
            document = _read(stored)
            self._close(name, document["seconds"], fresh=False)
            return dict(document["value"])
        unfinished = self._folder / f"{stem}.unfinished.pt"
        stage = Stage(unfinished, self._deadline, self._progress)
        stage.pause()
        value = work(stage)
        _write(stored, {"value": value, "seconds": stage.seconds})
        unfinished.unlink(missing_ok=True)
        self._close(name, stage.seconds, fresh=True)
        return value

    def _close(self, name: str, seconds: float, *, fresh: bool) -> None:
        self.seconds[name] = seconds
        if fresh:
            self.fresh.append(name)
        self._progress.end(name, seconds, fresh)


def digest(settings: Mapping[str, Any]) -> str:
    """Twelve hex digits that change with any setting."""
    text = json.dumps(settings, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def work_folder(out: Path) -> Path:
    """Make the folder of stages and scans, hidden from git: they are no result."""
    folder = out / "work"
    folder.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError), (folder / ".gitignore").open("x") as file:
        file.write("*\n")
    return folder


def _write(path: Path, document: Document) -> None:
    """All or nothing: a run that is killed leaves no half file."""
    partial = path.with_suffix(".partial")
    torch.save(document, partial)
    partial.rename(path)


def _read(path: Path) -> Document:
    return dict(torch.load(path, map_location="cpu", weights_only=True))
