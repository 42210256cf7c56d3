"""Runs a query over one source: select, rank, diversify, cut."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from engramdb.errors import InvalidInputError
from engramdb.index.metric import COSINE, Metric
from engramdb.lsm.records import DEFAULT_SPACE
from engramdb.model.vectors import Vector
from engramdb.query.arguments import check_width
from engramdb.query.conditions import Conditions
from engramdb.query.diversity import Diversity, diversify
from engramdb.query.explanation import Trace
from engramdb.query.order import SIMILARITY, Order
from engramdb.query.ranking import Match, Wish, rank
from engramdb.query.selection import Selection, select
from engramdb.query.signals import Signals
from engramdb.query.source import found_memory
from engramdb.query.vectors import locate

if TYPE_CHECKING:
    from engramdb.query.source import Reader, Source


@dataclass(slots=True)
class Asked:
    """What the answer has to look like."""

    vector: Vector | None = None  # one, (d,), in the default space; else (q, d)
    metric: Metric = COSINE
    space: str = DEFAULT_SPACE
    threshold: float | None = None
    order: Order | None = None
    diversity: Diversity | None = None
    limit: int | None = None
    offset: int = 0
    exact: bool = False

    def text(self) -> str:
        """The same for the same wishes, and for others another one: of vectors, every bit."""
        vector = None if self.vector is None else (self.vector.shape, self.vector.tobytes())
        return repr((vector, replace(self, vector=None)))

    def check(self) -> None:
        """Raises InvalidInputError if it makes no sense together."""
        if self.vector is None:
            if self.threshold is not None:
                raise InvalidInputError("vector", "a similarity threshold needs with_vector() too")
            if self.order is not None and self.order.uses(SIMILARITY):
                raise InvalidInputError("vector", "order_by similarity needs with_vector() too")
            if self.diversity is not None:
                raise InvalidInputError("vector", "with_diversity() needs with_vector() too")
        if self.diversity is not None and self.space != DEFAULT_SPACE:
            raise InvalidInputError(
                "space", "with_diversity() compares memories by their vectors in the default space"
            )
        if self.diversity is not None and self.metric != COSINE:
            raise InvalidInputError(
                "metric",
                "with_diversity() weighs similarity against cosines between memories, so it needs "
                f"'cosine', not {self.metric!r}",
            )
        if self.diversity is not None and self.limit is None:
            raise InvalidInputError("limit", "with_diversity() needs with_limit() too")


class Answer:
    """One run of a query. Everything in it is of one moment."""

    def __init__(
        self,
        reader: Reader,
        source: Source,
        now_us: int,
        conditions: Conditions,
        asked: Asked,
        *,
        exact: bool = False,
    ) -> None:
        """`exact`: no search by codes, for parts that have to fit together."""
        asked.check()
        if asked.vector is not None and asked.space == DEFAULT_SPACE:
            check_width(asked.vector, reader._dimension)  # known only since then, perhaps
        self.source = source
        self.trace = Trace()
        self._reader, self._now_us = reader, now_us
        self._conditions, self._asked = conditions, asked
        self._exact = exact or asked.exact or asked.offset > 0
        self._selection: Selection | None = None

    def selection(self) -> Selection:
        """The memories that meet the conditions, whether they have a vector or not."""
        if self._selection is None:
            self._selection = select(self.source, self._conditions, self._now_us, self.trace)
        return self._selection

    def similar(self) -> Selection:
        """Those that the answer is taken from: with a vector only those that are similar enough."""
        selection, asked = self.selection(), self._asked
        if asked.vector is None:
            return selection
        signals = Signals(selection, self._now_us, self._reader._activation)
        signals.compare(asked.vector, asked.threshold, self.source, asked.space, asked.metric)
        return signals.selection

    def count(self) -> int:
        """How many matches() would return."""
        asked, selection = self._asked, self.selection()
        if asked.vector is not None and asked.threshold is None and asked.space == DEFAULT_SPACE:
            places = locate(selection.vectors(), self.source.vector_runs())
            count = sum(len(place.rows) for place in places)
        else:
            count = self.similar().count
        count = max(0, count - asked.offset)
        return count if asked.limit is None else min(count, asked.limit)

    def matches(self) -> list[Match]:
        """The keys of the answer, in order, each with its score."""
        asked = self._asked
        if asked.limit is None:
            return self.ranked(None)[asked.offset :]
        return self.ranked(asked.offset + asked.limit)[asked.offset :]

    def ranked(self, count: int | None) -> list[Match]:
        """The best so many, of an offset of 0."""
        asked, diversity = self._asked, self._asked.diversity
        wanted = count
        if diversity is not None:
            assert asked.limit is not None
            wanted = diversity.pool(asked.offset + asked.limit)
        wish = Wish(
            asked.order,
            asked.vector,
            asked.metric,
            asked.space,
            asked.threshold,
            wanted,
            self._now_us,
            self._exact or count is None,
        )
        matches = rank(self.selection(), wish, self.source, self._reader, self.trace)
        if diversity is not None:
            matches = self._diversified(matches, diversity, count)
        return matches

    def _diversified(
        self, matches: list[Match], diversity: Diversity, count: int | None
    ) -> list[Match]:
        if not matches:
            return matches
        source = self.source
        vectors = [source.vector_of(found_memory(source, key)) for key, _ in matches]
        scores = np.array([0.0 if score is None else score for _, score in matches])
        wanted = len(matches) if count is None else count
        places = diversify(scores, np.stack(vectors), diversity.relevance, wanted)
        self.trace.stage("diversity", len(matches), len(places), "maximal marginal relevance")
        return [matches[place] for place in places]
