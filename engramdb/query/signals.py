"""The signals by which an answer can be ordered, as columns over a selection."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from engramdb.index import exact
from engramdb.index.metric import COSINE, Metric
from engramdb.indexing import memories
from engramdb.indexing.indexer import Indexer
from engramdb.lsm.keys import KeyMatrix, Rows, to_list
from engramdb.lsm.records import DEFAULT_SPACE
from engramdb.model.vectors import Vector
from engramdb.query.order import ACTIVATION, RECENCY, SIMILARITY, Order
from engramdb.query.selection import Selection
from engramdb.query.source import Source
from engramdb.query.values import numbers_of, values_of
from engramdb.query.vectors import Located, locate

Floats = npt.NDArray[np.float64]

Activation = Callable[[KeyMatrix, int, float], Floats]
"""Base-level activation of these keys at a moment in microseconds, with a decay."""


def similar_in(
    selection: Selection,
    source: Source,
    space: str,
    vectors: Vector,
    limit: int | None,
    threshold: float | None,
    metric: Metric,
    indexer: Indexer | None = None,
) -> list[tuple[bytes, float | None]]:
    """The best of a selection by their vectors in a named space; with an indexer, by codes."""
    runs = memories.owned(indexer, source.vector_runs(space), selection.keys(), by_these=True)
    return list(
        memories.search(
            indexer,
            runs,
            source.seq,
            vectors,
            max(1, selection.count) if limit is None else limit,
            -math.inf if threshold is None else threshold,
            metric,
            space,
        )
    )


class Signals:
    """The signals of those of a selection that can be in the answer, one entry a position."""

    def __init__(self, selection: Selection, now_us: int, activation: Activation) -> None:
        self.selection, self._now_us, self._activation = selection, now_us, activation
        self.margin = 0.0
        self.places: list[Located] = []
        self._vector: Vector | None = None
        self._cosines = np.empty(0, np.float32)
        self._exactly: Floats | None = None

    def compare(
        self, vector: Vector, threshold: float | None, source: Source, space: str, metric: Metric
    ) -> None:
        """Keep only those whose vector in the space is as similar as that."""
        if space != DEFAULT_SPACE:
            self._compare_in(space, vector, threshold, source, metric)
            return
        self._vector, runs = vector, source.vector_runs()
        places = locate(self.selection.vectors(), runs)
        parts = [(place.run, place.rows) for place in places]
        scores: Floats | npt.NDArray[np.float32]
        if metric == COSINE:
            scores, self.margin = exact.scores_among(parts, vector)
        else:  # each has a margin of its own, of no use in a sum: exact at once
            scores = exact.exact_among(parts, vector, metric)
        keep, similar = np.zeros(self.selection.count, np.bool_), np.zeros(self.selection.count)
        start = 0
        for place in places:
            stop = start + len(place.rows)
            similar[place.positions] = scores[start:stop]
            keep[place.positions] = True
            start = stop
        if threshold is not None:
            if metric == COSINE:
                near = np.flatnonzero(keep & (np.abs(similar - threshold) <= self.margin))
                similar[near] = self._exact(places, near)
            keep &= similar >= threshold
        after = np.cumsum(keep) - 1
        self.selection = self.selection.at(keep)
        if metric == COSINE:
            self._cosines = similar[keep].astype(np.float32)
        else:
            self._exactly = similar[keep]
        self.places = [
            Located(run, rows[keep[positions]], after[positions[keep[positions]]])
            for run, rows, positions in places
        ]

    def _compare_in(
        self, space: str, vectors: Vector, threshold: float | None, source: Source, metric: Metric
    ) -> None:
        """In a named space the scores are exact at once."""
        found = dict(similar_in(self.selection, source, space, vectors, None, threshold, metric))
        scores = [found.get(key, np.nan) for key in to_list(self.selection.keys())]
        exactly = np.array(scores, np.float64)
        keep = ~np.isnan(exactly)
        self.selection, self._exactly = self.selection.at(keep), exactly[keep]

    def _exact(self, places: list[Located], positions: Rows) -> Floats:
        vector = self._vector
        assert vector is not None
        chosen = np.zeros(self.selection.count, np.bool_)
        chosen[positions] = True
        made = np.empty(self.selection.count)
        for run, rows, at in places:
            wanted = chosen[at]
            made[at[wanted]] = exact.cosines_among([(run, rows[wanted])], vector)
        return made[positions]

    def exact_scores(self, positions: Rows) -> Floats:
        """As search_similar gives them."""
        if self._exactly is not None:
            return self._exactly[positions]
        return self._exact(self.places, positions)

    @property
    def similarities(self) -> Floats:
        """Of all positions, wrong by `margin` at most."""
        if self._exactly is not None:
            return self._exactly
        return self._cosines.astype(np.float64)

    def of(self, name: str, order: Order) -> Floats:
        """One signal of all positions."""
        if name == SIMILARITY:
            return self.similarities
        if name == RECENCY:
            age_us = np.maximum(self._now_us - self.selection.times().astype(np.float64), 0.0)
            return np.exp2(-age_us / order.half_life_us)
        if name == ACTIVATION:
            return self._activation(self.selection.keys(), self._now_us, order.decay)
        return self.numbers(name)

    def numbers(self, name: str) -> Floats:
        """An attribute of all positions as a number, NaN where it is none."""
        columns = [numbers_of(run, rows, name) for run, rows in self.selection.parts]
        return np.concatenate(columns) if columns else np.empty(0)

    def values(self, name: str, positions: Rows) -> list[Any]:
        """An attribute of some positions, ABSENT where it is not there."""
        keep = np.zeros(self.selection.count, np.bool_)
        keep[positions] = True
        return [
            value
            for run, rows in self.selection.at(keep).parts
            for value in values_of(run, rows, name)
        ]
