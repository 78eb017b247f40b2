"""In which precision a network learns faster: measured, where flags of a processor say little."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import lru_cache

import numpy as np
import torch

from models.adapt import DomainLearner, Tuning, TuningRun
from models.backbone import Backbone
from models.cases import LabelledSlices
from models.evaluator import Evaluator
from models.predict import choose_precision
from models.state import State

_DECIDED = 1.25
"""How much faster bfloat16 must be: noise shall not let two runs with one seed differ."""

_TIMED_STEPS = 3

_FORCED = ("float32", "bfloat16")


def learning_precision(name: str, backbone: Backbone, device: torch.device) -> torch.dtype:
    """What an adaptation computes in.

    A processor may have instructions for bfloat16 and yet be slower with them.
    On a CPU that has some, a few steps are therefore timed in both.

    Parameters
    ----------
    name : float32 and bfloat16 are obeyed; all else leaves the choice open
    """
    if name in _FORCED:
        return choose_precision(name, device)
    native = choose_precision("auto", device)
    if device.type != "cpu" or native == torch.float32:
        return native
    return _measured(backbone, torch.get_num_threads())


@lru_cache(maxsize=4)
def _measured(backbone: Backbone, _threads: int) -> torch.dtype:
    plain, half = (_steps(backbone, precision) for precision in (torch.float32, torch.bfloat16))
    plain(), half()  # which warms up
    times = [(plain(), half()) for _ in range(_TIMED_STEPS)]  # in turn: a machine's speed varies
    return faster(*(min(durations) for durations in zip(*times, strict=True)))


def faster(plain_s: float, half_s: float) -> torch.dtype:
    """bfloat16 only where a step takes clearly less time in it."""
    return torch.bfloat16 if half_s * _DECIDED <= plain_s else torch.float32


def _steps(backbone: Backbone, precision: torch.dtype) -> Callable[[], float]:
    """Takes a step on a few drawn slices of the real shape; the processor's seconds for it."""
    spec, cpu = backbone.spec, torch.device("cpu")
    random, shape = np.random.default_rng(0), (2, *spec.slice_shape)
    case = LabelledSlices(
        random.random(shape, np.float32),
        random.integers(len(spec.classes), size=shape, dtype=np.uint8),
        np.ones(len(spec.classes), bool),
    )
    tuning = Tuning(batch_size=len(case.images))
    start = State.initial(spec, backbone.sha256)
    run = TuningRun(
        DomainLearner(Evaluator(backbone, cpu, precision), start, tuning), [case], tuning, cpu
    )

    def step() -> float:
        started = time.process_time()  # what others do on the machine does not count
        run.step()
        return time.process_time() - started

    return step
