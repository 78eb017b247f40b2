"""The shared weights: read, checked, hashed, and never written again."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from models.hashing import hash_tensors
from models.network import UNet, joined_head
from models.quantization import Ranges, activation_ranges
from models.spec import BackboneSpec
from models.state import BrokenStateError, State

SHIPPED = Path(__file__).parent / "weights" / "v1"
SHIPPED_OLDER: tuple[Path, ...] = (SHIPPED.with_name("v0"),)
"""What earlier releases shipped; domains that were adapted on them are served on them."""


class BrokenBackboneError(ValueError):
    """A backbone's file does not hold what its name says."""


@dataclass(frozen=True)
class Backbone:
    """A frozen network and the hash that names it.

    Attributes
    ----------
    network : every parameter has `requires_grad=False`
    sha256 : see `hash_network`
    ranges : of its activations, for int8; None where the states that it was
        trained with are not known
    """

    network: UNet
    sha256: str
    ranges: Ranges | None = None

    @property
    def spec(self) -> BackboneSpec:
        return self.network.spec

    @property
    def head(self) -> Tensor:
        """K F+1 float32: what a domain without a head of its own uses."""
        return joined_head(self.network)


def freeze(network: UNet) -> Backbone:
    """Take a trained network as a backbone."""
    network.requires_grad_(False).eval()
    network.zero_grad(set_to_none=True)
    return Backbone(network, hash_network(network))


def hash_network(network: UNet) -> str:
    """What names a backbone: its tensors and, where slices have a say in others, how far.

    With another reach the same tensors give other labels.
    """
    reach = network.spec.slice_reach
    context = f"slice_reach {reach}" if reach else ""
    return hash_tensors(dict(network.state_dict()), context=context)


def save_backbone(backbone: Backbone, folder: Path) -> Path:
    """Write `backbone.safetensors` with spec and hash as metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "backbone.safetensors"
    tensors = {name: t.contiguous() for name, t in backbone.network.state_dict().items()}
    save_file(tensors, path, {"spec": backbone.spec.to_json(), "sha256": backbone.sha256})
    return path


def read_label(folder: Path) -> tuple[str, BackboneSpec]:
    """What a backbone's file says it is; the tensors stay unread and unchecked.

    Returns
    -------
    sha256, spec

    Raises
    ------
    BrokenBackboneError
        If the file has no such metadata.
    FileNotFoundError
    """
    with safe_open(folder / "backbone.safetensors", framework="pt") as file:
        facts = file.metadata() or {}
    try:
        return facts["sha256"], BackboneSpec.from_json(facts["spec"])
    except (KeyError, TypeError, ValueError) as error:
        raise BrokenBackboneError("the file does not say which backbone it is") from error


def load_backbone(folder: Path = SHIPPED) -> Backbone:
    """Read a backbone and check its hash.

    Parameters
    ----------
    folder : holds `backbone.safetensors` and a folder `states`

    Raises
    ------
    BrokenBackboneError
        If the tensors are not those that the file names.
    FileNotFoundError
    """
    with safe_open(folder / "backbone.safetensors", framework="pt") as file:
        facts = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    with torch.device("meta"):
        network = UNet(BackboneSpec.from_json(facts["spec"]))
    network.load_state_dict(tensors, assign=True)
    backbone = freeze(network)
    if backbone.sha256 != facts["sha256"]:
        raise BrokenBackboneError("the backbone's content hash does not match its metadata")
    return replace(backbone, ranges=_ranges(folder, backbone))


def _ranges(folder: Path, backbone: Backbone) -> Ranges | None:
    """By the states beside a backbone; None where there is none that fits."""
    states = []
    for path in sorted((folder / "states").glob("*.safetensors")):
        try:
            state = State.from_bytes(path.read_bytes(), backbone=backbone.sha256)
            state.check(backbone.spec, backbone.sha256)
        except BrokenStateError:
            continue  # whoever serves that state will say so
        states.append(state)
    return activation_ranges(states, backbone.spec) if states else None
