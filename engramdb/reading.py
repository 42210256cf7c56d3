"""Every read, once: the database now, a past moment and a transaction differ only in the source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

import numpy as np
import numpy.typing as npt

from engramdb.carried import PastVectors, read_vectors
from engramdb.errors import InvalidInputError, MemoryNotFoundError
from engramdb.index import exact as exact_index
from engramdb.index import late_interaction
from engramdb.lsm.keys import split, to_list
from engramdb.lsm.records import (
    DEFAULT_SPACE,
    MEMORY,
    NEVER,
    NO_VECTOR,
    TOMBSTONE,
    Edge,
    Record,
    Vector,
)
from engramdb.model.attributes import ALWAYS, decode_edge, decode_memory
from engramdb.model.connection import Connection
from engramdb.model.identifiers import format_key, format_keys, parse_id
from engramdb.model.memory_node import MemoryNode
from engramdb.model.moments import from_microseconds, moment_or_none
from engramdb.model.relationship import check_relationship_type
from engramdb.model.temporal_layer import TemporalLayer
from engramdb.query.arguments import (
    Where,
    borrow_query,
    check_flag,
    check_limit,
    check_queries,
    check_query_rows,
    check_threshold,
    check_where,
)
from engramdb.query.attribute_filter import AttributeFilter
from engramdb.query.builder import Query
from engramdb.query.moment import Moment, look_back
from engramdb.query.source import Source, found_memory

if TYPE_CHECKING:
    from engramdb.lsm import Snapshot, StorageEngine

Matrix = npt.NDArray[np.float32]
Hit = tuple[str, float]
"""An id and its cosine."""

_NO_ATTRIBUTES: Final[dict[str, object]] = {}


class Reading(ABC):
    """Reads over whatever `_source()` returns: one consistent state for the length of a call."""

    _engine: StorageEngine

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

    def _loaded(self, key: bytes) -> None:  # noqa: B027  (only a transaction wants to know)
        """A memory is handed to the caller, or its absence told."""

    def _walked(self, key: bytes, *, incoming: bool) -> None:  # noqa: B027
        """The connections of a memory are handed to the caller."""

    # Single memories

    def load(self, memory_id: str) -> MemoryNode:
        """The memory with this id.

        Raises MemoryNotFoundError if there is none and InvalidInputError if the id is not a UUID.
        """
        key = parse_id(memory_id)
        self._loaded(key)
        source = self._source()
        record = source.get(MEMORY, key)
        if record is None:
            raise MemoryNotFoundError(format_key(key))
        return self._node(source, cast(Record, record))

    def get(self, memory_id: str) -> MemoryNode | None:
        """The memory with this id, or None. Raises InvalidInputError if the id is not a UUID."""
        key = parse_id(memory_id)
        self._loaded(key)
        source = self._source()
        record = source.get(MEMORY, key)
        return None if record is None else self._node(source, cast(Record, record))

    def __contains__(self, memory_id: object) -> bool:
        """Whether a memory has this id. Raises InvalidInputError if it is not a UUID."""
        key = parse_id(memory_id)
        self._loaded(key)
        return self._source().get(MEMORY, key) is not None

    def history(self, memory_id: str) -> list[TemporalLayer]:
        """Every version of a memory that is kept, oldest first, deletions included.

        Empty for a memory that never was, or was purged. Raises InvalidInputError if the id is not
        a UUID.
        """
        return self._layers(parse_id(memory_id))

    # All memories

    def __len__(self) -> int:
        """How many memories there are."""
        return self._source().count(MEMORY)

    def list_all(self) -> list[str]:
        """The ids of all memories, sorted: by time of creation, unless the caller made the ids."""
        return format_keys(_sorted_keys(self._source()))

    # Search

    def search_similar(
        self,
        vector: object,
        limit: int = 10,
        threshold: float = 0.0,
        *,
        where: Where | None = None,
        as_of: Moment | None = None,
        exact: bool = False,
        space: str = DEFAULT_SPACE,
    ) -> list[Hit]:
        """The memories most similar to a vector: at most `limit` pairs (id, cosine), best first.

        vector     one row of finite numbers, as long as the database's vectors
        threshold  the least cosine, from -1 to 1
        where      an AttributeFilter, or a mapping such as {"importance": {"$gt": 0.7}}: only
                   memories that match; it never makes the answer shorter than it has to be
        as_of      search what was there at that moment (see as_of())
        exact      never approximate; today every search is exact
        space      search among the vectors in this named space. There a matrix of query vectors is
                   taken too; the score is then the mean over its rows of the best cosine with any
                   vector of the memory (MaxSim), and so for memories with several vectors

        Memories without a vector are never found. Raises InvalidInputError naming the argument.
        """
        if space != DEFAULT_SPACE:
            return self._search_in(space, vector, limit, threshold, where, as_of, exact)
        query = borrow_query(vector, self._dimension)
        if type(limit) is not int or limit < 1:
            limit = check_limit(limit)
        if type(threshold) is not float or threshold - threshold != 0.0:  # infinity and NaN
            threshold = check_threshold(threshold)
        if exact is not False:
            check_flag(exact, "exact")
        source = self._source() if as_of is None else self._past(as_of)
        if where is None:
            hits = self._nearest(source, query, limit, threshold)
        else:
            hits = self._nearest_where(source, query, limit, threshold, check_where(where))
        return [(format_key(key), score) for key, score in hits]

    def search_many(
        self,
        vectors: object,
        limit: int = 10,
        threshold: float = 0.0,
        *,
        where: Where | None = None,
        as_of: Moment | None = None,
        exact: bool = False,
        space: str = DEFAULT_SPACE,
    ) -> list[list[Hit]]:
        """What search_similar finds for each row of an (n, dimension) matrix, in one go.

        Raises InvalidInputError naming the argument.
        """
        if space != DEFAULT_SPACE:
            rows = check_queries(vectors, self._width_of(space), space=space)
            return [
                self._search_in(space, row, limit, threshold, where, as_of, exact) for row in rows
            ]
        queries = check_queries(vectors, self._dimension)
        limit, threshold = check_limit(limit), check_threshold(threshold)
        check_flag(exact, "exact")
        source = self._source() if as_of is None else self._past(as_of)
        if where is None:
            found = self._nearest_many(source, queries, limit, threshold)
        else:
            rule = check_where(where)
            found = [
                self._nearest_where(source, query, limit, threshold, rule) for query in queries
            ]
        return [[(format_key(key), score) for key, score in hits] for hits in found]

    def query(self) -> Query:
        """A new query over these memories: chain conditions, then execute()."""
        return Query(self)

    # Connections

    def get_connections(
        self, memory_id: str, relationship_type: str | None = None
    ) -> list[Connection]:
        """The connections that leave a memory, the oldest version first; of one type if given.

        Empty for a memory that does not exist. Raises InvalidInputError naming the argument.
        """
        return self._connections(memory_id, relationship_type, incoming=False)

    def get_connected_to(
        self, memory_id: str, relationship_type: str | None = None
    ) -> list[Connection]:
        """The connections that reach a memory, the oldest version first; of one type if given.

        Empty for a memory that does not exist. Raises InvalidInputError naming the argument.
        """
        return self._connections(memory_id, relationship_type, incoming=True)

    # Below here: nothing for callers

    def _connections(
        self, memory_id: str, relationship_type: str | None, *, incoming: bool
    ) -> list[Connection]:
        key = parse_id(memory_id)
        if relationship_type is not None:
            relationship_type = check_relationship_type(relationship_type)
        self._walked(key, incoming=incoming)
        source = self._source()
        edges = source.edges_to(key) if incoming else source.edges_from(key)
        if relationship_type is not None:
            edges = [edge for edge in edges if edge.type == relationship_type]
        return [connection_of(edge) for edge in sorted(edges, key=_by_seq)]

    def _node(self, source: Source, record: Record) -> MemoryNode:
        said = decode_memory(record.payload)
        number = record.vector
        node = MemoryNode._restore(
            record.key,
            said.creation_us,
            said.attributes,
            ALWAYS if said.valid_from_us is said.valid_to_us is None else said.validity,
            None if number == NO_VECTOR else source.vector(number),
            number,
            record.seq,
            self._layers,
        )
        if said.spaces:
            node._vectors, node._carried = read_vectors(source, record.key, said.spaces)
        return node

    def _layers(self, key: bytes) -> list[TemporalLayer]:
        source = self._source()
        vectors: dict[int, Vector] = {}
        named = PastVectors(source, key)
        layers = []
        for version in source.history(MEMORY, key):
            record = cast(Record, version)
            moment = from_microseconds(record.time)
            if record.kind == TOMBSTONE:
                layers.append(TemporalLayer(record.seq, moment, None, None, _NO_ATTRIBUTES, True))
                continue
            number, vector = record.vector, None
            if number != NO_VECTOR:
                vector = vectors.get(number)
                if vector is None:
                    vector = vectors[number] = source.vector(number)
            said = decode_memory(record.payload)
            layers.append(
                TemporalLayer(
                    record.seq,
                    moment,
                    said.reason,
                    vector,
                    said.attributes,
                    valid_from=moment_or_none(said.valid_from_us),
                    valid_to=moment_or_none(said.valid_to_us),
                    vectors=named.at(record.seq, said.spaces),
                )
            )
        return layers

    def _nearest(
        self, source: Source, query: Vector, limit: int, threshold: float
    ) -> list[exact_index.Hit]:
        return exact_index.search(source.vector_runs(), source.seq, query, limit, threshold)

    def _nearest_many(
        self, source: Source, queries: Matrix, limit: int, threshold: float
    ) -> list[list[exact_index.Hit]]:
        return exact_index.search_many(source.vector_runs(), source.seq, queries, limit, threshold)

    def _ranked(self, source: Source, query: Vector) -> Iterator[exact_index.Hit]:
        return exact_index.ranked(source.vector_runs(), source.seq, query)

    # Named spaces

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

    def _search_in(
        self,
        space: str,
        vector: object,
        limit: int,
        threshold: float,
        where: Where | None,
        as_of: Moment | None,
        exact: bool,
    ) -> list[Hit]:
        queries = check_query_rows(vector, self._width_of(space), space)
        limit, threshold = check_limit(limit), check_threshold(threshold)
        check_flag(exact, "exact")
        source = self._source() if as_of is None else self._past(as_of)
        if where is None:
            hits = self._nearest_in(source, space, queries, limit, threshold)
        else:
            ranked = self._ranked_in(source, space, queries)
            hits = self._first_where(source, ranked, limit, threshold, check_where(where))
        return [(format_key(key), score) for key, score in hits]

    def _nearest_in(
        self, source: Source, space: str, queries: Matrix, limit: int, threshold: float
    ) -> list[exact_index.Hit]:
        """The best memories in a space for (q, d) query vectors: MaxSim."""
        runs = source.vector_runs(space)
        return late_interaction.search(runs, source.seq, queries, limit, threshold)

    def _ranked_in(self, source: Source, space: str, queries: Matrix) -> Iterator[exact_index.Hit]:
        """Every memory that has a vector in a space with its score, best first."""
        return late_interaction.ranked(source.vector_runs(space), source.seq, queries)

    def _nearest_where(
        self, source: Source, query: Vector, limit: int, threshold: float, where: AttributeFilter
    ) -> list[exact_index.Hit]:
        ranked = self._ranked(source, query)
        return self._first_where(source, ranked, limit, threshold, where)

    def _first_where(
        self,
        source: Source,
        ranked: Iterator[exact_index.Hit],
        limit: int,
        threshold: float,
        where: AttributeFilter,
    ) -> list[exact_index.Hit]:
        hits: list[exact_index.Hit] = []
        for hit in ranked:
            if hit[1] < threshold:
                break
            record = found_memory(source, hit[0])
            if where.matches(decode_memory(record.payload)[2]):
                hits.append(hit)
                if len(hits) == limit:
                    break
        return hits


def is_stored_in(node: MemoryNode, engine: StorageEngine) -> bool:
    """Whether a node came from this very engine: only then does its vector number mean anything."""
    loader = node._layers_loader
    if loader is None:
        return False
    owner = getattr(loader, "__self__", None)
    return isinstance(owner, Reading) and owner._engine is engine


def connection_of(edge: Edge) -> Connection:
    """An edge of the log as callers see it."""
    creation_us, attributes = decode_edge(edge.payload)
    return Connection(
        format_key(edge.source),
        format_key(edge.target),
        edge.type,
        edge.strength,
        attributes,
        from_microseconds(creation_us),
    )


def _sorted_keys(source: Source) -> list[bytes]:
    batches = [rows.keys for rows in source.scan(MEMORY)]
    if not batches:
        return []
    keys = np.concatenate(batches)
    high, low = split(keys)
    return to_list(keys[np.lexsort((low, high))])


def _by_seq(edge: Edge) -> int:
    return edge.seq or NEVER  # what a transaction has not saved yet comes last
