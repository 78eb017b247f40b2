"""A domain's private tensors: gamma, beta, mean, variance; at times a head and adapters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from models.hashing import hash_tensors
from models.spec import BackboneSpec

ROWS = ("gamma", "beta", "mean", "var")


class BrokenStateError(ValueError):
    """A state's bytes, shape, values or backbone do not check."""


@dataclass(frozen=True)
class State:
    """The normalisation of one domain, for every layer of one backbone.

    Attributes
    ----------
    rows : 4 C float32 on the CPU; gamma, beta, running mean, running variance
    backbone : sha256 of the backbone that the rows belong to
    head : K F+1 float32 on the CPU, the weights and the bias of a last 1×1
        convolution of the domain's own; None: the backbone's
    adapters : (A,) bfloat16 on the CPU, 1×1 convolutions parallel to the
        shared ones, see `models.adapters`; None: there are none
    """

    rows: Tensor
    backbone: str
    head: Tensor | None = None
    adapters: Tensor | None = None

    @classmethod
    def initial(cls, spec: BackboneSpec, backbone: str) -> Self:
        """What a batch norm starts from: identity, zero mean, unit variance."""
        rows = torch.tensor([1.0, 0.0, 0.0, 1.0]).repeat(spec.channels, 1).T.contiguous()
        return cls(rows, backbone)

    @property
    def sha256(self) -> str:
        """Content hash; the same tensors on another backbone are another state."""
        return hash_tensors(self._named(), context=self.backbone)

    def affine(self, eps: float) -> Tensor:
        """2 C float32, what a channel is multiplied by and what is then added.

        Computed in float64, so that the rounding is the last step.
        """
        gamma, beta, mean, var = self.rows.double()
        scale = gamma / torch.sqrt(var + eps)
        return torch.stack([scale, beta - mean * scale]).float()

    def check(self, spec: BackboneSpec, backbone: str) -> None:
        """Refuse what must not be served.

        Raises
        ------
        BrokenStateError
            Another backbone, another shape, a value that is not finite, or a
            negative variance.
        """
        if self.backbone != backbone:
            raise BrokenStateError("the state belongs to another backbone")
        if self.rows.shape != (4, spec.channels) or self.rows.dtype != torch.float32:
            raise BrokenStateError("the state does not have the backbone's shape")
        if self.head is not None and (
            self.head.shape != spec.head_shape or self.head.dtype != torch.float32
        ):
            raise BrokenStateError("the state's head does not have the backbone's shape")
        if self.adapters is not None and (
            self.adapters.shape != (spec.adapter_size,) or self.adapters.dtype != torch.bfloat16
        ):
            raise BrokenStateError("the state's adapters do not have the backbone's shape")
        finite = all(bool(torch.isfinite(tensor).all()) for tensor in self._named().values())
        if not finite or (self.rows[3] < 0).any():
            raise BrokenStateError("the state holds impossible values")

    def to_bytes(self) -> bytes:
        """safetensors, the same bytes for the same state."""
        return save(self._named(), {"backbone": self.backbone})

    @classmethod
    def from_bytes(cls, data: bytes, *, backbone: str, sha256: str | None = None) -> Self:
        """Read a state back.

        Parameters
        ----------
        data : safetensors
        backbone : sha256 that the state is expected to belong to
        sha256 : expected content hash; None: not compared

        Raises
        ------
        BrokenStateError
            Unreadable bytes, missing rows, or another content hash.
        """
        try:
            tensors = load(data)
            rows = torch.stack([tensors[row] for row in ROWS])
        except (SafetensorError, KeyError, RuntimeError, ValueError, TypeError) as error:
            raise BrokenStateError("the state cannot be read") from error
        state = cls(rows, backbone, tensors.get("head"), tensors.get("adapters"))
        if sha256 is not None and state.sha256 != sha256:
            raise BrokenStateError("the state's content hash does not match")
        return state

    def _named(self) -> dict[str, Tensor]:
        named = {name: row.contiguous() for name, row in zip(ROWS, self.rows, strict=True)}
        optional_tensors = {"head": self.head, "adapters": self.adapters}
        return named | {
            name: t.contiguous() for name, t in optional_tensors.items() if t is not None
        }
