"""All domains of a backbone on one device, ready to be mixed in one batch."""

from __future__ import annotations

import torch
from torch import Tensor

from models.network import Normalise
from models.spec import BackboneSpec, Layer
from models.state import State


class Bank:
    """Scale and shift of every domain, gathered per sample.

    Rows are only ever appended: an index, once given, means the same numbers
    for ever, and a forward pass that has begun keeps the table it began with.

    Parameters
    ----------
    spec : of the backbone
    backbone : its sha256; states of another one are refused
    device : where the tables live
    """

    def __init__(self, spec: BackboneSpec, backbone: str, device: torch.device | str = "cpu"):
        self._spec = spec
        self._backbone = backbone
        self._table = torch.zeros(8, 2, spec.channels, device=device)
        self._index: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, sha256: str) -> bool:
        return sha256 in self._index

    @property
    def bytes_per_domain(self) -> int:
        return self._table[0].numel() * self._table.element_size()

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
        self._table[position] = state.affine(self._spec.eps).to(self._table.device)
        self._index[sha256] = position
        return position

    def gather(self, domains: Tensor) -> Normalise:
        """The normalisation of a batch whose samples belong to any domains.

        Parameters
        ----------
        domains : N int64, positions given by `add`

        Returns
        -------
        Normalise
            `relu(features * scale + shift)`, per sample and channel.
        """
        return affine(self._table[domains.to(self._table.device)])


def affine(table: Tensor) -> Normalise:
    """Normalise by fixed scale and shift; N 2 C, or 1 2 C for a single domain."""

    def normalise(layer: Layer, features: Tensor) -> Tensor:
        at = slice(layer.start, layer.start + layer.channels)
        return scale_shift_relu(features, table[:, 0, at], table[:, 1, at])

    return normalise


def scale_shift_relu(features: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`relu(features * scale + shift)`; features N C H W, the others N C or 1 C."""
    scale, shift = (t.to(features.dtype)[..., None, None] for t in (scale, shift))
    return torch.addcmul(shift, features, scale).relu_()
