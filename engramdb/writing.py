"""What a write puts into its batch, once: for the database, and for a transaction.

A connection must never be left with an end that is not there. So whoever deletes a memory
tombstones its connections in the same commit, and whoever connects makes sure of both ends; and
because others write meanwhile, `keeps_ends` checks it again when the commit gets its number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from engramdb.carried import (
    are_gone,
    check_widths,
    delete_vectors,
    put_vectors,
    rows_by_space,
    wanted_of,
)
from engramdb.errors import InvalidInputError, MemoryNotFoundError
from engramdb.lsm import StorageEngine
from engramdb.lsm.records import (
    EDGE,
    MEMORY,
    NO_VECTOR,
    PUT,
    TOMBSTONE,
    Batch,
    Edge,
    Record,
    edge_key,
    is_connection,
)
from engramdb.model.attributes import decode_edge, encode_edge, encode_memory
from engramdb.model.identifiers import format_key
from engramdb.model.memory_node import MemoryNode
from engramdb.model.moments import now_us
from engramdb.query.arguments import check_node, wrong_dimension
from engramdb.query.source import Source
from engramdb.reading import is_stored_in


def put_node(
    batch: Batch,
    node: MemoryNode,
    reason: str | None,
    engine: StorageEngine,
    dimension: int | None,
    latest: Callable[[], Source],
    widths: dict[str, int] | None = None,
) -> None:
    """Write a memory. A vector that its newest version has already is not stored again. `widths`:
    the lengths of vectors in named spaces, to which new ones are added; None: the engine's.

    Raises InvalidInputError naming the part of the node.
    """
    _put_memory(batch, node, reason, engine, dimension, latest, widths)
    if node._vectors or engine.has_spaces:
        put_vectors(batch, wanted_of(node, is_stored=is_stored_in(node, engine)), latest())
    else:
        batch.knows_no_spaces = True


def _put_memory(
    batch: Batch,
    node: MemoryNode,
    reason: str | None,
    engine: StorageEngine,
    dimension: int | None,
    latest: Callable[[], Source],
    widths: dict[str, int] | None,
) -> None:
    spaces = None
    if node._vectors:
        check_widths(node._vectors, engine.spaces if widths is None else widths)
        spaces = rows_by_space(node._vectors)
    payload = encode_memory(node._creation_us, reason, node._attributes, node._validity, spaces)
    vector, shares = node._embeddings, NO_VECTOR
    if vector is not None:
        if vector.size != dimension and dimension is not None:
            raise wrong_dimension(vector.size, dimension, "embeddings")
        if node._layers_loader is not None and is_stored_in(node, engine):
            shares = node._stored_vector
            if shares == NO_VECTOR:
                shares = node._stored_vector = _same_vector(latest(), node)
    batch.put(node._key, payload, vector, shares)


def put_nodes(
    batch: Batch,
    nodes: Sequence[MemoryNode],
    reason: str | None,
    engine: StorageEngine,
    dimension: int | None,
    latest: Callable[[], Source],
    widths: dict[str, int] | None = None,
) -> int | None:
    """Write memories; see put_node. Returns the length of their vectors. Raises InvalidInputError
    naming nodes[i] and what of it is wrong."""
    widths = engine.spaces if widths is None else widths
    for position, node in enumerate(nodes):
        if type(node) is not MemoryNode:
            check_node(node, f"nodes[{position}]")
        try:
            _put_memory(batch, node, reason, engine, dimension, latest, widths)
        except InvalidInputError as error:
            if error.argument == "reason":
                raise
            problem = str(error).removeprefix(f"{error.argument}: ")
            raise InvalidInputError(f"nodes[{position}].{error.argument}", problem) from None
        if dimension is None and node._embeddings is not None:
            dimension = node._embeddings.size
    if engine.has_spaces or any(node._vectors for node in nodes):
        source = latest()
        for node in {node._key: node for node in nodes}.values():  # given twice: the later counts
            put_vectors(batch, wanted_of(node, is_stored=is_stored_in(node, engine)), source)
    else:
        batch.knows_no_spaces = True
    return dimension


def _same_vector(source: Source, node: MemoryNode) -> int:
    """The number of the newest version's vector if the node's is the same, bit for bit."""
    record = cast(Record | None, source.get(MEMORY, node._key))
    if record is None or record.vector == NO_VECTOR or node._embeddings is None:
        return NO_VECTOR
    stored = source.vector(record.vector)
    if stored.tobytes() != node._embeddings.tobytes():
        return NO_VECTOR
    return record.vector


def delete_memory(batch: Batch, source: Source, key: bytes) -> bool:
    """Tombstone a memory, its vectors in named spaces, and all connections from it and to it. False
    if it is not there."""
    if source.get(MEMORY, key) is None:
        return False
    for edge in (*source.edges_from(key), *source.edges_to(key)):
        batch.delete_edge(edge.source, edge.target, edge.type)
    delete_vectors(batch, source, key)
    batch.delete(key)
    return True


def connect(
    batch: Batch,
    source: Source,
    ends: tuple[bytes, bytes],
    relationship_type: str,
    strength: float,
    attributes: Mapping[str, Any] | None,
) -> None:
    """Write a connection between two memories that are there, or raise MemoryNotFoundError."""
    for end in ends:
        if source.get(MEMORY, end) is None:
            raise MemoryNotFoundError(format_key(end))
    present = source.get(EDGE, edge_key(*ends, relationship_type))
    creation_us = now_us() if present is None else decode_edge(present.payload)[0]
    payload = encode_edge(creation_us, {} if attributes is None else attributes)
    batch.put_edge(*ends, relationship_type, strength, payload)


def disconnect(batch: Batch, edges: list[Edge]) -> bool:
    """Tombstone these connections. False if there are none."""
    for edge in edges:
        batch.delete_edge(edge.source, edge.target, edge.type)
    return bool(edges)


def edges_between(
    source: Source, ends: tuple[bytes, bytes], relationship_type: str | None
) -> list[Edge]:
    """The connections from one memory to another, of one type or of all."""
    if relationship_type is None:
        return [edge for edge in source.edges_between(*ends) if is_connection(edge.type)]
    found = source.get(EDGE, edge_key(*ends, relationship_type))
    return [] if found is None else [cast(Edge, found)]


def keeps_ends(batch: Batch, source: Source) -> bool:
    """Whether after this batch every connection that it concerns has both its ends."""
    operations = batch.operations
    for (record_class, key), operation in operations.items():
        if record_class == EDGE:
            if operation.kind == TOMBSTONE:
                continue
            for end in (operation.source, operation.target):
                written = operations.get((MEMORY, end))
                if written is None:
                    if source.get(MEMORY, end) is None:
                        return False
                elif written.kind == TOMBSTONE:
                    return False
        elif record_class == MEMORY and operation.kind == TOMBSTONE:
            for edge in (*source.edges_from(key), *source.edges_to(key)):
                written = operations.get((EDGE, edge.key))
                if written is None or written.kind == PUT:
                    return False
            if not are_gone(batch, source, key):
                return False
    return True
