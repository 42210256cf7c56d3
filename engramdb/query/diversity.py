"""Maximal marginal relevance: an answer whose memories do not say the same thing over and over.

(Carbonell and Goldstein, "The use of MMR, diversity-based reranking for reordering documents and
producing summaries", SIGIR 1998.)
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

POOL_FACTOR: Final = 5  # candidates for each memory that is wanted, unless the caller says
POOL_MIN: Final = 50

Floats = npt.NDArray[np.float64]


class Diversity(NamedTuple):
    """`relevance` from 0 (only different from each other) to 1 (only relevant); how many of the
    best `candidates` to choose from, None: POOL_FACTOR times the limit, POOL_MIN at least."""

    relevance: float
    candidates: int | None

    def pool(self, count: int) -> int:
        """From how many to choose so many."""
        if self.candidates is None:
            return max(POOL_MIN, POOL_FACTOR * count)
        return max(self.candidates, count)


def diversify(
    scores: Floats, vectors: npt.NDArray[np.float32], relevance: float, count: int
) -> list[int]:
    """The places of those to take, first one first: always the one with the largest

        relevance * score - (1 - relevance) * largest cosine with one that was taken already

    scores (n,), best first; vectors (n, dimension) in the same order. Equals keep their order.
    """
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    wide /= np.where(norms > 0, norms, 1.0)
    closest = np.full(len(scores), -np.inf)  # cosine with the closest that was taken
    taken: list[int] = []
    open_ = np.ones(len(scores), np.bool_)
    while len(taken) < min(count, len(scores)):
        penalty = (1.0 - relevance) * closest if taken else 0.0
        gains = np.where(open_, relevance * scores - penalty, -np.inf)
        place = int(np.argmax(gains))  # the first of equals
        if not open_[place]:  # all that is left has a score of minus infinity
            place = int(np.argmax(open_))
        taken.append(place)
        open_[place] = False
        np.maximum(closest, wide @ wide[place], out=closest)
    return taken
