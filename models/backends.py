"""What runs the shared network: PyTorch as it is, compiled, or OpenVINO.

Every backend takes what is private to a domain as inputs, so a domain costs
nothing in any of them, and sees one fixed shape, so what a sample is answered
cannot depend on the samples beside it.
"""

from __future__ import annotations

import copy
import logging
import shutil
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
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
from models.folded import Arrays, Folding, filters_of
from models.graphs import GRAPH, mixing_graph, single_graph
from models.network import UNet

log = logging.getLogger(__name__)

EAGER, INDUCTOR, OPENVINO = "eager", "inductor", "openvino"
NAMES = (OPENVINO, INDUCTOR, EAGER)
AUTO = "auto"

_TIMED_RUNS = 2
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
    shape : N 1 H W of every forward pass
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
    """Intel's inference library, for CPUs.

    Raises
    ------
    BackendError
        Where it is not installed, and on other devices.
    """

    name = OPENVINO

    def __init__(self, backbone: Backbone, site: Site) -> None:
        if site.device.type != "cpu":
            raise BackendError("it is for CPUs")
        if find_spec("openvino") is None:
            raise BackendError("it is not installed")
        self._site, self._spec = site, backbone.spec
        self._request = openvino_request(
            mixing_graph(backbone.network, site.shape[0]), site.precision
        )
        self._scores = np.empty(
            (site.shape[0], len(backbone.spec.classes), *site.shape[2:]), np.float32
        )
        _write_into(self._request, self._scores)

    @property
    def version(self) -> str:
        return _openvino_version()

    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        inputs = [one.contiguous().numpy() for one in (slices, table, heads)]
        self._request.infer(inputs, share_inputs=True, share_outputs=True)
        return torch.from_numpy(self._scores)

    @cached_property
    def _single(self) -> tuple[Any, Folding]:
        graph = single_graph(self._spec, self._site.shape[0])
        return openvino_request(graph, self._site.precision), Folding()

    def with_network(self, network: UNet) -> OneDomain:
        """The same for one domain's own filters; only the first one is compiled."""
        return OneDomain(*self._single, filters_of(network))


class OneDomain:
    """OpenVINO for a domain that has filters of its own.

    They are inputs of one compiled network, folded with the domain's batch
    norm when another domain answered last. All samples of a batch are taken
    to be of the first one's domain.
    """

    name = OPENVINO

    def __init__(self, request: Any, folding: Folding, filters: Arrays) -> None:
        self._request, self._folding, self._filters = request, folding, filters

    @property
    def version(self) -> str:
        return _openvino_version()

    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        weights, biases = self._folding.fold(self._filters, table[0], heads[0])
        inputs = [slices.numpy(), *weights, *biases]
        found = self._request.infer(inputs, share_inputs=True, share_outputs=True)
        return torch.from_numpy(found[0])


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

    Returns
    -------
    openvino.InferRequest
    """
    import openvino

    options = {
        "INFERENCE_PRECISION_HINT": "f32" if precision == torch.float32 else "bf16",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        "PERFORMANCE_HINT": "LATENCY",
    }
    return openvino.Core().compile_model(model, "CPU", options).create_infer_request()


def _openvino_version() -> str:
    return f"openvino {version('openvino')}, graph {GRAPH}"


def _write_into(request: Any, scores: NDArray[np.float32]) -> None:
    """Let a request with an output for every sample write all of them into one array."""
    import openvino

    for place in range(len(scores)):
        tensor = openvino.Tensor(scores[place : place + 1], shared_memory=True)
        request.set_output_tensor(place, tensor)


def with_adapters(chosen: Backend, backbone: Backbone, site: Site, adapters: Tensor) -> Backend:
    """A backend of one domain's own, whose filters hold its adapters.

    Parameters
    ----------
    chosen : what the others compute with; inductor would compile once more
        for every domain, so plain torch stands in for it
    adapters : (A,)
    """
    network = merged(backbone.network, adapters)
    if isinstance(chosen, OpenVino):
        return chosen.with_network(network)
    return Eager(Backbone(network, backbone.sha256), site)


def has_compiler() -> bool:
    """Whether inductor would find a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


@dataclass(frozen=True)
class Choice:
    """A backend, and what the others were like.

    Attributes
    ----------
    ms_per_slice : of those that ran
    refused : why the others did not
    """

    backend: Backend
    ms_per_slice: Mapping[str, float]
    refused: Mapping[str, str]


def candidates(device: torch.device) -> tuple[str, ...]:
    """What `auto` measures on a device.

    Compiling takes inductor more than a minute on a small CPU box, where
    OpenVINO is faster: there it is measured only in OpenVINO's absence.
    """
    if device.type == "cpu" and find_spec("openvino") is not None:
        return (OPENVINO, EAGER)
    return (INDUCTOR, EAGER)


def choose(backbone: Backbone, site: Site, name: str = AUTO) -> Choice:
    """Build and measure backends, and keep the fastest; where it is close, the first.

    Parameters
    ----------
    name : `auto`, or the only one that may be taken

    Raises
    ------
    BackendError
        If the one that was asked for cannot run here.
    """
    if name not in (AUTO, *NAMES):
        raise BackendError(f"there is no backend {name!r}; there are {', '.join(NAMES)}")
    names = candidates(site.device) if name == AUTO else (name,)
    ready: dict[str, Backend] = {}
    refused: dict[str, str] = {}
    times: dict[str, float] = {}
    for one in names:
        try:
            with _quiet():
                backend = _MAKERS[one](backbone, site)
                times[one] = _time(backend, backbone, site)
            ready[one] = backend
        except Exception as error:  # whatever a compiler raises, there is another backend
            if one == names[-1] and not ready:
                raise BackendError(f"backend {one}: {error}") from error
            log.warning("a backend cannot run", extra={"backend": one, "why": str(error)})
            refused[one] = str(error) or type(error).__name__
    limit = _DECIDED * min(times.values())
    taken = next(one for one in names if one in times and times[one] <= limit)
    shown = {one: round(1000 * seconds / site.shape[0], 1) for one, seconds in times.items()}
    return Choice(ready[taken], shown, refused)


def _time(backend: Backend, backbone: Backbone, site: Site) -> float:
    """Seconds of the faster of some forward passes, after one that warms up."""
    spec, count = backbone.spec, site.shape[0]
    slices = torch.rand(site.shape, generator=torch.Generator().manual_seed(0))
    table = torch.ones(count, 2, spec.channels, device=site.device)
    heads = backbone.head.to(site.device).expand(count, -1, -1)
    times: Sequence[float] = [
        _seconds(lambda: backend.run(slices, table, heads)) for _ in range(1 + _TIMED_RUNS)
    ]
    return min(times[1:])


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warnings about the insides of torch's compilers."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _seconds(run: Callable[[], Tensor]) -> float:
    started = time.perf_counter()
    run().cpu()
    return time.perf_counter() - started
