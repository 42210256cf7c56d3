"""How answers of the database are compared with those of the oracle."""

from __future__ import annotations

from typing import Any

import pytest

import engramdb
from tests.model.oracle import Edge, Memory, Oracle


def memory_of(node: engramdb.MemoryNode) -> Memory:
    vector = None if node.embeddings is None else tuple(node.embeddings.tolist())
    return Memory(node.creation_timestamp, dict(node.attributes), vector)


def edge_of(connection: engramdb.Connection) -> Edge:
    return Edge(connection.creation_timestamp, connection.strength, dict(connection.attributes))


def ends_of(connection: engramdb.Connection) -> tuple[str, str, str]:
    return connection.source_id, connection.target_id, connection.relationship_type


def same(one: Any, other: Any) -> bool:
    """Equal, and of equal types all the way down."""
    return repr(one) == repr(other) if not isinstance(one, dict) else _same_dict(one, other)


def _same_dict(one: dict[Any, Any], other: Any) -> bool:
    return (
        isinstance(other, dict)
        and one.keys() == other.keys()
        and all(same(one[key], other[key]) for key in one)
    )


def assert_same_hits(hits: list[tuple[str, float]], expected: list[tuple[str, float]]) -> None:
    assert [hit[0] for hit in hits] == [hit[0] for hit in expected]
    assert [hit[1] for hit in hits] == pytest.approx([hit[1] for hit in expected], abs=1e-9)


def assert_same_state(reading: Any, oracle: Oracle, seq: int | None) -> None:
    memories, edges = oracle.memories(seq), oracle.edges(seq)
    ids = reading.list_all()
    assert ids == sorted(memories) and len(reading) == len(memories)
    assert same({each: memory_of(reading.load(each)) for each in ids}, memories)
    outgoing = [each for memory_id in ids for each in reading.get_connections(memory_id)]
    incoming = [each for memory_id in ids for each in reading.get_connected_to(memory_id)]
    assert same({ends_of(each): edge_of(each) for each in outgoing}, edges)
    assert sorted(map(ends_of, incoming)) == sorted(edges)
