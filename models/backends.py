"""What runs the shared network: PyTorch as it is, compiled, or OpenVINO.

Every backend takes what is private to a domain as inputs, so a domain costs
nothing in any of them, and batches of one size of slices have one shape, so
what a sample is answered cannot depend on the samples beside it.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Mapping
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

EAGER, INDUCTOR, OPENVINO = "eager", "inductor", "openvino"
NAMES = (OPENVINO, INDUCTOR, EAGER)
AUTO = "auto"


class BackendError(RuntimeError):
    """A backend that was asked for cannot run here."""


@dataclass(frozen=True)
class CompileTarget:
    """What a backend is built for.

    Attributes
    ----------
    shape : N 1 H W of a forward pass over whole slices
    """

    device: torch.device
    precision: torch.dtype
    shape: tuple[int, int, int, int]


class Backend(Protocol):
    """One way to run the network of a backbone for one target."""

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

    def __init__(self, backbone: Backbone, target: CompileTarget) -> None:
        self._target = target
        network = copy.deepcopy(backbone.network).to(target.device, target.precision)
        placed = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._network: Callable[..., Tensor] = BankedNetwork(placed)

    @property
    def version(self) -> str:
        return f"torch {torch.__version__}"

    @torch.inference_mode()
    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        if self._target.device.type == "cuda":
            slices = slices.pin_memory()
        slices = slices.to(self._target.device, self._target.precision, non_blocking=True)
        return self._network(slices.to(memory_format=torch.channels_last), table, heads)


class Inductor(Eager):
    """PyTorch's compiler: scale, shift and ReLU are fused, on a GPU the launches recorded.

    Raises
    ------
    BackendError
        On a CPU without a C++ compiler.
    """

    name = INDUCTOR

    def __init__(self, backbone: Backbone, target: CompileTarget) -> None:
        if target.device.type == "cpu" and not has_compiler():
            raise BackendError("no C++ compiler is installed")
        super().__init__(backbone, target)
        mode = "reduce-overhead" if target.device.type == "cuda" else None
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

    def __init__(self, backbone: Backbone, target: CompileTarget) -> None:
        if target.device.type != "cpu":
            raise BackendError("it is for CPUs")
        if find_spec("openvino") is None:
            raise BackendError("it is not installed")
        if target.precision == torch.int8 and backbone.ranges is None:
            raise BackendError("int8 needs the states that the backbone was trained with")
        self._target, self._network = target, backbone.network
        self._ranges = backbone.ranges if target.precision == torch.int8 else None
        self._requests: dict[tuple[int, ...], tuple[Any, NDArray[np.float32]]] = {}

    @property
    def version(self) -> str:
        ranges = "" if self._ranges is None else f" {ranges_name(self._ranges)}"
        return f"openvino {version('openvino')}, graph {GRAPH}{ranges}"

    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        request, scores = self._request(tuple(slices.shape))
        inputs = [tensor.contiguous().numpy() for tensor in (slices, table, heads)]
        request.infer(inputs, share_inputs=True, share_outputs=True)
        return torch.from_numpy(scores)

    def _request(self, shape: tuple[int, ...]) -> tuple[Any, NDArray[np.float32]]:
        """What computes slices of a shape, and where it writes N K H W."""
        if shape not in self._requests:
            count, channels, height, width = shape
            graph = mixing_graph(self._network, (count, channels, height, width), self._ranges)
            scores = np.empty((count, self._network.spec.head_shape[0], height, width), np.float32)
            request = openvino_request(graph, self._target.precision)
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
        return OneDomain(openvino_request(graph, self._target.precision), self.version)


class OneDomain:
    """OpenVINO for a domain that has filters of its own: batch norm folded into them.

    One graph for slices of any size, slice by slice: many domains can be kept.
    """

    name = OPENVINO

    def __init__(self, request: Any, version: str) -> None:
        self._request, self.version = request, version

    def run(self, slices: Tensor, table: Tensor, heads: Tensor) -> Tensor:
        scores = torch.empty(len(slices), heads.shape[1], *slices.shape[2:])
        for image, into in zip(slices.numpy(), scores.numpy(), strict=True):
            outputs = self._request.infer([image[None]], share_inputs=True, share_outputs=True)
            into[:] = outputs[0][0]
        return scores


MAKERS: Mapping[str, Callable[[Backbone, CompileTarget], Backend]] = {
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
    chosen: Backend, backbone: Backbone, target: CompileTarget, adapters: Tensor, own: OwnTensors
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
    return Eager(replace(backbone, network=network), target)


def has_compiler() -> bool:
    """Whether inductor would find a C++ compiler."""
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


def precision_name(precision: torch.dtype) -> str:
    """Such as `bfloat16`."""
    return str(precision).removeprefix("torch.")
