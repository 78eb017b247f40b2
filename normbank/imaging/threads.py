"""Work on arrays in a few threads; NumPy lets go of the interpreter meanwhile."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

_A = TypeVar("_A")
_B = TypeVar("_B")
_MOST = 4  # more would wait for the interpreter and for the memory


def in_threads(work: Callable[[_A], _B], items: Sequence[_A]) -> list[_B]:
    """`[work(item) for item in items]`, each thread taking a run of the items."""
    count = min(_MOST, len(os.sched_getaffinity(0)), len(items))
    if count < 2:
        return [work(item) for item in items]
    cuts = [len(items) * n // count for n in range(count + 1)]
    runs = [items[a:b] for a, b in pairwise(cuts)]
    with ThreadPoolExecutor(count) as pool:
        done = list(pool.map(lambda run: [work(item) for item in run], runs))
    return [result for run in done for result in run]
