"""The bank against one process per scanner: time and memory for the same slices.

    python bench/processes.py [--scanners 8] [--rounds 11]

One process holds the bank with all scanners; beside it every scanner has a
process of its own, with its batch norm folded into its own filters. Batches of
all scanners go through both in turn: to the bank mixed, to the others each its
own. Prints one JSON line; memory is what a process has for itself (USS), on a
GPU what all of them hold there.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch

from bench.dedicated import Dedicated, in_openvino, runner, save_converted
from bench.forward import interleaved, neighbours, ratio
from experiments.kit.environment import environment
from models.backbone import SHIPPED, load_backbone
from models.backends import OPENVINO, CompileTarget
from models.packs import read_states
from models.predict import Predictor, choose_device, choose_precision
from models.state import State


def states(count: int) -> list[State]:
    """As many scanners, all different."""
    first = read_states(SHIPPED, load_backbone())["sim-t1w-3t"]
    return [first, *islice(neighbours(first), count - 1)]


def predictor_of(target: CompileTarget, batch_slices: int, backend: str) -> Predictor:
    return Predictor(
        load_backbone(),
        device=target.device,
        precision=target.precision,
        batch_slices=batch_slices,
        backend=backend,
    )


@dataclass(frozen=True)
class Job:
    """What one process does when it is asked.

    Attributes
    ----------
    backend : of `models.backends.NAMES`
    scanners : how many there are
    number : which of them is this process's own; None: all, in the bank
    folder : for OpenVINO, each scanner's own network as its converter has saved it
    """

    target: CompileTarget
    backend: str
    scanners: int
    folder: Path
    number: int | None = None

    def prepare(self) -> Callable[[], object]:
        count = self.target.shape[0]
        slices = np.random.default_rng(0).random(self.target.shape, np.float32)
        if self.number is None:
            predictor = predictor_of(self.target, count, self.backend)
            rows = [predictor.bank.add(state) for state in states(self.scanners)]
            batches = np.split(np.resize(rows, self.scanners * count), self.scanners)
            return lambda: [predictor.logits(slices[:, 0], batch) for batch in batches]
        batch = torch.from_numpy(slices)
        if self.backend == OPENVINO:
            return in_openvino(saved(self.folder, self.number), batch, self.target.precision)
        network = Dedicated(load_backbone(), states(self.number + 1)[-1])
        return runner(network, batch, self.backend, self.target.device, self.target.precision)


def saved(folder: Path, number: int) -> str:
    return str(folder / f"{number}.xml")


def serve(door: Connection, job: Job) -> None:
    """Compute whenever asked, until told to end."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    run = job.prepare()
    run()
    door.send(psutil.Process().memory_full_info().uss)
    while door.recv():
        run()
        wait(job.target.device)
        door.send(True)


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def on_device(device: torch.device) -> int:
    """Bytes that all processes hold there; 0 on a CPU."""
    if device.type != "cuda":
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scanners", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    device = choose_device(options.device)
    spec = load_backbone().spec
    target = CompileTarget(device, choose_precision("auto", device), (0, 1, *spec.slice_shape))
    chosen = predictor_of(target, 0, "auto")
    target = replace(target, shape=(chosen.batch_slices, *target.shape[1:]))
    backend = chosen.selection.backend.name
    del chosen
    context = multiprocessing.get_context("spawn")
    doors: list[Any] = []
    memory: list[int] = []
    held: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        job = Job(target, backend, options.scanners, Path(name))
        scanner_jobs = [replace(job, number=number) for number in range(options.scanners)]
        if backend == OPENVINO:
            for number, state in enumerate(states(options.scanners)):
                save_converted(Dedicated(load_backbone(), state), target, saved(job.folder, number))
        for served_job in (job, *scanner_jobs):
            before = on_device(device)
            ours, theirs = context.Pipe()
            context.Process(target=serve, args=(theirs, served_job), daemon=True).start()
            theirs.close()  # so that a process that dies is noticed
            memory.append(ours.recv())
            held.append(on_device(device) - before)
            doors.append(ours)

    def ask(some: list[Any]) -> None:
        for door in some:  # one after another: all of them share the cores
            door.send(True)
            door.recv()

    ways = {"bank": lambda: ask(doors[:1]), "processes": lambda: ask(doors[1:])}
    times = interleaved(options.rounds, ways, lambda: None)
    for door in doors:
        door.send(False)
    count = options.scanners * target.shape[0]
    print(
        json.dumps(
            {
                "bank_over_processes": round(ratio(times, "bank", "processes"), 4),
                **{
                    f"{name}_ms": round(1e3 * statistics.median(t) / count, 3)
                    for name, t in times.items()
                },
                "bank_mb": memory[0] >> 20,
                "processes_mb": sum(memory[1:]) >> 20,
                "bank_device_mb": held[0] >> 20,
                "processes_device_mb": sum(held[1:]) >> 20,
                "scanners": options.scanners,
                "batch_slices": target.shape[0],
                "backend": backend,
                **environment(device, target.precision),
            }
        )
    )


if __name__ == "__main__":
    main()
