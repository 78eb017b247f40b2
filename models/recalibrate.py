"""Other statistics for the same gamma and beta: what scans teach without labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from models.bank import DomainParameters, domain_parameters, scale_shift_relu
from models.cases import LabelledSlices
from models.evaluator import Evaluator
from models.spec import Layer
from models.state import State


@torch.inference_mode()
def recalibrate(
    evaluator: Evaluator, state: State, cases: Sequence[LabelledSlices], *, batch_slices: int = 16
) -> State:
    """The same gamma and beta over the statistics of these scans; needs no labels.

    Each batch runs through whole scans with wide steps, so that it resembles
    the scan and is normalised by its own statistics. Pooled in float64: the
    mean of the variances, plus the variance of the means.

    Notes
    -----
    Li et al., Pattern Recognition 80:109-117, 2018 (AdaBN), with the pooling
    that averaging the batches' variances lacks.
    """
    gamma, beta = state.rows[:2].to(evaluator.device)
    adapters = domain_parameters(state, evaluator.backbone, evaluator.device).adapters
    means: list[Tensor] = []
    variances: list[Tensor] = []

    def normalise(layer: Layer, features: Tensor) -> Tensor:
        channels = slice(layer.start, layer.start + layer.channels)
        var, mean = torch.var_mean(features.float(), (0, 2, 3), correction=0)
        means[-1][channels], variances[-1][channels] = mean, var
        scale = gamma[channels] / torch.sqrt(var + evaluator.spec.eps)
        shift = beta[channels] - mean * scale
        return scale_shift_relu(features, scale[None], shift[None])

    for case in cases:
        busy = torch.from_numpy(case.images[case.images.any((1, 2))])[:, None]
        rounds = max(1, len(busy) // batch_slices)
        for first in range(rounds):
            means.append(torch.zeros(evaluator.spec.channels, dtype=torch.float64))
            variances.append(torch.zeros(evaluator.spec.channels, dtype=torch.float64))
            evaluator.forward(
                busy[first::rounds].float(), DomainParameters(normalise, adapters=adapters)
            )
    pooled = torch.stack(means)
    mean = pooled.mean(0)
    var = torch.stack(variances).mean(0) + pooled.var(0, correction=0)
    rows = torch.stack([*state.rows[:2], mean.float(), var.float()])
    return replace(state, rows=rows)
