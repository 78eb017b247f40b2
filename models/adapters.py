"""1×1 convolutions of a domain's own, parallel to the shared 3×3 ones.

What a domain cannot say by scale and shift, such as where another protocol
draws a border, it may say by these: they start at zero, which changes
nothing, and the shared filters beside them stay as they are. A 1×1 kernel is
the middle of a 3×3 one, so both together are one convolution and cost no
time.

Rebuffi et al., CVPR 2018 (parallel residual adapters).
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from models.network import UNet
from models.parallel import beside
from models.spec import BackboneSpec


def by_layer(adapters: Tensor, spec: BackboneSpec) -> dict[str, Tensor]:
    """The flat tensor (A,) of a state as one O I 1 1 view per layer."""
    sizes = [layer.channels * layer.inputs for layer in spec.layers]
    parts = torch.split(adapters, sizes)
    return {
        layer.name: part.view(layer.channels, layer.inputs, 1, 1)
        for layer, part in zip(spec.layers, parts, strict=True)
    }


@torch.no_grad()
def merged(network: UNet, adapters: Tensor) -> UNet:
    """A copy of a network that computes with a domain's adapters.

    Parameters
    ----------
    network : left alone
    adapters : (A,)
    """
    merged_network = copy.deepcopy(network)
    for name, adapter in by_layer(adapters.float(), network.spec).items():
        merged_network.convolutions[name].copy_(beside(network.convolutions[name], adapter))
    return merged_network
