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
    log_probs, classes = merge_unannotated(logits, classes, annotated)
    picked = log_probs.gather(1, classes[:, None])
    dice = soft_dice(log_probs.exp(), classes, annotated)
    return (1 - dice) - cross_entropy * picked.mean()


def merge_unannotated(logits: Tensor, classes: Tensor, annotated: Tensor) -> tuple[Tensor, Tensor]:
    """Count the probability of unannotated classes as background.

    Returns
    -------
    log_probs : N K H W float32; unannotated classes above 0 keep their value
        but are no target any more
    classes : N H W int64, unannotated ones set to 0
    """
    log_probs = torch.log_softmax(logits.float(), 1)
    named = annotated.clone()
    named[:, 0] = False
    mask = named[:, :, None, None]
    rest = log_probs.masked_fill(mask, float("-inf")).logsumexp(1, keepdim=True)
    known = named.gather(1, classes.flatten(1)).view_as(classes)
    return torch.cat([rest, log_probs[:, 1:]], 1), torch.where(known, classes, 0)


def soft_dice(probs: Tensor, classes: Tensor, annotated: Tensor) -> Tensor:
    """Mean soft Dice over the foreground classes present in the batch.

    Sums run over the whole batch; a slice counts for the classes it annotates.

    Returns
    -------
    scalar in [0, 1]; 1 when the batch holds no foreground
    """
    foreground = probs.shape[1] - 1
    targets = torch.nn.functional.one_hot(classes, foreground + 1)[..., 1:]
    counts = annotated[:, 1:, None, None].to(probs.dtype)
    wanted = targets.permute(0, 3, 1, 2) * counts
    given = probs[:, 1:] * counts
    overlap = (given * wanted).sum((0, 2, 3))
    size = given.sum((0, 2, 3)) + wanted.sum((0, 2, 3))
    present = wanted.sum((0, 2, 3)) > 0
    if not present.any():
        return probs.new_ones(())
    return (2 * overlap[present] / size[present]).mean()
