"""Slices in, classes out: the only place where the bank meets the device."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.backbone import Backbone
from models.backends import (
    EAGER,
    INDUCTOR,
    Backend,
    BackendError,
    CompileTarget,
    computes_bfloat16,
    for_domain,
    precision_name,
)
from models.bank import Bank
from models.decoder import SliceDecoder
from models.graphs import OwnTensors
from models.selection import Selection, choose

log = logging.getLogger(__name__)

ADAPTED_KEPT = 64
"""Domains with adapters whose own networks stay on the device, about 22 MB each."""


PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is the first CUDA device, else the CPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the device computes it natively, else float32.

    For what is not measured: learning, and studies. Serving measures.
    """
    if name != "auto":
        return {precision: PRECISIONS[precision] for precision in ("float32", "bfloat16")}[name]
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = computes_bfloat16()
    return torch.bfloat16 if fast else torch.float32


class Predictor:
    """A backbone with its bank on one device.

    Every forward pass over slices of one size has the same shape: a short
    batch is filled up. What a slice is answered can therefore not depend on
    the slices beside it, and a domain's output is the same bits whoever shares
    the batch. One thread at a time may ask it: the memory of a batch and of
    its scores is kept.

    Where a batch does not fit the device's memory, it is halved for good, and
    what was asked is answered in several passes. Another shape may round
    otherwise, as another backend may.

    Parameters
    ----------
    backbone : shared weights; copied to the device, never changed
    device : cpu, cuda or cuda:N
    precision : of the convolutions; None: the fastest here, measured
    batch_slices : slices per forward pass; 0: 4 on the CPU, 32 on a GPU
    backend : what computes, one of `models.backends.NAMES`; `auto`: the fastest here

    Raises
    ------
    models.backends.BackendError
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: torch.device,
        precision: torch.dtype | None = torch.float32,
        batch_slices: int = 0,
        backend: str = EAGER,
    ) -> None:
        if backbone.spec.inputs != 1:
            raise BackendError("networks that see several slices at once are not served yet")
        self.spec = backbone.spec
        self.device = device
        self.batch_slices = batch_slices or (32 if device.type == "cuda" else 4)
        self.bank = Bank(backbone, device)
        self._backbone = backbone
        self._adapted: OrderedDict[int, Backend] = OrderedDict()
        self._building = Lock()
        self._build(backend, precision)

    def _build(self, backend: str, precision: torch.dtype | None) -> None:
        """What depends on the number of slices in a forward pass."""
        shape = (self.batch_slices, 1, *self.spec.slice_shape)
        target = CompileTarget(self.device, precision or torch.float32, shape)
        self.selection: Selection = choose(self._backbone, target, backend, precision)
        self._target = replace(target, precision=self.selection.precision)
        self._batches: dict[tuple[int, ...], NDArray[np.float32]] = {}

    @property
    def precision(self) -> torch.dtype:
        """Of the convolutions."""
        return self.selection.precision

    @property
    def backend(self) -> str:
        """What computes, with its version: scores of others differ in their last bits."""
        chosen = self.selection.backend
        return f"{chosen.name} ({chosen.version}, {precision_name(self.precision)})"

    def logits(self, slices: NDArray[np.float32], domains: NDArray[np.int64]) -> Tensor:
        """Class scores of at most one batch.

        Parameters
        ----------
        slices : N H W, intensities by percentile, N <= batch_slices; H and W
            divisible by 8, at most those of the backbone's slices
        domains : N, positions in the bank; see `shares_batches`

        Returns
        -------
        N K H W, on the device; the next call may write over it
        """
        if not self.may_share(domains):
            raise ValueError("a domain that stands alone shares no batch with others")
        while True:
            try:
                return self._logits(slices, domains)
            except torch.OutOfMemoryError:
                if self.batch_slices == 1:
                    raise
            self._halve()  # outside, where the failed pass's tensors are gone

    def _logits(self, slices: NDArray[np.float32], domains: NDArray[np.int64]) -> Tensor:
        """In one pass; in several where the batch has been halved since it was filled."""
        step = self.batch_slices
        if len(slices) <= step:
            return self._pass(slices, domains)
        starts = range(0, len(slices), step)
        return torch.cat(
            [
                self._pass(slices[start : start + step], domains[start : start + step]).clone()
                for start in starts
            ]
        )

    def _halve(self) -> None:
        """Build everything anew for batches of half the size, or less if these do not fit."""
        selection = self.selection
        while True:
            self.batch_slices //= 2
            log.warning("out of device memory", extra={"batch_slices": self.batch_slices})
            self._adapted.clear()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            try:
                return self._build(selection.backend.name, selection.precision)
            except BackendError as error:
                short = isinstance(error.__cause__, torch.OutOfMemoryError)
                if not short or self.batch_slices == 1:
                    raise

    def _pass(self, slices: NDArray[np.float32], domains: NDArray[np.int64]) -> Tensor:
        """One forward pass of at most `batch_slices` slices."""
        first = int(domains[0]) if len(domains) else 0
        count, height, width = slices.shape
        batch = self._batch(height, width)
        if batch[0, 0].size > height * width:
            batch[:] = 0
        batch[:count, 0, :height, :width] = slices
        batch[count:] = 0
        where = torch.full((self.batch_slices,), first)
        where[:count] = torch.from_numpy(domains)
        parameters = self.bank.gather(where)
        scores = self._backend_of(first).run(torch.from_numpy(batch), *parameters)
        return scores[:count, :, :height, :width]

    def _batch(self, height: int, width: int) -> NDArray[np.float32]:
        """Memory of a batch, N 1 H W: fresh one would cost more than the copy.

        What is compiled for one size of slices alone gets smaller ones with 0
        behind them.
        """
        if self.selection.backend.name == INDUCTOR:
            height, width = self.spec.slice_shape
        shape = (self.batch_slices, 1, height, width)
        if shape not in self._batches:
            self._batches[shape] = np.zeros(shape, np.float32)
        return self._batches[shape]

    def may_share(self, domains: NDArray[np.int64]) -> bool:
        """Whether slices of these domains may form one batch."""
        several = set(domains.tolist())
        return len(several) < 2 or all(self.shares_batches(domain) for domain in several)

    def shares_batches(self, domain: int) -> bool:
        """Whether a domain's slices may stand beside others': not where it has adapters."""
        return self.bank.adapted(domain) is None

    def prepare(self, domain: int) -> None:
        """Build now what the first batch of a domain with adapters would wait for."""
        self._backend_of(domain)

    def _backend_of(self, domain: int) -> Backend:
        """What computes a domain; those with adapters that answered last are kept."""
        state = self.bank.adapted(domain)
        if state is None:
            return self.selection.backend
        assert state.adapters is not None
        with self._building:
            if domain not in self._adapted:
                table, heads = self.bank.gather(torch.tensor([domain]))
                tensors = OwnTensors(table[0].cpu().numpy(), heads[0].cpu().numpy())
                self._adapted[domain] = for_domain(
                    self.selection.backend, self._backbone, self._target, state.adapters, tensors
                )
            self._adapted.move_to_end(domain)
            while len(self._adapted) > ADAPTED_KEPT:
                self._adapted.popitem(last=False)
            return self._adapted[domain]

    def classes(
        self,
        slices: NDArray[np.float32],
        domains: NDArray[np.int64],
        digest: Any = None,
        *,
        consecutive: bool = False,
        on_slices: Callable[[int], None] = lambda _count: None,
    ) -> NDArray[np.uint8]:
        """The class with the highest score of every pixel.

        Parameters
        ----------
        slices : N H W, any N
        domains : N, positions in the bank
        digest : a hash that takes the logits' bytes, slice by slice
        consecutive : the slices follow one another; see `SliceDecoder`
        on_slices : hears before every batch how many slices it holds; may raise

        Returns
        -------
        N H W uint8
        """
        decoder = SliceDecoder.of(self.spec, slices, consecutive=consecutive)
        shown = decoder.inputs
        step = self.batch_slices
        for start in range(0, len(shown), step):
            span = slice(start, start + step)
            on_slices(len(shown[span]))
            logits = self.logits(shown[span], domains[span])
            if digest is not None:
                digest.update(logits_bytes(logits))
            decoder.add(logits)
        return decoder.classes


def logits_bytes(logits: Tensor) -> bytes:
    """What a certificate hashes: scores as float32, in order; equal only when every bit is."""
    return logits.float().cpu().contiguous().numpy().tobytes()
