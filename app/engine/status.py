"""Where and how the networks run, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """The device and what computes on it.

    Attributes
    ----------
    precision : of the convolutions
    backend : what computes, with its version
    ms_per_slice : what the warm-up has measured, by library and precision
    backends_refused : why, by name
    batch_slices : slices per forward pass
    threads : of the CPU
    domains_in_bank : in the banks of all backbones
    bytes_per_domain : on the device, without adapters
    torch : its version
    """

    device: str
    precision: str
    backend: str
    ms_per_slice: Mapping[str, float]
    backends_refused: Mapping[str, str]
    batch_slices: int
    threads: int
    domains_in_bank: int
    bytes_per_domain: int
    torch: str

    def in_words(self) -> str:
        """What computes, how fast it was, and what could not."""
        speeds = [f"{name} {ms} ms a slice" for name, ms in self.ms_per_slice.items()]
        refused = [f"{name}: {why}" for name, why in self.backends_refused.items()]
        return "; ".join([f"{self.backend}, {self.precision}", *speeds, *refused])


@dataclass(frozen=True, slots=True)
class OlderBackbone:
    """A backbone of an earlier release that is loaded.

    Attributes
    ----------
    domains_in_bank : states of its own on the device
    """

    sha256: str
    name: str
    domains_in_bank: int
