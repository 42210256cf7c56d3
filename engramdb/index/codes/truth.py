"""Nearest neighbours by exact products: what the recall of codes is measured against."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_SCORES_AT_ONCE: Final = 2**17
_WAITING_MAX: Final = 2**17  # candidates between two times that only the best are kept


def nearest_rows(
    rows: int,
    take: Callable[[Rows], Floats32],
    queries: Floats32,
    count: int,
    pause: Callable[[], None],
) -> tuple[Rows, Floats32]:
    """The `count` rows nearest to each of (q, d) queries, best first, and their cosines: (q, count)
    each. `take` gives unit vectors by their numbers; `pause` is called between products."""
    asked = len(queries)
    best = _Best(asked, count)
    step = max(16, _SCORES_AT_ONCE // asked)
    for start in range(0, rows, step):
        block = take(np.arange(start, min(start + step, rows)))
        best.offer(start, queries @ block.T)
        pause()
    return best.found()


class _Best:
    def __init__(self, asked: int, count: int) -> None:
        self._count = count
        self._least = np.full(asked, -np.inf, np.float32)
        self._query: Rows = np.empty(0, np.int64)
        self._row: Rows = np.empty(0, np.int64)
        self._score: Floats32 = np.empty(0, np.float32)
        self._waiting: list[tuple[Rows, Rows, Floats32]] = []
        self._size = 0

    def offer(self, start: int, scores: Floats32) -> None:
        """(q, m) scores of the rows from `start` on."""
        query, column = (scores > self._least[:, None]).nonzero()
        self._waiting.append((query, column + start, scores[query, column]))
        self._size += len(query)
        if self._size > _WAITING_MAX:
            self._settle()

    def _settle(self) -> None:
        query = np.concatenate([self._query, *(each[0] for each in self._waiting)])
        row = np.concatenate([self._row, *(each[1] for each in self._waiting)])
        score = np.concatenate([self._score, *(each[2] for each in self._waiting)])
        order = np.lexsort((row, -score, query))
        query, row, score = query[order], row[order], score[order]
        sizes = np.bincount(query, minlength=len(self._least))
        ends = np.cumsum(sizes)
        place = np.arange(len(query)) - np.repeat(ends - sizes, sizes)
        keep = place < self._count
        self._query, self._row, self._score = query[keep], row[keep], score[keep]
        full = np.flatnonzero(sizes >= self._count)
        self._least[full] = score[(ends - sizes)[full] + self._count - 1]
        self._waiting, self._size = [], 0

    def found(self) -> tuple[Rows, Floats32]:
        self._settle()
        shape = (len(self._least), self._count)
        return self._row.reshape(shape), self._score.reshape(shape)
