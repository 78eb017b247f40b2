"""The U-Net of Karani et al., MICCAI 2018, with its normalisation passed in.

The network owns the convolutions alone. What follows a convolution (scale,
shift, ReLU) is a function of the call, so a domain is an argument of the
forward pass and never a mode of the module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.parallel import convolve
from models.spec import BackboneSpec, Layer

Normalise = Callable[[Layer, Tensor], Tensor]
"""(layer, features N C H W straight from the convolution) -> activated features."""

Adapters = Mapping[str, Tensor]
"""By layer, O I 1 1: what is added to the middle of its kernels; see `models.adapters`."""


class UNet(nn.Module):
    """Three max-pools, 3×3 convolutions without bias, bilinear upsampling.

    Parameters
    ----------
    spec : sizes and class order
    """

    def __init__(self, spec: BackboneSpec) -> None:
        super().__init__()
        self.spec = spec
        self.convolutions = nn.ParameterDict(
            {
                layer.name: nn.Parameter(torch.empty(layer.channels, layer.inputs, 3, 3))
                for layer in spec.layers
            }
        )
        self.head = nn.Conv2d(spec.up[-1], len(spec.classes), 1)
        for weight in self.convolutions.values():
            if not weight.is_meta:  # drawing numbers there loads torch's compiler: seconds
                nn.init.kaiming_normal_(weight, nonlinearity="relu")

    def forward(
        self,
        slices: Tensor,
        normalise: Normalise,
        head: Tensor | None = None,
        adapters: Adapters | None = None,
    ) -> Tensor:
        """Class scores of every pixel.

        Parameters
        ----------
        slices : N C H W, a slice between its neighbours (C is `spec.inputs`), H and W
            divisible by 8, intensities by percentile
        normalise : what stands behind each convolution
        head : N K F+1, or 1 K F+1 for all samples, the last convolution's
            weights and bias; None: the network's own
        adapters : 1×1 convolutions parallel to the others, the same for all
            samples; None: there are none

        Returns
        -------
        N K H W, logits in the order of `spec.classes`
        """
        layers = iter(self.spec.layers)
        features, skips = slices, []
        for level in range(len(self.spec.down)):
            if level:
                skips.append(features)
                features = F.max_pool2d(features, 2)
            features = self._block(features, layers, normalise, adapters)
        while skips:
            features = torch.cat([upsample(features), skips.pop()], 1)
            features = self._block(features, layers, normalise, adapters)
        if head is None:
            return F.conv2d(features, self.head.weight, self.head.bias)
        return apply_heads(features, head)

    def _block(
        self,
        features: Tensor,
        layers: Iterator[Layer],
        normalise: Normalise,
        adapters: Adapters | None,
    ) -> Tensor:
        for _ in range(2):
            layer = next(layers)
            weight = self.convolutions[layer.name]
            if adapters is None:
                features = F.conv2d(features, weight, padding=1)
            else:
                features = convolve(features, weight, adapters[layer.name])
            features = normalise(layer, features)
        return features


def upsample(features: Tensor) -> Tensor:
    """Twice the size, bilinear.

    What flows back is a part of the joined features' gradient: without its copy
    torch would take the slow path that is for channels that do not lie last.
    """
    doubled = F.interpolate(features, scale_factor=2.0, mode="bilinear")
    if doubled.requires_grad:
        doubled.register_hook(_channels_last)  # type: ignore[no-untyped-call]
    return doubled


def _channels_last(gradient: Tensor) -> Tensor:
    return gradient.contiguous(memory_format=torch.channels_last)


def apply_heads(features: Tensor, heads: Tensor) -> Tensor:
    """A 1×1 convolution whose weights every sample brings along.

    Parameters
    ----------
    features : N F H W
    heads : N K F+1 or 1 K F+1; the last column is the bias

    Returns
    -------
    N K H W, in the features' precision, channels last
    """
    count, _, height, width = features.shape
    heads = heads.to(features.dtype).expand(count, -1, -1)
    pixels = features.permute(0, 2, 3, 1).reshape(count, height * width, -1)
    scores = torch.baddbmm(heads[:, None, :, -1], pixels, heads[:, :, :-1].transpose(1, 2))
    return scores.view(count, height, width, -1).permute(0, 3, 1, 2)


def joined_head(network: UNet) -> Tensor:
    """K F+1 float32: the network's own head, its bias as last column."""
    weight, bias = network.head.weight.detach(), network.head.bias
    assert bias is not None
    return torch.cat([weight[:, :, 0, 0], bias.detach()[:, None]], 1).float()
