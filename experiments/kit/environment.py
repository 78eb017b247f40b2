"""What a result was made with: device, precision, versions, commit."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import torch

from models.backends import precision_name


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
