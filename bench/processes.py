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
import warnings
from collections.abc import Callable
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
import psutil
import torch

from bench.dedicated import Dedicated, runner
from bench.forward import interleaved, neighbours, ratio
from experiments.report import environment
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from models.predict import Predictor, choose_device, choose_precision
from models.state import State


def states(count: int) -> list[State]:
    """As many scanners, all different."""
    first = read_states(SHIPPED, load_backbone())["sim-t1w-3t"]
    return [first, *islice(neighbours(first), count - 1)]


def slices_of(predictor_slices: int) -> np.ndarray:
    shape = (predictor_slices, *load_backbone().spec.slice_shape)
    return np.random.default_rng(0).random(shape, np.float32)


def predictor_of(options: argparse.Namespace) -> Predictor:
    device = choose_device(options.device)
    precision = choose_precision("auto", device)
    return Predictor(load_backbone(), device=device, precision=precision, backend=options.backend)


def serve(door: Connection, prepare: Callable[[], Callable[[], object]]) -> None:
    """Compute whenever asked, until the door closes."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    run = prepare()
    run()
    door.send(psutil.Process().memory_full_info().uss)
    while door.recv():
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        door.send(True)


def banked(options: argparse.Namespace) -> Callable[[], object]:
    """Every batch holds slices of all scanners."""
    predictor = predictor_of(options)
    rows = [predictor.bank.add(state) for state in states(options.scanners)]
    slices = slices_of(predictor.batch_slices)
    mixed = np.resize(rows, options.scanners * predictor.batch_slices)
    batches = np.split(mixed, options.scanners)
    return lambda: [predictor.logits(slices, batch) for batch in batches]


def alone(options: argparse.Namespace, number: int) -> Callable[[], object]:
    """One scanner's own network; one batch."""
    device = choose_device(options.device)
    batch = torch.from_numpy(slices_of(options.batch))[:, None]
    network = Dedicated(load_backbone(), states(number + 1)[-1])
    return runner(network, batch, options.backend, device, choose_precision("auto", device))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scanners", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=11)
    options = parser.parse_args()
    options.backend = "auto"
    device = choose_device(options.device)
    chosen = predictor_of(options)
    options.backend, options.batch = chosen.choice.backend.name, chosen.batch_slices
    del chosen
    context = multiprocessing.get_context("spawn")
    doors: list[Any] = []
    memory: list[int] = []
    held: list[int] = []
    for prepare in (
        partial(banked, options),
        *(partial(alone, options, number) for number in range(options.scanners)),
    ):
        free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else 0
        ours, theirs = context.Pipe()
        context.Process(target=serve, args=(theirs, prepare), daemon=True).start()
        memory.append(ours.recv())
        held.append(free - torch.cuda.mem_get_info()[0] if device.type == "cuda" else 0)
        doors.append(ours)

    def ask(some: list[Any]) -> None:
        for door in some:  # one after another: all of them share the cores
            door.send(True)
            door.recv()

    ways = {"bank": lambda: ask(doors[:1]), "processes": lambda: ask(doors[1:])}
    times = interleaved(options.rounds, ways, lambda: None)
    for door in doors:
        door.send(False)
    count = options.scanners * options.batch
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
                "batch_slices": options.batch,
                "backend": options.backend,
                **environment(device, choose_precision("auto", device)),
            }
        )
    )


if __name__ == "__main__":
    main()
