"""Search with codes: they choose the rows, and what they choose is scored as in an exact search.

A run without codes, or with codes that would be no faster, is scanned. What other runs have reached
is a bound for the next one. Every score is exact; that a neighbour may not be chosen is what the
recall speaks of, for which the codes were calibrated.

Codes are of cosines. For the other metrics they serve as long as all vectors are equally long, as
embeddings mostly are: then the same rows are nearest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import numpy as np

from engramdb.index import exact
from engramdb.index.codes.clusters import NO_BOUND
from engramdb.index.codes.file_codes import FileCodes
from engramdb.index.direction import Direction, Floats32, direction_of
from engramdb.index.metric import COSINE, Metric
from engramdb.index.top import Hit, Part, Rows, Top
from engramdb.lsm import VectorRun

Codes = Mapping[int, FileCodes]
"""By the number of the vector file."""

_BATCH_CELLS: Final = 2**19  # float32 numbers gathered at a time for several queries: 2 MB
_BATCH_CELL_NS: Final = 0.03  # of a product of many queries at once


def search(
    runs: Sequence[VectorRun],
    seq: int,
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
    codes: Codes,
) -> list[Hit]:
    """What exact.search() finds, as far as the recall of the codes goes."""
    limit = min(limit, sum([run.rows for run in runs]))
    if limit <= 0:
        return []
    top = Top(limit, threshold, direction_of(query, metric))
    for run in _scanned_first(runs, codes):
        if run.rows:
            _offer(top, run, seq, codes.get(run.file))
    return top.hits()


def search_many(
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
    codes: Codes,
) -> list[list[Hit]]:
    """What exact.search_many() finds, likewise."""
    limit = min(limit, sum([run.rows for run in runs]))
    if limit <= 0:
        return [[] for _ in queries]
    tops = [Top(limit, threshold, direction_of(query, metric)) for query in queries]
    coded = [run for run in runs if _is_quicker(run, codes.get(run.file), limit, len(queries))]
    exact.offer_all([run for run in runs if run not in coded], seq, tops)
    for run in coded:
        _offer_many(tops, run, seq, codes[run.file])
    return [top.hits() for top in tops]


def search_among(
    parts: Sequence[Part],
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
    codes: Codes,
) -> list[Hit]:
    """What exact.search_among() finds, likewise."""
    limit = min(limit, sum([rows.size for _, rows in parts]))
    if limit <= 0:
        return []
    direction = direction_of(query, metric)
    top = Top(limit, threshold, direction)
    for run, rows in sorted(parts, key=lambda part: part[0].file in codes):
        if not rows.size:
            continue
        found = _usable(codes.get(run.file), direction)
        chosen = None
        if found is not None:
            known, floor = _bounds(top)
            chosen = found.among(direction.narrow, limit, rows, known=known, floor=floor)
        if chosen is None:
            chosen = rows
        if chosen.size:
            top.offer(run, chosen, exact.scores_of(run, chosen, direction))
    return top.hits()


def _scanned_first(runs: Sequence[VectorRun], codes: Codes) -> Iterable[VectorRun]:
    return sorted(runs, key=lambda run: run.file in codes) if len(runs) > 1 else runs


def _offer(top: Top, run: VectorRun, seq: int, codes: FileCodes | None) -> None:
    direction, rows = top.direction, None
    found = _usable(codes, direction)
    if found is not None:
        visible = None
        if not run.is_all_visible(seq):

            def visible(rows: Rows) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
                return run.are_visible(rows, seq)

        known, floor = _bounds(top)
        rows = found.candidates(
            direction.narrow, top.limit, known=known, floor=floor, visible=visible
        )
    if rows is None:
        top.offer(run, 0, exact.scores(run, seq, direction))
    elif rows.size:
        top.offer(run, rows, exact.scores_of(run, rows, direction))


def _offer_many(tops: Sequence[Top], run: VectorRun, seq: int, codes: FileCodes) -> None:
    """The same for several queries: in one go, where the codes can do that."""
    able = [top for top in tops if _usable(codes, top.direction) is not None]
    found = None
    if len(able) == len(tops) and run.is_all_visible(seq) and not run.extreme_rows.size:
        directions = np.stack([top.direction.narrow for top in tops])
        found = codes.candidates_many(directions, tops[0].limit)
    if found is None:
        for top in tops:
            _offer(top, run, seq, codes)
        return
    step = max(1, _BATCH_CELLS // (found.shape[1] * run.dimension))
    for start in range(0, len(tops), step):
        rows, some = found[start : start + step], tops[start : start + step]
        missing = rows < 0
        vectors = run.take(np.maximum(rows, 0).ravel()).reshape(*rows.shape, run.dimension)
        products = np.vecdot(vectors, directions[start : start + step, None])
        for top, mine, gone, these in zip(some, rows, missing, products, strict=True):
            scores = exact.scores_from(run, mine, these, top.direction)
            scores[gone] = -np.inf
            top.offer(run, mine, scores)


def _usable(codes: FileCodes | None, direction: Direction) -> FileCodes | None:
    """The codes, if they tell which rows are near this query."""
    if codes is None or (direction.metric != COSINE and not codes.serve_all(direction.norm)):
        return None
    return codes if direction.narrow.any() else None  # with a zero vector all are alike


def _bounds(top: Top) -> tuple[float, float]:
    """The cosine that so many other rows reach, and that below which nobody is interested."""
    if top.direction.metric != COSINE:
        return NO_BOUND, NO_BOUND
    reached = top.reached()
    return (NO_BOUND if reached is None else reached), top.bound


def _is_quicker(run: VectorRun, codes: FileCodes | None, limit: int, queries: int) -> bool:
    """Whether so many searches by codes take less than one product for all of them."""
    plan = None if codes is None else codes.plan(limit)
    if plan is None:
        return False
    product_s = 1e-9 * _BATCH_CELL_NS * run.rows * run.dimension
    return plan.seconds < product_s or queries < 2
