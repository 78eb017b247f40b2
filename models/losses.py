"""What training minimises, also where cases are labelled in part."""

from __future__ import annotations

import torch
from torch import Tensor


def dice_cross_entropy(
    logits: Tensor, classes: Tensor, annotated: Tensor, *, cross_entropy: float = 0.5
) -> Tensor:
    """Soft Dice of the present classes plus weighted cross-entropy.

    A class that a case does not annotate may be anything in its reference, so
    its probability is counted together with the background's. Cross-entropy
    keeps small classes alive that Dice alone lets die.

    Parameters
    ----------
    logits : N K H W; class 0 is the background
    classes : N H W int64, below K
    annotated : N K bool; column 0 is not looked at
    cross_entropy : weight of the cross-entropy

    Returns
    -------
    scalar, at least 0

    Notes
    -----
    Milletari et al., 3DV 2016, for soft Dice. Absent classes are left out of
    the mean: they give no gradient and would only add a constant.
    """
    log_probs = torch.log_softmax(logits.float(), 1)
    picked, classes = merge_unannotated(log_probs, classes, annotated)
    dice = soft_dice(log_probs.exp(), picked.exp(), classes, annotated)
    return (1 - dice) - cross_entropy * picked.mean()


def merge_unannotated(
    log_probs: Tensor, classes: Tensor, annotated: Tensor
) -> tuple[Tensor, Tensor]:
    """Count the probability of unannotated classes as background.

    Parameters
    ----------
    log_probs : N K H W

    Returns
    -------
    picked : N H W, the log-probability of what is to be answered
    classes : N H W int64, unannotated ones set to 0
    """
    named = annotated.clone()
    named[:, 0] = False
    is_named = named.gather(1, classes.flatten(1)).view_as(classes)
    classes = torch.where(is_named, classes, 0)
    loose = (~named).any(0).nonzero()[:, 0]  # few: the others need not be summed
    rest = log_probs[:, loose].masked_fill(named[:, loose, None, None], float("-inf"))
    picked = log_probs.gather(1, classes[:, None])[:, 0]
    return torch.where(classes > 0, picked, rest.logsumexp(1)), classes


def soft_dice(probs: Tensor, picked: Tensor, classes: Tensor, annotated: Tensor) -> Tensor:
    """Mean soft Dice over the foreground classes present in the batch.

    Sums run over the whole batch; a slice counts for the classes it annotates.

    Parameters
    ----------
    probs : N K H W
    picked : N H W, the probability of each pixel's class
    classes : N H W int64, annotated ones and 0

    Returns
    -------
    scalar in [0, 1]; 1 when the batch holds no foreground
    """
    count = probs.shape[1]
    where = classes.flatten()
    predicted_sizes = (probs.sum((2, 3)) * annotated).sum(0)
    labelled_sizes = torch.bincount(where, minlength=count)
    overlap = probs.new_zeros(count).index_add(0, where, picked.flatten())
    present = labelled_sizes > 0
    present[0] = False
    if not present.any():
        return probs.new_ones(())
    return (2 * overlap[present] / (predicted_sizes + labelled_sizes)[present]).mean()
