"""The peer of every benchmark: one domain's own network, its batch norm folded into the filters."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.backbone import Backbone
from models.backends import OPENVINO, openvino_model, openvino_request
from models.state import State


class Folded(nn.Module):
    """The network of one state: convolutions with bias, nothing between them and their ReLU."""

    def __init__(self, backbone: Backbone, state: State) -> None:
        super().__init__()
        self._layers = backbone.spec.layers
        self._levels = len(backbone.spec.down)
        scale, shift = state.affine(backbone.spec.eps)
        network = copy.deepcopy(backbone.network)
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for layer in self._layers:
            at = slice(layer.start, layer.start + layer.channels)
            weight = network.convolutions[layer.name] * scale[at, None, None, None]
            self.weights.append(nn.Parameter(weight, False))
            self.biases.append(nn.Parameter(shift[at].clone(), False))
        self.head = network.head

    def forward(self, slices: Tensor) -> Tensor:
        """N 1 H W to logits N K H W."""
        filters = zip(self.weights, self.biases, strict=True)
        features, skips = slices, []
        for level in range(self._levels):
            if level:
                skips.append(features)
                features = F.max_pool2d(features, 2)
            features = self._block(features, filters)
        while skips:
            features = F.interpolate(features, scale_factor=2.0, mode="bilinear")
            features = self._block(torch.cat([features, skips.pop()], 1), filters)
        return self.head(features)  # type: ignore[no-any-return]

    def _block(self, features: Tensor, filters: Iterator[tuple[Tensor, Tensor]]) -> Tensor:
        for _ in range(2):
            weight, bias = next(filters)
            features = F.conv2d(features, weight, bias, padding=1).relu_()
        return features


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
        request = openvino_request(openvino_model(network.eval(), (slices,)), precision)
        inputs = [slices.numpy()]
        return lambda: request.infer(inputs, share_inputs=True, share_outputs=True)
    placed = network.to(device, precision).to(memory_format=torch.channels_last)
    run = torch.compile(placed, dynamic=False) if backend == "inductor" else placed

    @torch.inference_mode()
    def forward() -> Tensor:
        inputs = slices.to(device, precision).to(memory_format=torch.channels_last)
        return run(inputs)  # type: ignore[no-any-return]

    return forward
