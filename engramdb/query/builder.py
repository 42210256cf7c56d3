"""The query: conditions chained one after the other, all of which a memory has to meet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Self

from engramdb.errors import InvalidInputError
from engramdb.lsm.keys import to_list
from engramdb.lsm.records import MEMORY
from engramdb.model.attributes import decode_memory
from engramdb.model.identifiers import format_keys, parse_id
from engramdb.model.memory_node import MemoryNode
from engramdb.model.vectors import Vector
from engramdb.query.arguments import Where, check_limit, check_query, check_threshold, check_where
from engramdb.query.moment import Moment, moment_us
from engramdb.query.source import found_memory
from engramdb.query.temporal_filter import TemporalFilter

if TYPE_CHECKING:
    from engramdb.query.attribute_filter import AttributeFilter
    from engramdb.query.source import Reader, Source

Match = tuple[bytes, float | None]
"""A key, and its cosine if the query has a vector."""


class Query:
    """Made by query(). Each with_... adds a condition and returns the query itself.

    With a vector the answer comes best first and holds only memories that have one; without, it
    comes in the order of the ids, which is that of creation unless the caller made the ids.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._vector: Vector | None = None
        self._threshold: float | None = None
        self._attribute_filters: list[AttributeFilter] = []
        self._temporal_filters: list[TemporalFilter] = []
        self._keys: set[bytes] | None = None
        self._excluded: set[bytes] = set()
        self._as_of: Moment | None = None
        self._limit: int | None = None

    def with_vector(self, vector: object) -> Self:
        """Rank by cosine with this vector, as long as the database's. A second call replaces it.

        Raises InvalidInputError if it is not one row of finite numbers of that length.
        """
        self._vector = check_query(vector, self._reader._dimension)
        return self

    def with_similarity_threshold(self, threshold: float) -> Self:
        """Only cosines of at least `threshold`, from -1 to 1; needs with_vector()."""
        self._threshold = check_threshold(threshold)
        return self

    def with_attribute_filter(self, attribute_filter: Where) -> Self:
        """Only memories whose attributes match; a further call narrows it down further.

        Takes an AttributeFilter, or a mapping such as {"importance": {"$gt": 0.7}}.
        """
        self._attribute_filters.append(check_where(attribute_filter, "attribute_filter"))
        return self

    def with_temporal_filter(self, temporal_filter: TemporalFilter) -> Self:
        """Only memories of that time; a further call narrows it down further."""
        if not isinstance(temporal_filter, TemporalFilter):
            raise InvalidInputError(
                "temporal_filter",
                f"expected a TemporalFilter, got {type(temporal_filter).__name__}",
            )
        self._temporal_filters.append(temporal_filter)
        return self

    def with_ids(self, ids: Iterable[str]) -> Self:
        """Only these memories; a further call narrows it down further."""
        keys = _parse_ids(ids)
        self._keys = keys if self._keys is None else self._keys & keys
        return self

    def with_exclude_ids(self, ids: Iterable[str]) -> Self:
        """None of these memories; a further call excludes more."""
        self._excluded |= _parse_ids(ids)
        return self

    def as_of(self, moment: Moment) -> Self:
        """Ask the database as it was: an aware datetime, the number of a commit, or a tag.

        A TemporalFilter then counts back from that moment. Errors come from execute().
        """
        self._as_of = moment
        return self

    def with_limit(self, limit: int) -> Self:
        """At most so many memories, an int from 1 on."""
        self._limit = check_limit(limit)
        return self

    def execute(self) -> list[MemoryNode]:
        """The memories that meet all conditions, each with its cosine as `.score`, or None.

        Raises InvalidInputError if the conditions make no sense together or the moment does not
        exist, HistoryUnavailableError if that moment is not kept any more.
        """
        source, matches = self._matches()
        reader = self._reader
        nodes = []
        for key, score in matches:
            if self._as_of is None:
                reader._loaded(key)
            node = reader._node(source, found_memory(source, key))
            node.score = score
            nodes.append(node)
        if self._as_of is None and matches:
            reader._accessed([key for key, _ in matches])
        return nodes

    def ids(self) -> list[str]:
        """The ids of what execute() would return, without loading it."""
        return format_keys([key for key, _ in self._matches()[1]])

    def count(self) -> int:
        """How many memories execute() would return, the limit included."""
        return len(self._matches()[1])

    def _matches(self) -> tuple[Source, list[Match]]:
        if self._threshold is not None and self._vector is None:
            raise InvalidInputError("vector", "a similarity threshold needs with_vector() too")
        reader = self._reader
        if self._as_of is None:
            source, now_us = reader._source(), reader._now_us()
        else:
            source = past = reader._past(self._as_of)
            now_us = moment_us(self._as_of, past)
        limit = self._limit
        matches: list[Match] = []
        for match in self._candidates(source):
            if self._accepts(source, match[0], now_us):
                matches.append(match)
                if len(matches) == limit:
                    break
        return source, matches

    def _candidates(self, source: Source) -> Iterator[Match]:
        """The keys that may match by id and vector, in the order of the answer."""
        wanted, excluded = self._keys, self._excluded
        if self._vector is None:
            if wanted is None:
                keys = [key for rows in source.scan(MEMORY) for key in to_list(rows.keys)]
            else:
                keys = [key for key in wanted if source.get(MEMORY, key) is not None]
            yield from ((key, None) for key in sorted(keys) if key not in excluded)
            return
        least = self._threshold
        for key, score in self._reader._ranked(source, self._vector):
            if least is not None and score < least:
                return
            if key not in excluded and (wanted is None or key in wanted):
                yield key, score

    def _accepts(self, source: Source, key: bytes, now_us: int) -> bool:
        if not self._attribute_filters and not self._temporal_filters:
            return True
        record = found_memory(source, key)
        creation_us, _, attributes = decode_memory(record.payload)
        return all(rule.matches(attributes) for rule in self._attribute_filters) and all(
            rule.matches(creation_us, record.time, now_us) for rule in self._temporal_filters
        )


def _parse_ids(ids: object) -> set[bytes]:
    if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
        raise InvalidInputError("ids", f"expected a sequence of ids, got {type(ids).__name__}")
    return {parse_id(text, f"ids[{position}]") for position, text in enumerate(ids)}
