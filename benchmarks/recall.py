"""How much of an answer is right, as numpy sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import Matrix

TIE: Final = 1e-6  # two cosines closer than this are the same
SPARE: Final = 5  # rows beyond the limit that rounding might have put behind it
QUERIES_AT_ONCE: Final = 32  # a million scores each


class Truth:
    """The nearest rows of some queries, found once, to judge any number of answers."""

    def __init__(self, matrix: Matrix, queries: Matrix, limit: int) -> None:
        self._matrix = matrix
        self._queries = queries
        self._wanted = min(limit, len(matrix))
        self._last = _last(matrix, queries, self._wanted) if len(matrix) else []

    def recall(self, ids: Sequence[str], found: Iterable[list[str]]) -> float:
        """See `recall`."""
        if not self._last:
            return 1.0
        row_of = {row_id: row for row, row_id in enumerate(ids)}
        right = 0
        for query, last, hits in zip(self._queries, self._last, found, strict=True):
            rows = [row_of[row_id] for row_id in set(hits) if row_id in row_of]
            right += int((_cosines(self._matrix, rows, query) >= last - TIE).sum())
        return right / (self._wanted * len(self._queries))


def recall(
    matrix: Matrix, queries: Matrix, ids: Sequence[str], found: Iterable[list[str]], limit: int
) -> float:
    """The share of answers that are at least as near as the last of the nearest rows is.

    `ids` names the rows of the matrix. All of them are to be found if there are `limit` or fewer;
    what is not among them is wrong.
    With no row at all there is nothing to miss, and the share is 1.
    """
    return Truth(matrix, queries, limit).recall(ids, found)


def worst_score(
    matrix: Matrix,
    queries: Matrix,
    ids: Sequence[str],
    found: Iterable[Sequence[tuple[str, float]]],
) -> float:
    """The largest difference between a score that was returned and the cosine in double precision,
    0 if nothing was found. What was found must be among `ids`."""
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    worst = 0.0
    for query, hits in zip(queries, found, strict=True):
        rows = [row_of[row_id] for row_id, _ in hits]
        if rows:
            scores = np.array([score for _, score in hits])
            lengths = np.linalg.norm(matrix[rows].astype(np.float64), axis=1)
            lengths *= np.linalg.norm(query.astype(np.float64))
            off = np.abs(scores - _cosines(matrix, rows, query) / lengths)
            worst = max(worst, float(off.max()))
    return worst


def _last(matrix: Matrix, queries: Matrix, wanted: int) -> list[float]:
    """For each query the cosine of the last of its nearest rows."""
    count = min(wanted + SPARE, len(matrix))
    last: list[float] = []
    for start in range(0, len(queries), QUERIES_AT_ONCE):
        block = queries[start : start + QUERIES_AT_ONCE]
        for query, scores in zip(block, block @ matrix.T, strict=True):
            rows = np.argpartition(scores, -count)[-count:].tolist()
            last.append(float(np.sort(_cosines(matrix, rows, query))[-wanted]))
    return last


def _cosines(matrix: Matrix, rows: list[int], query: Matrix) -> npt.NDArray[np.float64]:
    """In double precision; all vectors have unit length."""
    cosines: npt.NDArray[np.float64] = matrix[rows].astype(np.float64) @ query.astype(np.float64)
    return cosines
