"""Recall that was measured on a sample of queries, and how far it can be relied upon."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

_ONE_SIDED_95: Final = 1.6448536269514722  # quantile of the normal distribution


@dataclass(frozen=True, slots=True)
class Recall:
    """mean     the share of the true neighbours that was found
    lower    what it is at least, at a confidence of 95%
    queries  how many were measured"""

    mean: float
    lower: float
    queries: int


def measured(found: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> Recall:
    """The recall of queries of which each found so many of the neighbours that were wanted.

    The lower end is Wilson's (1927) for a share, one-sided. The neighbours of one query are not
    found independently of each other: their number counts divided by the design effect, which is
    the variance between queries over that of independent trials (Kish, 1965).
    """
    queries, trials = len(wanted), int(wanted.sum())
    if not trials:
        return Recall(1.0, 0.0, queries)
    mean = int(found.sum()) / trials
    effect = 1.0
    if queries > 1 and 0.0 < mean < 1.0:
        residuals = found - mean * wanted
        between = float(np.dot(residuals, residuals)) * queries / (queries - 1)
        effect = max(1.0, between / (trials * mean * (1.0 - mean)))
    size = trials / effect
    square = _ONE_SIDED_95**2
    spread = _ONE_SIDED_95 * math.sqrt(mean * (1 - mean) / size + square / (4 * size * size))
    lower = (mean + square / (2 * size) - spread) / (1 + square / size)
    return Recall(mean, lower, queries)
