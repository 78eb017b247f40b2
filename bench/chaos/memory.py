"""The largest scans and small bombs at once, against a `normbank up`.

    python -m bench.chaos.memory [--scans 9] [--bombs 9]

Starts a service of its own in a temporary folder and sends it all together: scans of as many
voxels as it takes, and files of 0.15 MB that hold as many zeros around a block. Prints one
JSON line: the greatest resident memory of the API and its budget, the answers by status and
code, and whether a server was killed or replaced.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil

from bench.chaos.service import DOMAIN, MAIN_PROCESSES, Service, command, running
from cli.client import ClientError
from normbank.budget import MemoryBudget
from normbank.config import Settings
from simulate.phantom import draw_head

SIDE = 512
SPACING_MM = 0.5
LOOK_S = 0.1
_NIFTI1: Any = nib.Nifti1Header  # nibabel has no types for it


def write(path: Path, voxels: np.ndarray[Any, np.dtype[np.uint8]]) -> Path:
    """uint8 voxels (512, 512, 512) of half a millimetre as `.nii.gz`."""
    header = _NIFTI1()
    header.set_data_shape(voxels.shape)
    header.set_data_dtype(np.uint8)
    header.set_sform(np.diag([SPACING_MM, SPACING_MM, SPACING_MM, 1.0]), code=1)
    header["pixdim"][1:4] = SPACING_MM
    header["vox_offset"], header["magic"] = 352, b"n+1"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(header.binaryblock + bytes(4))
        for plane in np.moveaxis(voxels, 2, 0):
            file.write(plane.tobytes(order="F"))
    return path


def large_scan(folder: Path) -> Path:
    """A drawn head that fills as many voxels as are taken."""
    labels = draw_head(1, (SIDE // 4,) * 3, 4 * SPACING_MM)
    bright = np.where(labels > 0, 40 + labels * 7 % 200, 0).astype(np.uint8)
    return write(folder / "large.nii.gz", bright.repeat(4, 0).repeat(4, 1).repeat(4, 2))


def bomb(folder: Path) -> Path:
    """Zeros but for a block, in a file of next to nothing."""
    voxels = np.zeros((SIDE,) * 3, np.uint8)
    voxels[180:330, 180:330, 180:330] = 200
    return write(folder / "bomb.nii.gz", voxels)


class Watch:
    """The greatest resident memory of the API, looked at again and again.

    Attributes
    ----------
    peak_bytes : so far
    seen : process ids that the API has had
    """

    def __init__(self, service: Service) -> None:
        self._service, self._ending = service, threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.peak_bytes = 0
        self.seen: set[int] = set()

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(LOOK_S):
            api = self._service.find("api")
            try:
                if api is not None and MAIN_PROCESSES["api"] in command(api):
                    self.seen.add(api.pid)
                    self.peak_bytes = max(self.peak_bytes, api.memory_info().rss)
            except psutil.Error:
                continue


def send_all(service: Service, paths: list[Path]) -> Counter[str]:
    """Every file at the same time; the answers by status and code."""
    answers: Counter[str] = Counter()

    def send(path: Path) -> None:
        with service.client() as client:
            try:
                client.segment(path, DOMAIN)
                answers[f"{path.stem} 200"] += 1
            except ClientError as error:
                said = getattr(error, "status", "unreachable"), getattr(error, "code", "")
                answers[" ".join(map(str, (path.stem, *said))).strip()] += 1

    threads = [threading.Thread(target=send, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scans", type=int, default=9)
    parser.add_argument("--bombs", type=int, default=9)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, running() as service:
        folder = Path(name)
        large, small = large_scan(folder), bomb(folder)
        bomb_bytes = small.stat().st_size
        paths = [large] * options.scans + [small] * options.bombs
        before = {server: service.find(server) for server in MAIN_PROCESSES}
        started = time.monotonic()
        with Watch(service) as watch:
            answers = send_all(service, paths)
        killed = [
            server
            for server, process in before.items()
            if process is None or service.find(server) != process
        ]
        facts = {
            "seconds": round(time.monotonic() - started, 1),
            "peak_mib": watch.peak_bytes >> 20,
            "budget_mib": MemoryBudget(Settings().memory_budget_bytes).total_bytes >> 20,
            "bomb_bytes": bomb_bytes,
            "answers": dict(sorted(answers.items())),
            "killed": killed,
            "up_lives": service.process.poll() is None,
        }
        print(json.dumps(facts))


if __name__ == "__main__":
    main()
