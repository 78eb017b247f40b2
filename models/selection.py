"""Which backend computes, and in which precision: measured where both are left open."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec

import torch
from torch import Tensor

from models.backbone import Backbone
from models.backends import (
    AUTO,
    EAGER,
    INDUCTOR,
    MAKERS,
    NAMES,
    OPENVINO,
    Backend,
    BackendError,
    CompileTarget,
    computes_bfloat16,
    precision_name,
)

log = logging.getLogger(__name__)

_ROUNDS = 6
_FAR = 2.5
"""Times slower than the fastest: too slow to be timed again."""

_DECIDED = 1.25
"""How much faster another one must be than one that stands before it in `candidates`: noise
shall not let two starts, or server and worker, choose differently."""


@dataclass(frozen=True)
class Selection:
    """A backend, and what the others were like.

    Attributes
    ----------
    precision : in which it computes
    ms_per_slice : of those that ran, by library and precision
    refused : why the others did not
    """

    backend: Backend
    precision: torch.dtype
    ms_per_slice: Mapping[str, float]
    refused: Mapping[str, str]


Way = tuple[str, torch.dtype]
"""A backend's name, and the precision that it computes in."""


def candidates(device: torch.device) -> tuple[Way, ...]:
    """What `auto` measures on a device; where it is close, the first one is taken.

    Compiling takes inductor more than a minute on a small CPU box, where
    OpenVINO is faster: there it is measured only in OpenVINO's absence.
    """
    if device.type != "cpu":
        fast = torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float32
        return ((INDUCTOR, fast), (EAGER, fast))
    names = (OPENVINO, EAGER) if find_spec("openvino") is not None else (INDUCTOR, EAGER)
    floats = (torch.bfloat16, torch.float32) if computes_bfloat16() else (torch.float32,)
    quantised = ((OPENVINO, torch.int8),) if OPENVINO in names else ()
    return (*quantised, *((name, dtype) for name in names for dtype in floats))


def choose(
    backbone: Backbone,
    target: CompileTarget,
    name: str = AUTO,
    precision: torch.dtype | None = None,
) -> Selection:
    """Build and measure backends, and keep the fastest; where it is close, the first.

    Parameters
    ----------
    target : its precision is not looked at
    name : `auto`, or the only one that may be taken
    precision : the only one that may be taken; None: the fastest

    Raises
    ------
    BackendError
        If what was asked for cannot run here.
    """
    if name not in (AUTO, *NAMES):
        raise BackendError(f"there is no backend {name!r}; there are {', '.join(NAMES)}")
    ways = _wanted(candidates(target.device), name, precision)
    runs: dict[Way, Callable[[], float]] = {}
    ready: dict[Way, Backend] = {}
    refused: dict[str, str] = {}
    for way in ways:
        where = replace(target, precision=way[1])
        try:
            with _quiet():
                ready[way] = MAKERS[way[0]](backbone, where)
                runs[way] = _timed(ready[way], backbone, where)
                runs[way]()  # which compiles, and warms up
        except Exception as error:  # whatever a compiler raises, there is another backend
            ready.pop(way, None)
            runs.pop(way, None)
            if way == ways[-1] and not ready:
                raise BackendError(f"backend {way[0]}: {error}") from error
            log.warning("a backend cannot run", extra={"backend": _named(way), "why": str(error)})
            refused[_named(way)] = str(error) or type(error).__name__
    times = _fastest_of_rounds(runs)
    limit = _DECIDED * min(times.values())
    taken = next(way for way in ways if way in times and times[way] <= limit)
    ms = {_named(way): round(1000 * took / target.shape[0], 1) for way, took in times.items()}
    return Selection(ready[taken], taken[1], ms, refused)


def _fastest_of_rounds(runs: Mapping[Way, Callable[[], float]]) -> dict[Way, float]:
    """Seconds of everyone's fastest run.

    In rounds, so that what else is going on in the process hits all alike; those
    that are far behind run once.
    """
    times = {way: run() for way, run in runs.items()}
    for _ in range(_ROUNDS - 1 if len(runs) > 1 else 0):
        near = [way for way in runs if times[way] <= _FAR * min(times.values())]
        for way in near:
            times[way] = min(times[way], runs[way]())
    return times


def _wanted(ways: Sequence[Way], name: str, precision: torch.dtype | None) -> Sequence[Way]:
    """Of all ways those that were asked for, also where `auto` would not try them."""
    if name != AUTO and all(backend != name for backend, _ in ways):
        ways = tuple((name, dtype) for dtype in dict.fromkeys(dtype for _, dtype in ways))
    if precision is not None:
        ways = tuple(dict.fromkeys((backend, precision) for backend, _ in ways))
    if name != AUTO:
        ways = tuple(way for way in ways if way[0] == name)
    return ways


def _named(way: Way) -> str:
    return f"{way[0]} {precision_name(way[1])}"


def _timed(backend: Backend, backbone: Backbone, target: CompileTarget) -> Callable[[], float]:
    """A forward pass, and how many seconds it takes."""
    spec, count = backbone.spec, target.shape[0]
    slices = torch.rand(target.shape, generator=torch.Generator().manual_seed(0))
    table = torch.ones(count, 2, spec.channels, device=target.device)
    heads = backbone.head.to(target.device).expand(count, -1, -1)
    return lambda: _seconds(lambda: backend.run(slices, table, heads), target.device)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings about the insides of torch's compilers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """How long a run takes; on a CPU as if this process had all its threads to itself.

    A server and its worker start at the same moment, and measure beside each other.
    """
    if device.type == "cpu":
        spent = time.process_time()
        run()
        return (time.process_time() - spent) / torch.get_num_threads()
    started = time.perf_counter()
    run().cpu()
    return time.perf_counter() - started
