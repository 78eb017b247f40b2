"""A domain as one small file that can travel: its tensors and its facts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, deserialize
from safetensors.torch import load, save

from models.backbone import Backbone
from models.state import BrokenStateError, State


@dataclass(frozen=True)
class Pack:
    """A pack as read.

    Attributes
    ----------
    sha256 : content hash of the state, recomputed from the tensors
    backbone : sha256 of the backbone it belongs to
    facts : what else the writer said, such as `domain` and `version`
    tensors : the state's own safetensors bytes
    """

    sha256: str
    backbone: str
    facts: Mapping[str, str]
    tensors: bytes


def write_pack(tensors: bytes, facts: Mapping[str, str], *, sha256: str | None = None) -> bytes:
    """A state's bytes with facts as metadata.

    Parameters
    ----------
    tensors : from `State.to_bytes`
    facts : must name the `backbone`; `domain`, `version`, `classes` are usual
    sha256 : content hash the state must have; None: not compared

    Raises
    ------
    models.state.BrokenStateError
        If the bytes are no state, or another one.
    """
    state = State.from_bytes(tensors, backbone=facts["backbone"], sha256=sha256)
    return save(load(tensors), {**facts, "sha256": state.sha256})


def read_pack(data: bytes) -> Pack:
    """Read a pack and check its tensors against the hash it names.

    Raises
    ------
    models.state.BrokenStateError
        Not a pack, no backbone named, or tensors changed on the way.
    """
    facts = _metadata(data)
    if "backbone" not in facts or "sha256" not in facts:
        raise BrokenStateError("the file is no domain pack")
    state = State.from_bytes(data, backbone=facts["backbone"], sha256=facts["sha256"])
    return Pack(state.sha256, state.backbone, facts, state.to_bytes())


def read_states(folder: Path, backbone: Backbone) -> dict[str, State]:
    """The states that come with a backbone, by domain id.

    Parameters
    ----------
    folder : holds `states/*.safetensors`

    Raises
    ------
    models.state.BrokenStateError
    """
    states = {}
    for path in sorted((folder / "states").glob("*.safetensors")):
        pack = read_pack(path.read_bytes())
        state = State.from_bytes(pack.tensors, backbone=pack.backbone)
        state.check(backbone.spec, backbone.sha256)
        states[path.stem] = state
    return states


def _metadata(data: bytes) -> dict[str, str]:
    try:
        deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise BrokenStateError("the file is no safetensors file") from error
    length = int.from_bytes(data[:8], "little")
    return dict(json.loads(data[8 : 8 + length]).get("__metadata__", {}))
