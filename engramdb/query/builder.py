"""The query: conditions chained one after the other, all of which a memory has to meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

from engramdb.errors import InvalidInputError
from engramdb.index.metric import COSINE, Metric
from engramdb.lsm.records import DEFAULT_SPACE
from engramdb.model.attributes import check_key
from engramdb.model.identifiers import format_keys, parse_id
from engramdb.model.memory_node import MemoryNode
from engramdb.query.answer import Answer, Asked
from engramdb.query.arguments import (
    Where,
    check_count,
    check_flag,
    check_limit,
    check_metric,
    check_metric_of_rows,
    check_query,
    check_query_rows,
    check_share,
    check_threshold,
    check_where,
    is_named,
)
from engramdb.query.conditions import Conditions, Near, ValidAt, check_valid_at
from engramdb.query.diversity import Diversity
from engramdb.query.explanation import Explanation
from engramdb.query.grouping import Facet, Group, facets_of, groups_of
from engramdb.query.moment import Moment, moment_us
from engramdb.query.order import DECAY, HALF_LIFE, order_of
from engramdb.query.page import Page, Place, decode_cursor, encode_cursor
from engramdb.query.ranking import Match
from engramdb.query.source import found_memory
from engramdb.query.temporal_filter import TemporalFilter
from engramdb.query.walk_arguments import Types, check_hops, check_rule

if TYPE_CHECKING:
    from engramdb.query.source import Reader, Source

PAGE_SIZE: Final = 50


class Query:
    """Made by query(). Each with_... adds a condition and returns the query itself.

    With a vector the answer comes best first and holds only memories that have one; without, it
    comes in the order of the ids, which is that of creation unless the caller made the ids. See
    order_by(). By default it holds only what is valid at the moment it is asked from, see
    valid_at(); versions that were superseded are seen by as_of() alone.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._conditions = Conditions()
        self._asked = Asked()
        self._as_of: Moment | None = None

    # What to look for

    def with_vector(
        self,
        vector: object,
        *,
        space: str = DEFAULT_SPACE,
        metric: Metric = COSINE,
        exact: bool = False,
    ) -> Self:
        """Rank by similarity to this vector, as long as the database's. A second call replaces it.

        space   to those in this named space; there a matrix of query vectors is taken too, and
                memories with several vectors count by MaxSim, see search_similar()
        metric  "cosine", "dot" or "euclidean" (minus the distance), see search_similar()
        exact   never by codes, see search_similar(); what is counted, grouped or given in pages or
                from an offset on always is

        Raises InvalidInputError if it is not one row of finite numbers of that length.
        """
        reader, metric = self._reader, check_metric(metric)
        if not is_named(space):
            checked = check_query(vector, reader._dimension)
        else:
            checked = check_query_rows(vector, reader._width_of(space), space)
            check_metric_of_rows(metric, len(checked))
        asked = self._asked
        asked.vector, asked.space, asked.metric = checked, space, metric
        asked.exact = check_flag(exact, "exact")
        return self

    def with_similarity_threshold(self, threshold: float) -> Self:
        """Only scores of at least `threshold`: a cosine, from -1 to 1, or what the metric of
        with_vector() gives: within a distance of 2 is -2. Needs with_vector()."""
        self._asked.threshold = check_threshold(threshold)
        return self

    def with_attribute_filter(self, attribute_filter: Where) -> Self:
        """Only memories whose attributes match; a further call narrows it down further.

        Takes an AttributeFilter, or a mapping such as {"importance": {"$gt": 0.7}}.
        """
        self._conditions.attributes.append(check_where(attribute_filter, "attribute_filter"))
        return self

    def with_temporal_filter(self, temporal_filter: TemporalFilter) -> Self:
        """Only memories of that time; a further call narrows it down further."""
        if not isinstance(temporal_filter, TemporalFilter):
            raise InvalidInputError(
                "temporal_filter",
                f"expected a TemporalFilter, got {type(temporal_filter).__name__}",
            )
        self._conditions.times.append(temporal_filter)
        return self

    def with_ids(self, ids: Iterable[str]) -> Self:
        """Only these memories; a further call narrows it down further."""
        keys, known = _parse_ids(ids), self._conditions.keys
        self._conditions.keys = keys if known is None else known & keys
        return self

    def with_exclude_ids(self, ids: Iterable[str]) -> Self:
        """None of these memories; a further call excludes more."""
        self._conditions.excluded |= _parse_ids(ids)
        return self

    def connected_to(
        self,
        memory_id: str,
        relationship_type: Types | None = None,
        max_hops: int = 1,
        *,
        min_strength: float = 0.0,
        direction: str = "both",
    ) -> Self:
        """Only memories within so many connections of that one, itself not included; a further call
        narrows it down further.

        relationship_type  only along connections of this type, or of these
        min_strength       only along connections at least that strong, from 0 to 1
        direction          "outgoing", "incoming" or "both"

        A memory that is not there is connected to nothing.
        """
        self._conditions.near.append(
            Near(
                parse_id(memory_id),
                check_hops(max_hops),
                check_rule(relationship_type, min_strength, direction),
            )
        )
        return self

    # When to look

    def as_of(self, moment: Moment) -> Self:
        """Ask the database as it was: an aware datetime, the number of a commit, or a tag.

        A TemporalFilter then counts back from that moment. Errors come from execute().
        """
        self._as_of = moment
        return self

    def valid_at(self, moment: ValidAt) -> Self:
        """Only memories that hold in the world at that moment: an aware datetime.

        "now", which is the default, is the moment that the query is asked from (with as_of() that
        one), and "any" leaves valid_from and valid_to alone. Together with as_of() both clocks are
        asked: what did I believe on Monday about where she lived in March?
        """
        self._conditions.valid_at = check_valid_at(moment)
        return self

    # What the answer looks like

    def order_by(
        self,
        by: str | Mapping[str, float],
        *,
        descending: bool | None = None,
        half_life: timedelta = HALF_LIFE,
        decay: float = DECAY,
    ) -> Self:
        """In which order: one signal, one attribute, or a weighted sum such as
        {"similarity": 0.6, "recency": 0.3, "importance": 0.1}.

        by          "similarity" (needs with_vector()), "recency" (halves every `half_life` since
                    the memory was last saved), "importance" (the attribute), "activation" (how
                    recently and often it was used, ACT-R's base level with this `decay`), or the
                    name of an attribute; see engramdb.query.order
        descending  None: signals best first, an attribute smallest first

        What has no value comes last; equal memories are in the order of their ids. The memory's
        `.score` is the signal or the sum; by an attribute, "importance" too, the similarity if
        there is one. Raises InvalidInputError naming the argument.
        """
        self._asked.order = order_of(by, descending, half_life, decay)
        return self

    def with_diversity(self, relevance: float = 0.5, *, candidates: int | None = None) -> Self:
        """Memories that differ from each other: maximal marginal relevance (MMR) over the best
        `candidates` (None: five times the limit, at least 50). Needs with_vector() and a limit.

        relevance  from 0, only different, to 1, only relevant
        """
        if candidates is not None:
            check_limit(candidates, "candidates")
        self._asked.diversity = Diversity(check_share(relevance, "relevance"), candidates)
        return self

    def with_limit(self, limit: int) -> Self:
        """At most so many memories, an int from 1 on."""
        self._asked.limit = check_limit(limit)
        return self

    def with_offset(self, offset: int) -> Self:
        """Leave out the first so many, an int from 0 on. See page() for one that others' writes
        do not shift."""
        self._asked.offset = check_count(offset, "offset")
        return self

    # Answers

    def execute(self) -> list[MemoryNode]:
        """The memories that meet all conditions, each with its score as `.score`, or None.

        Raises InvalidInputError if the conditions make no sense together or the moment does not
        exist, HistoryUnavailableError if that moment is not kept any more.
        """
        answer = self._answer()
        return self._nodes(answer.source, answer.matches())

    def ids(self) -> list[str]:
        """The ids of what execute() would return, without loading it."""
        return format_keys([key for key, _ in self._answer().matches()])

    def count(self) -> int:
        """How many memories execute() would return, limit and offset included."""
        return self._answer().count()

    def explain(self) -> Explanation:
        """Run the query but for loading the memories: which plan was chosen, how many rows each
        stage examined, and how long it took. Print it."""
        answer = self._answer()
        answer.matches()
        return answer.trace.explanation()

    def facets(self, *keys: str, limit: int = 10) -> dict[str, list[Facet]]:
        """For each of these attributes its most frequent values, and how many of the memories that
        meet the conditions have them (limit and offset apart); of a list, each element counts."""
        limit, keys = check_limit(limit), tuple(check_key(key, "keys") for key in keys)
        answer = self._answer()
        selection = answer.similar()
        return {key: facets_of(selection, key, limit) for key in keys}

    def group_by(self, key: str, size: int = 3) -> list[Group]:
        """The memories by the value of an attribute: at most `size` of each, best first, and the
        groups in the order of their best. The limit counts groups. Each has .value, .count and
        .memories; what has no such attribute is in none."""
        key, size = check_key(key, "key"), check_limit(size, "size")
        answer = self._answer()
        ranked = answer.ranked(None)
        groups = groups_of(answer.selection(), [each for each, _ in ranked], key, size)
        scores = dict(ranked)
        start, limit = self._asked.offset, self._asked.limit
        chosen = groups[start : None if limit is None else start + limit]
        return [
            Group(value, count, self._nodes(answer.source, [(k, scores[k]) for k in keys]))
            for value, count, keys in chosen
        ]

    def page(self, size: int = PAGE_SIZE, cursor: str | None = None) -> Page:
        """The first `size` memories, or the ones after a page's `.cursor`: all pages are cut from
        the database as it was when the first was asked for, so nothing is seen twice or missed.

        The limit, if there is one, is for all pages together. Raises InvalidInputError for a
        cursor of another query, HistoryUnavailableError when the retention policy has dropped that
        moment meanwhile (pages() holds on to it). A purge takes memories out of the past, too, and
        of many accesses only the last times are kept: where memories are purged meanwhile, and in
        an order by activation, pages may not fit together, and those of pages() do.
        """
        size, text = check_limit(size, "size"), self._text()
        if self._reader._has_unsaved():
            raise InvalidInputError(
                "cursor", "there are no cursors within a transaction; use with_offset()"
            )
        if cursor is None:
            source, now_us = self._moment()
            place = Place(source.seq, now_us, self._asked.offset)
        else:
            place = decode_cursor(cursor, text)
            source = self._reader._past(place.seq)
        return self._page(source, place, size, text)

    def pages(self, size: int = PAGE_SIZE) -> Iterator[list[MemoryNode]]:
        """All memories, `size` at a time, from one snapshot that is held while they are read."""
        size, answer = check_limit(size, "size"), self._answer()
        matches = answer.matches()  # once: what is read from a page counts as access already
        if self._reader._has_unsaved():  # a transaction's writes change what it reads from
            nodes = self._nodes(answer.source, matches)
            yield from (nodes[start : start + size] for start in range(0, len(nodes), size))
            return
        for start in range(0, len(matches), size):
            yield self._nodes(answer.source, matches[start : start + size])

    def _page(self, source: Source, place: Place, size: int, text: str) -> Page:
        limit = self._asked.limit
        end = place.offset + size
        if limit is not None:
            end = min(end, self._asked.offset + limit)
        answer = Answer(
            self._reader, source, place.now_us, self._conditions, self._asked, exact=True
        )
        matches = answer.ranked(end + 1)
        nodes = self._nodes(source, matches[place.offset : end])
        is_last = len(matches) <= end or end < place.offset + size
        if is_last:
            return Page(nodes, None)
        return Page(nodes, encode_cursor(place._replace(offset=end), text))

    def _moment(self) -> tuple[Source, int]:
        reader = self._reader
        if self._as_of is None:
            return reader._source(), reader._now_us()
        past = reader._past(self._as_of)
        return past, moment_us(self._as_of, past)

    def _answer(self) -> Answer:
        source, now_us = self._moment()
        return Answer(self._reader, source, now_us, self._conditions, self._asked)

    def _nodes(self, source: Source, matches: list[Match]) -> list[MemoryNode]:
        reader, nodes = self._reader, []
        for key, score in matches:
            if self._as_of is None:
                reader._loaded(key)
            node = reader._node(source, found_memory(source, key))
            node.score = score
            nodes.append(node)
        if self._as_of is None and matches:
            reader._accessed([key for key, _ in matches])
        return nodes

    def _text(self) -> str:
        """What a cursor remembers the query by."""
        return f"{self._conditions.text()} {self._asked.text()} {self._as_of!r}"

    def __repr__(self) -> str:
        return f"<Query {self._conditions!r} {self._asked!r} as_of={self._as_of!r}>"


def _parse_ids(ids: object) -> frozenset[bytes]:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidInputError("ids", f"expected a sequence of ids, got {type(ids).__name__}")
    return frozenset(parse_id(text, f"ids[{position}]") for position, text in enumerate(ids))
