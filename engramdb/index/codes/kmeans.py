"""k-means: centres of clusters, and which of them each row belongs to (Lloyd, 1982)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Clusters = npt.NDArray[np.int32]

ROUNDS: Final = 6
_SCORES_AT_ONCE: Final = 2**19  # float32 numbers of one product: 2 MB, and a few milliseconds


def centres_of(
    sample: Floats32, count: int, generator: np.random.Generator, pause: Callable[[], None]
) -> Floats32:
    """`count` centres (count, d) of (n, d) rows, n >= count. `pause` is called between products."""
    chosen = generator.choice(len(sample), count, replace=False)
    centres = sample[np.sort(chosen)]
    for _ in range(ROUNDS):
        cluster = nearest(sample, centres, pause)
        order = np.argsort(cluster, kind="stable")
        sizes = np.bincount(cluster, minlength=count)
        filled = np.flatnonzero(sizes)
        starts = np.cumsum(sizes)[filled] - sizes[filled]
        centres[filled] = np.add.reduceat(sample[order], starts, axis=0) / sizes[filled, None]
        empty = np.flatnonzero(sizes == 0)
        if len(empty):
            centres[empty] = sample[generator.choice(len(sample), len(empty), replace=False)]
        pause()
    return centres


def nearest(rows: Floats32, centres: Floats32, pause: Callable[[], None]) -> Clusters:
    """The number of the centre that is nearest to each of (n, d) rows."""
    found = np.empty(len(rows), np.int32)
    half_squares = np.vecdot(centres, centres) / 2
    step = max(16, _SCORES_AT_ONCE // len(centres))
    for start in range(0, len(rows), step):
        scores = rows[start : start + step] @ centres.T
        scores -= half_squares
        found[start : start + step] = scores.argmax(axis=1)
        pause()
    return found
