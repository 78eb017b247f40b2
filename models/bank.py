"""All domains of a backbone on one device, ready to be mixed in one batch."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from models.adapters import by_layer
from models.backbone import Backbone
from models.network import Adapters, Normalise
from models.spec import Layer
from models.state import State


class Bank:
    """Scale, shift and head of every domain, gathered per sample.

    Rows are only ever appended: an index, once given, means the same numbers
    for ever, and a forward pass that has begun keeps the table it began with.
    Adapters change the filters themselves: a domain that has some shares no
    batch with others.

    Parameters
    ----------
    backbone : states of another one are refused; its head serves those that
        bring none
    device : where the tables live

    Examples
    --------
    >>> from models.backbone import freeze
    >>> from models.network import UNet
    >>> from models.spec import BackboneSpec
    >>> backbone = freeze(UNet(BackboneSpec("tiny", ("background", "thalamus"), (4, 8), (4,))))
    >>> bank = Bank(backbone)
    >>> bank.add(State.initial(backbone.spec, backbone.sha256)), len(bank)
    (0, 1)
    """

    def __init__(self, backbone: Backbone, device: torch.device | str = "cpu"):
        self._spec = backbone.spec
        self._backbone = backbone.sha256
        self._shared_head = backbone.head.to(device)
        self._table = torch.zeros(8, 2, self._spec.channels, device=device)
        self._heads = self._shared_head.repeat(8, 1, 1)
        self._index: dict[str, int] = {}
        self._adapted: dict[int, State] = {}

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._index

    @property
    def bytes_per_domain(self) -> int:
        return sum(t[0].numel() * t.element_size() for t in (self._table, self._heads))

    def index(self, sha256: str) -> int:
        """Position of a state that was added. KeyError for others."""
        return self._index[sha256]

    def add(self, state: State) -> int:
        """Position of a state, which is checked and appended when new.

        Raises
        ------
        models.state.BrokenStateError
        """
        sha256 = state.sha256
        if sha256 in self._index:
            return self._index[sha256]
        state.check(self._spec, self._backbone)
        position = len(self._index)
        if position == len(self._table):
            self._table = torch.cat([self._table, torch.zeros_like(self._table)])
            self._heads = torch.cat([self._heads, torch.zeros_like(self._heads)])
        self._table[position] = state.affine(self._spec.eps).to(self._table.device)
        self._heads[position] = self._shared_head if state.head is None else state.head
        if state.adapters is not None:
            self._adapted[position] = state
        self._index[sha256] = position
        return position

    def adapted(self, position: int) -> State | None:
        """The state at a position if it has adapters; None for all others."""
        return self._adapted.get(position)

    def gather(self, domains: Tensor) -> tuple[Tensor, Tensor]:
        """What is private to the domains of a batch, whose samples belong to any.

        Parameters
        ----------
        domains : N int64, positions given by `add`

        Returns
        -------
        scale and shift N 2 C, and heads N K F+1, float32 on the device
        """
        rows = domains.to(self._table.device)
        return self._table[rows], self._heads[rows]


class DomainParameters(NamedTuple):
    """What a domain puts into the shared network, in the order of its arguments.

    Attributes
    ----------
    normalise : `relu(features * scale + shift)`, per sample and channel
    head : N K F+1, or 1 K F+1 for all samples; None: the network's own
    adapters : by layer, for all samples
    """

    normalise: Normalise
    head: Tensor | None = None
    adapters: Adapters | None = None


def domain_parameters(state: State, backbone: Backbone, device: torch.device) -> DomainParameters:
    """One state for a whole batch."""
    head = backbone.head if state.head is None else state.head
    table = state.affine(backbone.spec.eps)[None].to(device)
    adapters = None
    if state.adapters is not None:
        adapters = by_layer(state.adapters.float().to(device), backbone.spec)
    return DomainParameters(affine(table), head[None].to(device), adapters)


def affine(table: Tensor) -> Normalise:
    """Normalise by fixed scale and shift; N 2 C, or 1 2 C for a single domain."""

    def normalise(layer: Layer, features: Tensor) -> Tensor:
        channels = slice(layer.start, layer.start + layer.channels)
        return scale_shift_relu(features, table[:, 0, channels], table[:, 1, channels])

    return normalise


def scale_shift_relu(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`relu(features * scale + shift)`; features N C H W, the others N C or 1 C."""
    scale, shift = (t.to(features.dtype)[..., None, None] for t in (scale, shift))
    return torch.addcmul(shift, features, scale).relu_()
