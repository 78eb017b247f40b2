"""A frozen filter with a learning one beside it: the same numbers, without its gradient."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from models.network import UNet, upsample
from models.normalise import TrainableState
from models.parallel import beside, convolve
from models.state import State
from tests.support.networks import small_spec


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    random = torch.Generator().manual_seed(0)
    shapes = ((2, 5, 12, 9), (4, 5, 3, 3), (4, 5, 1, 1))
    return tuple(torch.randn(s, generator=random, dtype=dtype) for s in shapes)  # type: ignore[return-value]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_those_of_one_summed_filter(layout: torch.memory_format) -> None:
    features, weight, adapter = drawn(torch.float64)
    pull = torch.randn(2, 4, 12, 9, dtype=torch.float64)

    def gradients(separate: bool) -> tuple[Tensor, ...]:
        x = features.contiguous(memory_format=layout).requires_grad_()
        a = adapter.clone().requires_grad_()
        y = convolve(x, weight, a) if separate else F.conv2d(x, beside(weight, a), padding=1)
        return y, *torch.autograd.grad((y * pull).sum(), (x, a))

    for one, other in zip(gradients(True), gradients(False), strict=True):
        torch.testing.assert_close(one, other)


def test_half_precision_flows_through_both_ways() -> None:
    features, weight, adapter = drawn(torch.float32)

    def gradient(precision: torch.dtype) -> Tensor:
        a = adapter.clone().requires_grad_()
        with torch.autocast("cpu", precision, enabled=precision != torch.float32):
            y = convolve(features, weight, a)
        assert y.dtype == precision
        return torch.autograd.grad(y.float().square().sum(), a)[0]

    exact = gradient(torch.float32)
    rough = gradient(torch.bfloat16)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.02 * exact.norm()


def test_upsampling_hands_back_the_same_gradient_in_the_layout_of_the_features() -> None:
    first = torch.randn(2, 3, 4, 5, dtype=torch.float64).contiguous(
        memory_format=torch.channels_last
    )
    skip = torch.randn(2, 2, 8, 10, dtype=torch.float64)
    layouts, gradients = [], []
    for up in (upsample, lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear")):
        x = first.clone().requires_grad_()
        doubled = up(x)
        doubled.register_hook(
            lambda g: layouts.append(g.is_contiguous(memory_format=torch.channels_last))
        )
        torch.cat([doubled, skip], 1).square().sum().backward()
        gradients.append(x.grad)
    assert layouts == [True, False]
    torch.testing.assert_close(*gradients)


def test_a_network_with_adapters_teaches_them_what_the_summed_filters_would() -> None:
    spec = small_spec()
    network = UNet(spec).double().requires_grad_(False)
    images = torch.rand(2, 1, 16, 24, dtype=torch.float64)

    def gradient(separate: bool) -> Tensor:
        state = TrainableState(State.initial(spec, ""), spec, torch.device("cpu"), adapters=True)
        for name in ("gamma", "beta", "mean", "var"):
            setattr(state, name, getattr(state, name).detach().double())
        adapters = {name: a.double() for name, a in (state.adapters or {}).items()}
        if separate:
            scores = network(images, state, None, adapters)
        else:
            summed = {
                name: beside(weight, adapters[name])
                for name, weight in network.convolutions.items()
            }
            scores = torch.func.functional_call(
                network,
                {f"convolutions.{name}": weight for name, weight in summed.items()},
                (images, state),
            )
        return torch.autograd.grad(scores.square().mean(), state.parameters[-1])[0]

    torch.testing.assert_close(gradient(True), gradient(False))
