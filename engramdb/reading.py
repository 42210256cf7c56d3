"""Every read, once: the database now, a past moment and a transaction differ only in the source."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import numpy.typing as npt

from engramdb.carried import PastVectors, read_vectors
from engramdb.errors import MemoryNotFoundError
from engramdb.lsm.keys import split, to_list
from engramdb.lsm.records import (
    MEMORY,
    NO_VECTOR,
    TOMBSTONE,
    Edge,
    Record,
    Vector,
)
from engramdb.model.access_history import AccessHistory
from engramdb.model.attributes import ALWAYS, decode_edge, decode_memory
from engramdb.model.connection import Connection
from engramdb.model.identifiers import format_key, format_keys, parse_id
from engramdb.model.memory_node import MemoryNode
from engramdb.model.moments import from_microseconds, moment_or_none
from engramdb.model.relationship import check_relationship_type
from engramdb.model.temporal_layer import TemporalLayer
from engramdb.query.builder import Query
from engramdb.query.source import Source
from engramdb.searching import Searching
from engramdb.walking import Walking

if TYPE_CHECKING:
    from engramdb.lsm import StorageEngine

Matrix = npt.NDArray[np.float32]
Hit = tuple[str, float]
"""An id and its cosine."""

_seq_of: Final = attrgetter("seq")

_NO_ATTRIBUTES: Final[dict[str, object]] = {}


class Reading(Searching, Walking):
    """Reads over whatever `_source()` returns: one consistent state for the length of a call."""

    _record_access: Callable[[bytes], None] | None = None
    """Told of each memory that is handed out; None for reads that do not count."""

    @abstractmethod
    def _source(self) -> Source:
        """What these reads see."""

    def _loaded(self, key: bytes) -> None:
        """A memory is handed to the caller, or its absence told: a transaction wants to know."""

    def _walked(self, key: bytes, *, incoming: bool) -> None:
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
        record_access = self._record_access
        if record_access is not None:
            record_access(key)
        return self._node(source, cast(Record, record))

    def get(self, memory_id: str) -> MemoryNode | None:
        """The memory with this id, or None. Raises InvalidInputError if the id is not a UUID."""
        key = parse_id(memory_id)
        self._loaded(key)
        source = self._source()
        record = source.get(MEMORY, key)
        if record is None:
            return None
        if self._record_access is not None:
            self._record_access(key)
        return self._node(source, cast(Record, record))

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

    # Queries

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
        edges = sorted(edges, key=_seq_of)
        unsaved = 0  # what a transaction has not saved yet has no number, and comes last
        while unsaved < len(edges) and not edges[unsaved].seq:
            unsaved += 1
        return connections_of(edges[unsaved:] + edges[:unsaved] if unsaved else edges)

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

    def _accessed(self, keys: list[bytes]) -> None:
        """These memories are handed to the caller, as they are now."""
        if self._record_access is not None and self._access is not None:
            self._access.record_all(keys)

    def _access_history(self, key: bytes) -> AccessHistory:
        return AccessHistory() if self._access is None else self._access.history(key)

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


def is_stored_in(node: MemoryNode, engine: StorageEngine) -> bool:
    """Whether a node came from this very engine: only then does its vector number mean anything."""
    loader = node._layers_loader
    if loader is None:
        return False
    owner = getattr(loader, "__self__", None)
    return isinstance(owner, Reading) and owner._engine is engine


def connection_of(edge: Edge) -> Connection:
    """An edge of the log as callers see it."""
    return connections_of([edge])[0]


def connections_of(edges: list[Edge]) -> list[Connection]:
    """Edges of the log as callers see them."""
    connections = []
    attributes: dict[str, Any]
    for _, _, _, _, payload, source, target, type_, strength, _, _ in edges:
        if len(payload) == _PLAIN_BYTES and payload[1] in _LONG_INTEGERS:
            moment, attributes = _made(payload), {}
        else:
            creation_us, attributes = decode_edge(payload)
            moment = from_microseconds(creation_us)
        connections.append(
            Connection(_text(source), _text(target), type_, strength, attributes, moment)
        )
    return connections


# A connection without attributes, as most are: an array of two, a long integer, an empty map. What
# they have in common with those that were read before is kept: half of the time of a read.
_PLAIN_BYTES: Final = 11
_LONG_INTEGERS: Final = (0xCF, 0xD3)


@lru_cache(maxsize=4096)
def _made(payload: bytes) -> datetime:
    """When a connection was made."""
    return from_microseconds(decode_edge(payload)[0])


_text: Final = lru_cache(maxsize=8192)(format_key)


def _sorted_keys(source: Source) -> list[bytes]:
    batches = [rows.keys for rows in source.scan(MEMORY)]
    if not batches:
        return []
    keys = np.concatenate(batches)
    high, low = split(keys)
    return to_list(keys[np.lexsort((low, high))])
