"""Hard Dice over whole volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice_scores(
    answer: NDArray[np.integer], reference: NDArray[np.integer], annotated: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Dice of every class.

    Parameters
    ----------
    answer, reference : class numbers, same shape
    annotated : (K,) bool

    Returns
    -------
    (K,) in [0, 1]; NaN for the background, for classes that are not annotated
    and for those empty in both. Exactly one empty scores 0.
    """
    count = len(annotated)
    overlap = np.bincount(reference[answer == reference].ravel(), minlength=count)
    sizes = np.bincount(answer.ravel(), minlength=count)
    sizes = sizes + np.bincount(reference.ravel(), minlength=count)
    scores = np.full(count, np.nan)
    judged = annotated & (sizes > 0)
    judged[0] = False
    scores[judged] = 2 * overlap[judged] / sizes[judged]
    return scores
