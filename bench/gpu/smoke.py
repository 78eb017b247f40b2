"""The quarter of an hour rehearsed on a CPU: from a pack, in an environment that holds only it.

    python -m bench.gpu.smoke [--labelmaps DIR]

The pack's wheels are for the Python at hand. What a GPU machine has anyway
(PyTorch, numpy, scipy, matplotlib and what they need) is lent from here.
Succeeds when every stage has come to its end.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from bench.gpu.__main__ import PLAN
from bench.gpu.pack import PRESENT, PROJECT, make_pack

MINUTES = 10.0
"""A limit, so that no rehearsal hangs; two idle cores need much less."""


def lend(to: Path) -> None:
    """Links to `PRESENT` and to what they need, and to nothing else."""
    to.mkdir()
    waiting, seen = list(PRESENT), set()
    while waiting:
        name = waiting.pop()
        try:
            package = distribution(name)
        except PackageNotFoundError:  # for another platform
            continue
        if package.metadata["Name"] in seen:
            continue
        seen.add(package.metadata["Name"])
        for top in {file.parts[0] for file in package.files or () if file.parts[0] != ".."}:
            source = Path(str(package.locate_file(top))).resolve()
            if top != "__pycache__" and source.exists() and not (to / top).exists():
                (to / top).symlink_to(source)
        needs = [
            requirement for requirement in package.requires or () if "extra ==" not in requirement
        ]
        waiting += [
            re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in needs
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--labelmaps", type=Path)
    labelmaps = parser.parse_args().labelmaps
    began = time.time()
    place = PROJECT / "build" / "gpu-smoke"
    shutil.rmtree(place, ignore_errors=True)
    pack, out = place / "pack", place / "out"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    sizes = make_pack(pack, python=version, labelmaps=labelmaps)
    print(f"packed {sum(sizes.values()):.1f} MB after {time.time() - began:.0f} s", flush=True)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-compile"]
    wheels = map(str, sorted((pack / "wheels").iterdir()))
    subprocess.run([*pip, "--target", str(place / "site"), *wheels], check=True)
    lend(place / "there")
    bare = place / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    subprocess.run(
        [str(bare / "bin" / "python"), "-m", "bench.gpu", "--smoke", "--pack", str(pack),
         "--out", str(out), "--work", str(place / "work"), "--minutes", str(MINUTES)],
        cwd=pack / "project", check=True,
        env={**os.environ, "PYTHONPATH": ":".join(map(str, (place / "site", place / "there",
                                                            pack / "project")))},
    )  # fmt: skip
    ends = {name: json.loads((out / f"{name}.json").read_text())["done"] for name in PLAN}
    if not all(ends.values()) or len(list(out.iterdir())) > 8:
        raise SystemExit(f"not every stage came to its end: {ends}")
    print(f"rehearsed in {time.time() - began:.0f} s: {len(ends)} stages")


if __name__ == "__main__":
    main()
