"""Everything that a bare machine with a GPU needs, in one folder of at most 60 MB.

    python -m bench.gpu.pack [--labelmaps DIR] [--real DIR] [--cases CSV] [--out DIR]

`project` (what git tracks, without the older backbone and without pictures),
`wheels` (what runs and is not on that machine, for `--python`), `labelmaps`,
`real` and `cases`. PyTorch, numpy, scipy and matplotlib are taken to be there.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from bench.gpu.scene import FACTS
from experiments.kit.environment import git_commit
from training.heads import label_maps
from training.manifest import COLUMNS, read_manifest

LIMIT_MB = 60.0
PROJECT = Path(__file__).resolve().parents[2]
PRESENT = ("torch", "numpy", "scipy", "matplotlib")
"""What is installed there; wheels of it, and of what only it needs, stay out."""
NEEDED = (
    "alembic", "celery", "fsspec", "google-re2", "isal", "nibabel", "pandas", "pydantic",
    "pydantic-settings", "pydicom", "pytest", "redis", "rich", "safetensors", "sqlalchemy",
    "tabulate", "threadpoolctl", "typer",
)  # fmt: skip
"""What the stages import; `pyproject.toml` says which versions."""
PLATFORMS = (
    *(f"manylinux_2_{minor}_x86_64" for minor in (5, 12, 17, 24, 27, 28, 31, 34, 35)),
    "manylinux2014_x86_64",
    "manylinux1_x86_64",
)
LEFT_OUT = (".png", "docs/results/", "models/weights/v0/")


class TooLargeError(ValueError):
    """The pack is over its limit."""


def copy_project(to: Path) -> None:
    """What git tracks, as it lies in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=PROJECT, capture_output=True, check=True,
    ).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source = PROJECT / name
        if not source.is_file() or source.is_symlink() or any(part in name for part in LEFT_OUT):
            continue
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, to / name)


def shrink(source: Path, to: Path) -> None:
    """A label map as 16-bit integers: a third of what it is as 32-bit ones."""
    image: Any = nibabel.load(source)
    ids = np.asanyarray(image.dataobj).round().astype(np.int16)
    written = nibabel.Nifti1Image(ids, image.affine).to_bytes()  # type: ignore[no-untyped-call]
    to.write_bytes(gzip.compress(written, 9, mtime=0))


def copy_maps(folder: Path, to: Path) -> None:
    """Every label map of a folder."""
    to.mkdir()
    maps = label_maps(folder)
    with ProcessPoolExecutor() as pool:
        names = [to / f"{path.name.split('.')[0]}.nii.gz" for path in maps]
        list(pool.map(shrink, maps, names))


def copy_cases(manifest: Path, to: Path) -> None:
    """Rows with the role `adapt`, their files under names of their own."""
    to.mkdir()
    with (to / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        rows = [row for row in read_manifest(manifest) if row.role == "adapt"]
        for number, row in enumerate(rows):
            names = []
            for path, what in ((row.scan, "scan"), (row.labels, "labels")):
                names.append(f"{number}-{what}.{path.name.split('.', 1)[1]}")
                shutil.copy2(path, to / names[-1])
            writer.writerow((row.domain, *names, row.scheme, row.role))


def requirements() -> list[str]:
    """`NEEDED`, with the versions that the project asks for."""
    import tomllib

    facts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    asked = [*facts["dependencies"], *facts["optional-dependencies"]["dev"]]
    by_name = {
        requirement.split(">")[0].split("=")[0].split("[")[0]: requirement for requirement in asked
    }
    return [by_name[name] for name in NEEDED]


def fetch_wheels(python: str, to: Path) -> None:
    """Wheels of `NEEDED` and of whatever they need, but for what is there."""
    options = ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
    for platform in PLATFORMS:
        options += ["--platform", platform]
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        _quietly(
            [*pip, "install", "-q", "--dry-run", "--ignore-installed", "--target", folder,
             "--report", str(report), *options, *requirements()]
        )  # fmt: skip
        packages = [item["metadata"] for item in json.loads(report.read_text())["install"]]
    pinned = [
        f"{package['name']}=={package['version']}"
        for package in packages
        if package["name"] not in PRESENT
    ]
    _quietly([*pip, "download", "-q", "--no-deps", "-d", str(to), *options, *pinned])


def _quietly(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"pip ended with {done.returncode}: {done.stderr[-2000:]}")


def megabytes(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def make_pack(
    out: Path,
    *,
    python: str,
    labelmaps: Path | None = None,
    real: Path | None = None,
    cases: Path | None = None,
) -> dict[str, float]:
    """Make the folder anew.

    Returns
    -------
    megabytes by part

    Raises
    ------
    TooLargeError
        The folder is left for a look.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    fetch_wheels(python, out / "wheels")
    copy_project(out / "project")
    if labelmaps is not None:
        copy_maps(labelmaps, out / "labelmaps")
    if real is not None:
        shutil.copytree(real, out / "real", ignore=shutil.ignore_patterns("*.md", "*.csv"))
    if cases is not None:
        copy_cases(cases, out / "cases")
    sizes = {part.name: megabytes(part) for part in sorted(out.iterdir())}
    facts = {"git commit": git_commit(), "python": python, "mb": sizes}
    (out / FACTS).write_text(json.dumps(facts) + "\n")
    if sum(sizes.values()) > LIMIT_MB:
        parts = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items())
        raise TooLargeError(
            f"The pack has {sum(sizes.values()):.1f} MB ({parts}); at most {LIMIT_MB:.0f} travel. "
            "Leave something out."
        )
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=PROJECT / "build" / "gpu-pack")
    parser.add_argument("--python", default="3.12", help="that the wheels are for")
    parser.add_argument("--labelmaps", type=Path, help="whole-head label maps")
    parser.add_argument("--real", type=Path, help="unlabelled scans")
    parser.add_argument("--cases", type=Path, help="a manifest; its rows `adapt` travel")
    options = vars(parser.parse_args())
    try:
        sizes = make_pack(options.pop("out"), **options)
    except TooLargeError as error:
        raise SystemExit(str(error)) from error
    parts = ", ".join(f"{name} {size:.1f}" for name, size in sizes.items())
    print(f"{sum(sizes.values()):.1f} MB of at most {LIMIT_MB:.0f}: {parts}")


if __name__ == "__main__":
    main()
