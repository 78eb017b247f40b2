"""From one list of classes to a finer one, without starting anew."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from models.backbone import Backbone, freeze
from models.network import UNet
from models.spec import BackboneSpec
from models.state import State
from normbank.anatomy import class_of
from training.families import FAMILIES, Family

LIKENESS = {"pd": "t2w", "flair": "t2w"}
"""The contrast whose state a new one starts from."""


def with_classes(backbone: Backbone, spec: BackboneSpec) -> Backbone:
    """The same filters under a head for other classes.

    A class that is part of an old one starts as a copy of it; the parts of one
    class share its probability evenly, so that their sum is what it was.

    Parameters
    ----------
    spec : its channels are those of `backbone`; every class is one of the old
        ones or belongs to one that is a group
    """
    old = backbone.network.state_dict()
    sources = [class_of(name, backbone.spec.classes) for name in spec.classes]
    network = UNet(spec)
    tensors = {name: tensor.clone() for name, tensor in old.items()}
    tensors["head.weight"] = old["head.weight"][sources]
    parts = torch.tensor([float(sources.count(source)) for source in sources])
    tensors["head.bias"] = old["head.bias"][sources] - torch.log(parts)
    network.load_state_dict(tensors)
    return freeze(network)


def starting_states(
    backbone: Backbone,
    states: Mapping[str, State],
    families: Mapping[str, Family] = FAMILIES,
) -> dict[str, State]:
    """A state for every family: its own, or a copy of the one that is most alike."""
    new_states = {}
    for name, family in families.items():
        alike = LIKENESS.get(family.contrast, family.contrast)
        donor = next(n for n in (name, *states) if n in states and (n == name or alike in n))
        new_states[name] = State(states[donor].rows.clone(), backbone.sha256)
    return new_states
