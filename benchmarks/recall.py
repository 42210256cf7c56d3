"""How much of an answer is right, as numpy sees it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from benchmarks.corpus import Matrix

TIE: Final = 1e-6  # two cosines closer than this are the same
SPARE: Final = 5  # rows beyond the limit that rounding might have put behind it


def recall(
    matrix: Matrix, queries: Matrix, ids: Sequence[str], found: Iterable[list[str]], limit: int
) -> float:
    """The share of answers that are at least as near as the last of the nearest rows is.

    `ids` names the rows of the matrix. All of them are to be found if there are `limit` or fewer;
    what is not among them is wrong.
    With no row at all there is nothing to miss, and the share is 1.
    """
    if not len(matrix):
        return 1.0
    row_of = {row_id: row for row, row_id in enumerate(ids)}
    wanted = min(limit, len(matrix))
    right = 0
    for query, last, hits in zip(queries, _last(matrix, queries, wanted), found, strict=True):
        rows = [row_of[row_id] for row_id in set(hits) if row_id in row_of]
        right += int((_cosines(matrix, rows, query) >= last - TIE).sum())
    return right / (wanted * len(queries))


def _last(matrix: Matrix, queries: Matrix, wanted: int) -> list[float]:
    """For each query the cosine of the last of its nearest rows."""
    scores = queries @ matrix.T
    count = min(wanted + SPARE, len(matrix))
    candidates = np.argpartition(scores, -count, axis=1)[:, -count:]
    return [
        float(np.sort(_cosines(matrix, rows.tolist(), query))[-wanted])
        for rows, query in zip(candidates, queries, strict=True)
    ]


def _cosines(matrix: Matrix, rows: list[int], query: Matrix) -> npt.NDArray[np.float64]:
    """In double precision; all vectors have unit length."""
    cosines: npt.NDArray[np.float64] = matrix[rows].astype(np.float64) @ query.astype(np.float64)
    return cosines
