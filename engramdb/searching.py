"""Similarity search and queries, over whatever a source sees."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from engramdb.access.activation import base_level
from engramdb.access.log import AccessLog
from engramdb.errors import InvalidInputError
from engramdb.index import exact as exact_index
from engramdb.index.metric import COSINE, Metric
from engramdb.index.top import Hit as Found
from engramdb.index.top import Part
from engramdb.index.without import without
from engramdb.indexing import memories, nearest
from engramdb.indexing.indexer import Indexer
from engramdb.lsm import VectorRun
from engramdb.lsm.keys import KeyMatrix
from engramdb.lsm.records import DEFAULT_SPACE
from engramdb.model.identifiers import format_key
from engramdb.query.arguments import (
    Where,
    borrow_query,
    check_flag,
    check_least,
    check_limit,
    check_metric,
    check_metric_of_rows,
    check_queries,
    check_query_rows,
    check_where,
    is_named,
)
from engramdb.query.conditions import NOW, Conditions, ValidAt, check_valid_at
from engramdb.query.explanation import Trace
from engramdb.query.moment import Moment, look_back, moment_us
from engramdb.query.selection import not_holding, select
from engramdb.query.source import Source
from engramdb.query.vectors import locate

if TYPE_CHECKING:
    from engramdb.lsm import Snapshot, StorageEngine

Hit = tuple[str, float]
"""An id and its score: a cosine unless another metric was asked for."""


class Searching(ABC):
    """Searches over whatever `_source()` returns: one consistent state for the length of a call."""

    _engine: StorageEngine
    _indexer: Indexer | None = None
    """What has codes of the vector files; None: every search is a scan."""
    _access: AccessLog | None = None
    """When memories were loaded; None if nobody keeps count."""

    @abstractmethod
    def _source(self) -> Source:
        """What these reads see."""

    @abstractmethod
    def _now_us(self) -> int:
        """The moment these reads are made from, in microseconds since the epoch."""

    def _past(self, as_of: Moment) -> Snapshot:
        """What an earlier moment saw."""
        return look_back(self._engine, as_of, self._source().seq)

    @property
    def _dimension(self) -> int | None:
        """The length of all vectors; None as long as there is none."""
        return self._engine.dimension

    @property
    def _widths(self) -> dict[str, int]:
        """The length of the vectors of each space."""
        return self._engine.spaces

    def _width_of(self, space: object) -> int:
        """The length of the vectors of a named space. Raises InvalidInputError."""
        widths = self._widths
        if not isinstance(space, str) or space not in widths:
            names = ", ".join(repr(name) for name in widths if name) or "none"
            raise InvalidInputError("space", f"there is no space {space!r:.80}; there are: {names}")
        return widths[space]

    def _has_unsaved(self) -> bool:
        """Whether it may see what no commit has written yet."""
        return False

    def search_similar(
        self,
        vector: object,
        limit: int = 10,
        threshold: float | None = None,
        *,
        where: Where | None = None,
        as_of: Moment | None = None,
        valid_at: ValidAt = NOW,
        exact: bool = False,
        space: str = DEFAULT_SPACE,
        metric: Metric = COSINE,
    ) -> list[Hit]:
        """The memories most similar to a vector: at most `limit` pairs (id, cosine), best first.

        vector     one row of finite numbers, as long as the database's vectors
        threshold  the least score; None: 0 for cosines, and none for the other metrics
        metric     what the score is, of which more is nearer: "cosine" (from -1 to 1), "dot" (the
                   inner product) or "euclidean" (minus the distance: 0 for the same vector)
        where      an AttributeFilter, or a mapping such as {"importance": {"$gt": 0.7}}: only
                   memories that match; it never makes the answer shorter than it has to be
        as_of      search what was there at that moment (see as_of())
        valid_at   only what holds in the world at that moment: an aware datetime, "now" (the
                   moment that is looked from) or "any"
        exact      scan all vectors. Otherwise those in large files are searched by their codes,
                   which find at least `recall_target` of them; see DatabaseConfig
        space      search among the vectors in this named space. There a matrix of query vectors is
                   taken too; the score is then the mean over its rows of the best cosine with any
                   vector of the memory (MaxSim), and so for memories with several vectors; other
                   metrics take one query vector, and of each memory the vector that is nearest

        Memories without a vector are never found. Raises InvalidInputError naming the argument.
        """
        if space is not DEFAULT_SPACE and is_named(space):
            rows = check_query_rows(vector, self._width_of(space), space)
            return self._search_in(
                space, [rows], limit, threshold, where, as_of, valid_at, exact, metric
            )[0]
        source, now_us = self._seen(as_of)  # first: the dimension may come with the first vector
        query = borrow_query(vector, self._dimension)
        if type(limit) is not int or limit < 1:
            limit = check_limit(limit)
        if metric is not COSINE:
            metric = check_metric(metric)
        if type(threshold) is not float or threshold - threshold != 0.0:  # infinity and NaN
            threshold = check_least(threshold, metric)
        if exact is not False:
            check_flag(exact, "exact")
        if valid_at is not NOW:
            valid_at = check_valid_at(valid_at)
        indexer = None if exact else self._indexer
        if where is None:
            runs = self._runs(source, Conditions(valid_at=valid_at), now_us)
            hits = nearest.search(indexer, runs, source.seq, query, limit, threshold, metric)
        else:
            conditions = Conditions([check_where(where)], valid_at=valid_at)
            parts = self._matching(source, conditions, now_us)
            hits = nearest.search_among(indexer, parts, query, limit, threshold, metric)
        return [(format_key(key), score) for key, score in hits]

    def search_many(
        self,
        vectors: object,
        limit: int = 10,
        threshold: float | None = None,
        *,
        where: Where | None = None,
        as_of: Moment | None = None,
        valid_at: ValidAt = NOW,
        exact: bool = False,
        space: str = DEFAULT_SPACE,
        metric: Metric = COSINE,
    ) -> list[list[Hit]]:
        """What search_similar finds for each row of an (n, dimension) matrix, in one go.

        Raises InvalidInputError naming the argument.
        """
        if space is not DEFAULT_SPACE and is_named(space):
            rows = check_queries(vectors, self._width_of(space), space=space)
            each = [row[None] for row in rows]
            return self._search_in(
                space, each, limit, threshold, where, as_of, valid_at, exact, metric
            )
        source, now_us = self._seen(as_of)
        queries = check_queries(vectors, self._dimension)
        limit, metric = check_limit(limit), check_metric(metric)
        least = check_least(threshold, metric)
        check_flag(exact, "exact")
        valid_at = check_valid_at(valid_at)
        if where is None:
            runs = self._runs(source, Conditions(valid_at=valid_at), now_us)
            indexer = None if exact else self._indexer
            found = nearest.search_many(indexer, runs, source.seq, queries, limit, least, metric)
        else:
            conditions = Conditions([check_where(where)], valid_at=valid_at)
            parts = self._matching(source, conditions, now_us)
            found = exact_index.search_many_among(parts, queries, limit, least, metric)
        return [[(format_key(key), score) for key, score in hits] for hits in found]

    # Below here: nothing for callers

    def _nearest_among(
        self,
        parts: Sequence[Part],
        query: npt.NDArray[np.float32],
        limit: int,
        threshold: float,
        metric: Metric,
        exact: bool,
    ) -> list[Found]:
        """The best of these rows of the default space."""
        indexer = None if exact else self._indexer
        return nearest.search_among(indexer, parts, query, limit, threshold, metric)

    def _seen(self, as_of: Moment | None) -> tuple[Source, int]:
        """What is seen, and the moment that it is seen from."""
        if as_of is None:
            return self._source(), self._now_us()
        past = self._past(as_of)
        return past, moment_us(as_of, past)

    def _runs(self, source: Source, conditions: Conditions, now_us: int) -> list[VectorRun]:
        """The vectors of all memories that hold at the moment."""
        runs = source.vector_runs()
        at_us = conditions.valid_at_us(now_us)
        if at_us is None:
            return runs
        hidden = not_holding(source, at_us)
        return without(runs, hidden.vectors()) if hidden.parts else runs

    def _search_in(
        self,
        space: str,
        asked: Sequence[npt.NDArray[np.float32]],
        limit: object,
        threshold: object,
        where: Where | None,
        as_of: Moment | None,
        valid_at: object,
        exact: object,
        metric: object,
    ) -> list[list[Hit]]:
        """The answers to (q, dimension) query vectors each, in a named space, of one snapshot."""
        most, by = check_limit(limit), check_metric(metric)
        least = check_least(threshold, by)
        check_flag(exact, "exact")
        for each in asked[:1]:  # all have the same number of rows
            check_metric_of_rows(by, len(each))
        conditions = Conditions(valid_at=check_valid_at(valid_at))
        source, now_us = self._seen(as_of)
        runs = source.vector_runs(space)
        indexer = None if exact else self._indexer
        if where is not None:
            conditions.attributes.append(check_where(where))
            keys = select(source, conditions, now_us, Trace()).keys()
            runs = memories.owned(indexer, runs, keys, by_these=True)
        elif (at_us := conditions.valid_at_us(now_us)) is not None:
            hidden = not_holding(source, at_us)
            if hidden.parts:
                runs = memories.owned(indexer, runs, hidden.keys(), by_these=False)
        found = [
            memories.search(indexer, runs, source.seq, each, most, least, by, space)
            for each in asked
        ]
        return [[(format_key(key), score) for key, score in hits] for hits in found]

    def _matching(self, source: Source, conditions: Conditions, now_us: int) -> list[Part]:
        """The vectors of those that meet the conditions."""
        numbers = select(source, conditions, now_us, Trace()).vectors()
        return [(each.run, each.rows) for each in locate(numbers, source.vector_runs())]

    def _activation(self, keys: KeyMatrix, now_us: int, decay: float) -> npt.NDArray[np.float64]:
        """Base-level activation of these memories at a moment, by what was accessed until then."""
        if self._access is None:
            return np.full(len(keys), -np.inf)
        accesses = self._access.columns_of(keys, until_us=now_us)
        return base_level(*accesses, now_us, decay)
