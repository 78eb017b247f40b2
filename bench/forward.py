"""What serving many domains costs: the bank against one domain's own network, and its growth.

    python bench/forward.py [--device auto] [--domains 10000] [--pairs 11]

Ways to answer 64 slices in the service's batches, interleaved, each as often: a
network of one domain with its batch norm folded into the filters; the bank
with slices of one domain; with every slice of another of 64 domains; the bank
among 10,000 domains against the bank with one; and, for comparison, loading
the domain's tensors into a module before each forward pass. Prints one JSON
line; times are medians per slice, ratios medians over pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch

from bench.dedicated import Dedicated, runner
from experiments.kit.environment import environment
from models.backbone import SHIPPED, load_backbone
from models.packs import read_states
from models.predict import PRECISIONS, Predictor, choose_device
from models.state import State

MIXED = 64


def neighbours(state: State) -> Iterator[State]:
    """States a little beside a given one, all different, without end."""
    random = torch.Generator().manual_seed(0)
    while True:
        rows = state.rows * (1 + 0.05 * torch.randn(state.rows.shape, generator=random))
        rows[3] = rows[3].abs()
        yield State(rows, state.backbone)


def interleaved(
    pairs: int, ways: Mapping[str, Callable[[], object]], wait: Callable[[], None]
) -> dict[str, list[float]]:
    """Seconds of every way, round after round, after one that warms up.

    Every other round goes backwards, so that no way always follows the same one.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(pairs + 1):
        for name, run in list(ways.items())[:: 1 if number % 2 else -1]:
            started = time.perf_counter()
            run()
            wait()
            if number:
                times[name].append(time.perf_counter() - started)
    return times


def ratio(times: Mapping[str, list[float]], over: str, under: str) -> float:
    return statistics.median(a / b for a, b in zip(times[over], times[under], strict=True))


def swapping(predictor: Predictor, slices: np.ndarray, states: list[State]) -> Callable[[], object]:
    """The usual way: one module, into which the domain's tensors are loaded first."""
    holder = torch.nn.ParameterDict({"table": torch.nn.Parameter(states[0].rows.clone(), False)})
    holder = holder.to(predictor.device)
    turn = iter(range(10**9))

    def run() -> object:
        state = states[next(turn) % len(states)]
        holder.load_state_dict({"table": state.rows})
        gamma, beta, mean, var = holder["table"]
        scale = gamma / torch.sqrt(var + predictor.spec.eps)
        table = torch.stack([scale, beta - mean * scale])
        count = len(slices)
        _, heads = predictor.bank.gather(torch.zeros(count, dtype=torch.int64))
        batch = torch.from_numpy(slices)[:, None]
        return predictor.selection.backend.run(batch, table.expand(count, -1, -1), heads)

    return run


@dataclass(frozen=True)
class Stage:
    """What is compared, ready to run.

    Attributes
    ----------
    few, full : a bank of one domain, and of many
    """

    few: Predictor
    full: Predictor
    state: State
    slices: np.ndarray
    batches: list[np.ndarray]
    random: np.random.Generator


def prepare(options: argparse.Namespace) -> Stage:
    """Two predictors on one backend, one with a single domain, and slices of 64 domains."""
    device = choose_device(options.device)
    backbone = load_backbone()
    state = read_states(SHIPPED, backbone)["sim-t1w-3t"]

    def predictor(batch: int, backend: str, precision: torch.dtype | None) -> Predictor:
        return Predictor(
            backbone, device=device, precision=precision, batch_slices=batch, backend=backend
        )

    few = predictor(options.batch, options.backend, PRECISIONS.get(options.precision))
    full = predictor(few.batch_slices, few.selection.backend.name, few.precision)
    few.bank.add(state)
    for banked_state in (state, *islice(neighbours(state), options.domains - 1)):
        full.bank.add(banked_state)
    random = np.random.default_rng(0)
    slices = random.random((few.batch_slices, *backbone.spec.slice_shape), np.float32)
    mixed, step = random.permutation(MIXED), few.batch_slices
    batches = [mixed[start : start + step] for start in range(0, MIXED, step)]
    return Stage(few, full, state, slices, batches, random)


def measure(stage: Stage, pairs: int) -> dict[str, list[float]]:
    """Seconds of 64 slices, every way, every round."""
    few, full, slices, batches = stage.few, stage.full, stage.slices, stage.batches
    single = [np.zeros(len(slices), np.int64)] * len(batches)
    anywhere = stage.random.permutation(len(full.bank))[:MIXED]
    spread = np.split(anywhere, len(batches))
    folded = runner(
        Dedicated(load_backbone(), stage.state),
        torch.from_numpy(slices)[:, None],
        full.selection.backend.name,
        full.device,
        full.precision,
    )
    swap = swapping(full, slices, [stage.state, *islice(neighbours(stage.state), 7)])

    def through(predictor: Predictor, domains: list[np.ndarray]) -> Callable[[], object]:
        return lambda: [predictor.logits(slices, some) for some in domains]

    ways = {
        "dedicated": lambda: [folded() for _ in batches],
        "one_domain": through(full, single),
        "mixed": through(full, batches),
        "among_1": through(few, single),
        "among_many": through(full, spread),
        "swapped": lambda: [swap() for _ in batches],
    }
    wait = torch.cuda.synchronize if full.device.type == "cuda" else lambda: None
    return interleaved(pairs, ways, wait)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--batch", type=int, default=0, help="slices; 0: the service's own")
    parser.add_argument("--domains", type=int, default=10_000)
    parser.add_argument("--pairs", type=int, default=11)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(os.cpu_count() or 1)
    stage = prepare(options)
    times, full = measure(stage, options.pairs), stage.full
    print(
        json.dumps(
            {
                "mixed_over_dedicated": round(ratio(times, "mixed", "dedicated"), 4),
                "one_over_dedicated": round(ratio(times, "one_domain", "dedicated"), 4),
                "swapped_over_dedicated": round(ratio(times, "swapped", "dedicated"), 4),
                f"time_{options.domains}_over_1": round(ratio(times, "among_many", "among_1"), 4),
                "bytes_per_domain": full.bank.bytes_per_domain,
                **{
                    f"{n}_ms": round(1e3 * statistics.median(t) / MIXED, 3)
                    for n, t in times.items()
                },
                "domains": len(full.bank),
                "mixed_domains": MIXED,
                "batch_slices": full.batch_slices,
                "slice": list(full.spec.slice_shape),
                "pairs": options.pairs,
                "backend": full.backend,
                "ms_per_slice": dict(full.selection.ms_per_slice),
                "peak_rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                **environment(full.device, full.precision),
            }
        )
    )


if __name__ == "__main__":
    main()
