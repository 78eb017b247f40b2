"""What runs the shared network: PyTorch as it is, compiled, or OpenVINO.

Every backend takes what is private to a domain as inputs, so a domain costs
nothing in any of them, and batches of one size of slices have one shape, so
what a sample is answered cannot depend on the samples beside it.
"""

from __future__ import annotations

import copy
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from models.adapters import merged
from models.backbone import Backbone
from models.bank import affine
from models.graphs import GRAPH, OwnTensors, dedicated_graph, mixing_graph
from models.network import UNet
from models.quantization import ranges_name

log = logging.getLogger(__name__)

EAGER, INDUCTOR, OPENVINO = "eager", "inductor", "openvino"
NAMES = (OPENVINO, INDUCTOR, EAGER)
AUTO = "auto"

_TIMED_RUNS = 2
_TIMED_S = 0.2
"""At least so long: one moment of a busy machine shall not decide."""
_DECIDED = 1.25
"""How much faster another one must be than one that stands before it in `NAMES`: noise
shall not let two starts, or server and worker, choose differently."""


class BackendError(RuntimeError):
    """A backend that was asked for cannot run here."""


@dataclass(frozen=True)
class Site:
    """What a backend is built for.

    Attributes
    ----------
    shape : N 1 H W of a forward pass over whole slices
    """

    device: torch.device
    precision: torch.dtype
    shape: tuple[int, int, int, int]


class Backend(Protocol):
    """One way to run the network of a backbone at one site."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str:
        """Of the library that computes: other versions may round otherwise."""

    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        """Class scores of one batch; one thread at a time may ask.

        Parameters
        ----------
        slices : N 1 H W float32 on the CPU
        table : N 2 C float32 on the device, scale and shift
        heads : N K F+1 float32 on the device

        Returns
        -------
        N K H W; the next call may write over it
        """


class BankedNetwork(nn.Module):
    """The shared network, with what is private to a domain as plain tensors."""

    def __init__(self, network: UNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        """N 1 H W, N 2 C and N K F+1 to logits N K H W."""
        return self.network(slices, affine(table), heads)  # type: ignore[no-any-return]


class Eager:
    """PyTorch, operation by operation."""

    name = EAGER

    def __init__(self, backbone: Backbone, site: Site) -> None:
        self._site = site
        network = copy.deepcopy(backbone.network).to(site.device, site.precision)
        placed = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: Callable[..., Tensor] = BankedNetwork(placed)

    @property
    def version(self) -> str:
        return f"torch {torch.__version__}"

    @torch.inference_mode()
    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        if self._site.device.type == "cuda":
            slices = slices.pin_memory()
        slices = slices.to(self._site.device, self._site.precision, non_blocking=True)
        return self._network(slices.to(memory_format=torch.channels_last), table, heads)


class Inductor(Eager):
    """PyTorch's compiler: scale, shift and ReLU are fused, on a GPU the launches recorded.

    Raises
    ------
    BackendError
        On a CPU without a C++ compiler.
    """

    name = INDUCTOR

    def __init__(self, backbone: Backbone, site: Site) -> None:
        if site.device.type == "cpu" and not has_compiler():
            raise BackendError("no C++ compiler is installed")
        super().__init__(backbone, site)
        mode = "reduce-overhead" if site.device.type == "cuda" else None
        self._network = torch.compile(self._network, mode=mode, dynamic=False)


class OpenVino:
    """Intel's inference library, for CPUs; int8 where the precision says so.

    A graph is compiled for every size of slices at its first use.

    Raises
    ------
    BackendError
        Where it is not installed, on other devices, and for int8 where nobody
        knows how large activations are.
    """

    name = OPENVINO

    def __init__(self, backbone: Backbone, site: Site) -> None:
        if site.device.type != "cpu":
            raise BackendError("it is for CPUs")
        if find_spec("openvino") is None:
            raise BackendError("it is not installed")
        if site.precision == torch.int8 and backbone.ranges is None:
            raise BackendError("int8 needs the states that the backbone was trained with")
        self._site, self._network = site, backbone.network
        self._ranges = backbone.ranges if site.precision == torch.int8 else None
        self._requests: dict[tuple[int, ...], tuple[Any, NDArray[np.float32]]] = {}

    @property
    def version(self) -> str:
        ranges = "" if self._ranges is None else f" {ranges_name(self._ranges)}"
        return f"openvino {version('openvino')}, graph {GRAPH}{ranges}"

    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        request, scores = self._request(tuple(slices.shape))
        inputs = [one.contiguous().numpy() for one in (slices, table, heads)]
        request.infer(inputs, share_inputs=True, share_outputs=True)
        return torch.from_numpy(scores)

    def _request(self, shape: tuple[int, ...]) -> tuple[Any, NDArray[np.float32]]:
        """What computes slices of a shape, and where it writes N K H W."""
        if shape not in self._requests:
            count, channels, height, width = shape
            graph = mixing_graph(self._network, (count, channels, height, width), self._ranges)
            scores = np.empty((count, self._network.spec.head_shape[0], height, width), np.float32)
            request = openvino_request(graph, self._site.precision)
            _write_into(request, scores)
            self._requests[shape] = request, scores
        return self._requests[shape]

    def for_one(self, network: UNet, own: OwnTensors) -> OneDomain:
        """The same for one domain with filters of its own.

        Parameters
        ----------
        network : holds the filters
        """
        graph = dedicated_graph(network, own, (1, -1, -1), self._ranges)
        return OneDomain(openvino_request(graph, self._site.precision), self.version)


class OneDomain:
    """OpenVINO for a domain that has filters of its own: batch norm folded into them.

    One graph for slices of any size, slice by slice: many domains can be kept.
    """

    name = OPENVINO

    def __init__(self, request: Any, version: str) -> None:
        self._request, self.version = request, version

    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        scores = torch.empty(len(slices), heads.shape[1], *slices.shape[2:])
        for one, into in zip(slices.numpy(), scores.numpy(), strict=True):
            found = self._request.infer([one[None]], share_inputs=True, share_outputs=True)
            into[:] = found[0][0]
        return scores


_MAKERS: Mapping[str, Callable[[Backbone, Site], Backend]] = {
    EAGER: Eager,
    INDUCTOR: Inductor,
    OPENVINO: OpenVino,
}


def openvino_request(model: Any, precision: torch.dtype) -> Any:
    """A model compiled by OpenVINO for this CPU.

    Parameters
    ----------
    model : openvino.Model
    precision : of what is not quantised in the model; for int8 bfloat16 where
        the CPU computes it natively

    Returns
    -------
    openvino.InferRequest
    """
    import openvino

    if precision == torch.int8:
        precision = torch.bfloat16 if computes_bfloat16() else torch.float32
    options = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == torch.float32 else "bf16",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino.Core().compile_model(model, "CPU", options).create_infer_request()


def computes_bfloat16() -> bool:
    """Whether this CPU has instructions for bfloat16."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def _write_into(request: Any, scores: NDArray[np.float32]) -> None:
    """Let a request with an output for every sample write all of them into one array."""
    import openvino

    for place in range(len(scores)):
        tensor = openvino.Tensor(scores[place : place + 1], shared_memory=True)
        request.set_output_tensor(place, tensor)


def for_domain(
    chosen: Backend, backbone: Backbone, site: Site, adapters: Tensor, own: OwnTensors
) -> Backend:
    """A backend of one domain's own, whose filters hold its adapters.

    Parameters
    ----------
    chosen : what the others compute with; inductor would compile once more
        for every domain, so plain torch stands in for it
    adapters : (A,)
    own : the domain's other tensors
    """
    network = merged(backbone.network, adapters)
    if isinstance(chosen, OpenVino):
        return chosen.for_one(network, own)
    return Eager(replace(backbone, network=network), site)


def has_compiler() -> bool:
    """Whether inductor would find a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


@dataclass(frozen=True)
class Choice:
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
    return (*quantised, *((name, one) for name in names for one in floats))


def choose(
    backbone: Backbone, site: Site, name: str = AUTO, precision: torch.dtype | None = None
) -> Choice:
    """Build and measure backends, and keep the fastest; where it is close, the first.

    Parameters
    ----------
    site : its precision is not looked at
    name : `auto`, or the only one that may be taken
    precision : the only one that may be taken; None: the fastest

    Raises
    ------
    BackendError
        If what was asked for cannot run here.
    """
    if name not in (AUTO, *NAMES):
        raise BackendError(f"there is no backend {name!r}; there are {', '.join(NAMES)}")
    ways = _wanted(candidates(site.device), name, precision)
    ready: dict[Way, Backend] = {}
    refused: dict[str, str] = {}
    times: dict[Way, float] = {}
    for way in ways:
        where = replace(site, precision=way[1])
        try:
            with _quiet():
                backend = _MAKERS[way[0]](backbone, where)
                times[way] = _time(backend, backbone, where)
            ready[way] = backend
        except Exception as error:  # whatever a compiler raises, there is another backend
            if way == ways[-1] and not ready:
                raise BackendError(f"backend {way[0]}: {error}") from error
            log.warning("a backend cannot run", extra={"backend": _named(way), "why": str(error)})
            refused[_named(way)] = str(error) or type(error).__name__
    limit = _DECIDED * min(times.values())
    taken = next(way for way in ways if way in times and times[way] <= limit)
    ms = {_named(way): round(1000 * took / site.shape[0], 1) for way, took in times.items()}
    return Choice(ready[taken], taken[1], ms, refused)


def _wanted(ways: Sequence[Way], name: str, precision: torch.dtype | None) -> Sequence[Way]:
    """Of all ways those that were asked for, also where `auto` would not try them."""
    if name != AUTO and all(one != name for one, _ in ways):
        ways = tuple((name, one) for one in dict.fromkeys(number for _, number in ways))
    if precision is not None:
        ways = tuple(dict.fromkeys((one, precision) for one, _ in ways))
    if name != AUTO:
        ways = tuple(way for way in ways if way[0] == name)
    return ways


def _named(way: Way) -> str:
    return f"{way[0]} {precision_name(way[1])}"


def precision_name(precision: torch.dtype) -> str:
    """Such as `bfloat16`."""
    return str(precision).removeprefix("torch.")


def _time(backend: Backend, backbone: Backbone, site: Site) -> float:
    """Seconds of the fastest of some forward passes, after one that warms up."""
    spec, count = backbone.spec, site.shape[0]
    slices = torch.rand(site.shape, generator=torch.Generator().manual_seed(0))
    table = torch.ones(count, 2, spec.channels, device=site.device)
    heads = backbone.head.to(site.device).expand(count, -1, -1)

    def once() -> float:
        return _seconds(lambda: backend.run(slices, table, heads), site.device)

    once()
    times: list[float] = []
    while len(times) < _TIMED_RUNS or sum(times) < _TIMED_S:
        times.append(once())
    return min(times)


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
