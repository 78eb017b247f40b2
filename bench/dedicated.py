"""The peer of every benchmark: one domain's own network, its batch norm folded into the filters."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.backends import OPENVINO, CompileTarget, openvino_request, precision_name
from models.state import State

ROUNDS = 6  # the first of them warms up


class Dedicated(nn.Module):
    """The network of one state: nothing but convolutions with bias, as anybody would export it."""

    def __init__(self, backbone: Backbone, state: State) -> None:
        super().__init__()
        head = backbone.head if state.head is None else state.head
        table, spec = state.affine(backbone.spec.eps), backbone.spec
        scale, shift = (row.split([layer.channels for layer in spec.layers]) for row in table)
        filters = (backbone.network.convolutions[layer.name] for layer in spec.layers)
        weights = [
            w * factor[:, None, None, None] for w, factor in zip(filters, scale, strict=True)
        ]
        self.weights = nn.ParameterList(
            nn.Parameter(w, False) for w in (*weights, head[:, :-1, None, None])
        )
        self.biases = nn.ParameterList(
            nn.Parameter(b.clone(), False) for b in (*shift, head[:, -1])
        )
        self._levels = len(backbone.spec.down)

    def forward(self, slices: Tensor) -> Tensor:
        """N 1 H W to logits N K H W."""
        *body, head = zip(self.weights, self.biases, strict=True)
        layers = iter(body)
        features, skips = slices, []
        for level in range(self._levels):
            if level:
                skips.append(features)
                features = F.max_pool2d(features, 2)
            features = _block(features, layers)
        while skips:
            features = F.interpolate(features, scale_factor=2.0, mode="bilinear")
            features = _block(torch.cat([features, skips.pop()], 1), layers)
        return F.conv2d(features, *head)


def _block(features: Tensor, layers: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
    for _ in range(2):
        features = F.relu(F.conv2d(features, *next(layers), padding=1))
    return features


def _converted(network: nn.Module, slices: Tensor) -> Any:
    """A network as OpenVINO's own converter makes it of PyTorch's."""
    import openvino

    with torch.no_grad():
        model = openvino.convert_model(torch.export.export(network.eval(), (slices,)))
    model.reshape(list(slices.shape))
    return model


def _quantized(model: Any, slices: Tensor) -> Any:
    """The same model in int8, as NNCF makes it of slices to calibrate by."""
    import nncf

    nncf.set_log_level(logging.ERROR)
    return nncf.quantize(model, nncf.Dataset([slices.numpy()] * 4), subset_size=4)


def best_in_openvino(network: nn.Module, slices: Tensor) -> tuple[str, Callable[[], object]]:
    """A network in OpenVINO's fastest precision here, and which that is."""
    runs = {
        precision_name(precision): runner(network, slices, OPENVINO, torch.device("cpu"), precision)
        for precision in (torch.float32, torch.bfloat16, torch.int8)
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):  # in turn: the speed of a machine varies
        for name, run in runs.items():
            began = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - began)
    best = min(times, key=lambda name: min(times[name]))
    return best, runs[best]


def runner(
    network: nn.Module, slices: Tensor, backend: str, device: torch.device, precision: torch.dtype
) -> Callable[[], object]:
    """A call that runs a network on some slices, as `models.backends` would.

    Parameters
    ----------
    slices : N 1 H W float32 on the CPU
    backend : of `models.backends.NAMES`
    """
    if backend == OPENVINO:
        model = _converted(network, slices)
        if precision == torch.int8:
            model = _quantized(model, slices)
        return in_openvino(model, slices, precision)
    placed: nn.Module = network.to(device, precision)
    placed = placed.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run = torch.compile(placed, dynamic=False) if backend == "inductor" else placed

    @torch.inference_mode()
    def forward() -> Tensor:
        inputs = slices.to(device, precision).to(memory_format=torch.channels_last)
        return run(inputs)  # type: ignore[no-any-return]

    return forward


def in_openvino(model: Any, slices: Tensor, precision: torch.dtype) -> Callable[[], object]:
    """A call that runs a model, or one that a file holds, on slices N 1 H W."""
    request, inputs = openvino_request(model, precision), [slices.numpy()]
    return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)


def save_converted(network: nn.Module, target: CompileTarget, path: str) -> None:
    """A network as OpenVINO's converter makes it, in a file: no process that reads it converts."""
    import openvino

    openvino.save_model(
        _converted(network, torch.zeros(target.shape)), path, compress_to_fp16=False
    )
