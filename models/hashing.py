"""One content hash for anything made of tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor


def hash_tensors(tensors: Mapping[str, Tensor], *, context: str = "") -> str:
    """sha256 of names, dtypes, shapes and little-endian bytes, in name order.

    Parameters
    ----------
    tensors : any shapes and devices
    context : what else the content depends on, such as a backbone's hash
    """
    digest = hashlib.sha256(context.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu()
        digest.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        flat = tensor.contiguous().flatten().clone()  # a clone has plain strides
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
