"""Tables for people and for programs, and the facts that a result is nothing without."""

from __future__ import annotations

import csv
import math
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from models.backends import precision_name

MISSING = "–"


def markdown(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table; every column but the first is right-aligned."""
    rule = ["---", *["--:"] * (len(columns) - 1)]
    lines = [_line(columns), _line(rule), *(_line(row) for row in rows)]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[object]) -> str:
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def number(value: float | None, digits: int = 3) -> str:
    """A number with fixed digits, or a dash where there is none."""
    return MISSING if value is None or math.isnan(value) else f"{value:.{digits}f}"


def beside(ours: float, paper: float | None) -> str:
    """Our figure, and the paper's in brackets where it has one."""
    return number(ours) if paper is None else f"{number(ours)} ({number(paper)})"


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """All rows under one header; numbers in full, NaN as an empty cell."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in rows:
            writer.writerow(["" if _is_nan(cell) else cell for cell in row])


def _is_nan(cell: object) -> bool:
    return isinstance(cell, float) and math.isnan(cell)


def bullets(facts: Mapping[str, object]) -> str:
    """`- name: value`, one a line."""
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def environment(device: torch.device, precision: torch.dtype) -> dict[str, str]:
    """What the numbers were made with."""
    return {
        "device": _device_name(device),
        "precision": precision_name(precision),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "git commit": git_commit(),
    }


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{_processor()}, {torch.get_num_threads()} threads"


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def git_commit() -> str:
    """Of the code that runs, `+` behind it where files were changed; `unknown` outside git."""
    here = Path(__file__).parent

    def git(*arguments: str) -> str:
        answer = subprocess.run(
            ["git", *arguments], cwd=here, capture_output=True, text=True, check=True
        )
        return answer.stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def duration(seconds: float) -> str:
    """`1 min 5 s`, `12 s`, `0.3 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
