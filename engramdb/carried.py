"""Vectors in named spaces: what a save writes of them, and what a read finds.

The engine keeps each row as an edge from the memory to itself (engramdb.lsm.records). The payload
of a memory says which spaces it is in and with how many rows, so that loading one that is in none
looks for nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from functools import partial
from operator import itemgetter
from typing import NamedTuple, cast

from engramdb.errors import InvalidInputError
from engramdb.lsm.records import (
    EDGE,
    MEMORY,
    NO_VECTOR,
    TOMBSTONE,
    Batch,
    Edge,
    edge_key,
    place_of,
    vector_type,
)
from engramdb.lsm.snapshot import Snapshot
from engramdb.model.memory_node import MemoryNode
from engramdb.model.vectors import Vector
from engramdb.query.source import Source

Vectors = Mapping[str, Vector]


class Wanted(NamedTuple):
    """What a memory is to have in named spaces. `known`: vector numbers that are the same bit for
    bit, by space."""

    key: bytes
    vectors: Vectors
    known: Mapping[str, tuple[int, ...]]


def wanted_of(node: MemoryNode, *, is_stored: bool) -> Wanted:
    """What a node has; only if it came from this database do its numbers mean anything."""
    return Wanted(node._key, node._vectors, node._carried if is_stored else {})


def rows_by_space(vectors: Vectors) -> dict[str, int]:
    """What the payload says of them: 0 for a single vector."""
    return {name: 0 if values.ndim == 1 else len(values) for name, values in vectors.items()}


def check_widths(vectors: Vectors, widths: dict[str, int]) -> None:
    """Raises InvalidInputError if a vector is longer or shorter than those of its space; notes the
    lengths of those that are the first of theirs."""
    for name, values in vectors.items():
        width = values.shape[-1]
        known = widths.setdefault(name, width)
        if width != known:
            raise InvalidInputError(
                f"vectors[{name!r}]",
                f"has {width} numbers, but the vectors of the space {name!r} have {known}",
            )


# Writing


def put_vectors(batch: Batch, wanted: Wanted, source: Source) -> None:
    """Write what `source` does not have of them yet, and remove what it has beyond them."""
    key, vectors, known = wanted
    there = _by_space(carried(source, key))
    for name, values in vectors.items():
        old = there.pop(name, {})
        rows = values.reshape(-1, values.shape[-1])
        if old.keys() == set(range(len(rows))) and _are_same(source, rows, old, known.get(name)):
            continue
        for slot, row in enumerate(rows):
            batch.put_vector(key, name, slot, row)
        for slot in old.keys() - range(len(rows)):
            batch.delete_vector(key, name, slot)
    for name, old in there.items():
        for slot in old:
            batch.delete_vector(key, name, slot)


def put_rows(batch: Batch, rows: Iterable[tuple[Edge, Vector]]) -> None:
    """Write old versions of edges that carry a vector anew: the rows of a memory in a space one
    after the other, so that they lie together."""
    placed = [(edge.source, place_of(edge.type), vector) for edge, vector in rows]
    for key, place, vector in sorted(placed, key=itemgetter(0, 1)):
        if place is not None:
            batch.put_vector(key, *place, vector)


def _are_same(
    source: Source, rows: Vector, old: Mapping[int, int], known: tuple[int, ...] | None
) -> bool:
    numbers = tuple(old[slot] for slot in range(len(rows)))
    return numbers == known or source.vectors(numbers).tobytes() == rows.tobytes()


def carried(source: Source, key: bytes) -> dict[str, int]:
    """As source.carried(), sooner for a memory that is not there."""
    return {} if source.get(MEMORY, key) is None else source.carried(key)


def forget(batch: Batch, keys: Container[bytes]) -> None:
    """Take what was to be written of these memories in named spaces out of a batch."""
    for name, operation in list(batch.operations.items()):
        if operation.owner in keys and place_of(operation.type) is not None:
            del batch.operations[name]


def mind_others(batch: Batch, everything: Sequence[Wanted], seen_seq: int) -> None:
    """If somebody has written one of these memories after `seen_seq`, by the time the commit gets
    its number: look again at what there is."""

    def unchanged(now: Snapshot) -> bool:
        found = (now.find(MEMORY, wanted.key) for wanted in everything)
        return all(record is None or record.seq <= seen_seq for record in found)

    def again(now: Snapshot) -> None:
        forget(batch, {wanted.key for wanted in everything})
        for wanted in everything:
            put_vectors(batch, wanted, now)

    batch.guards.append(unchanged)
    batch.rebuild = again


def gets_no_vectors(keys: Sequence[bytes], seen_seq: int) -> Callable[[Snapshot], bool]:
    """A guard for writes that know of no vectors of these memories in named spaces: whether nobody
    has given them any after `seen_seq`."""

    def guard(now: Snapshot) -> bool:
        touched = now.touched(EDGE, seen_seq)
        written = [cast(Edge, each) for each in map(partial(now.get, EDGE), touched) if each]
        owners = {edge.source for edge in written if place_of(edge.type) is not None}
        return not owners or owners.isdisjoint(keys)

    return guard


def delete_vectors(batch: Batch, source: Source, key: bytes) -> None:
    """Remove all that a memory has in named spaces."""
    for name in source.carried(key):
        batch.delete_edge(key, key, name)


def are_gone(batch: Batch, source: Source, key: bytes) -> bool:
    """Whether after this batch a memory has nothing in a named space."""
    for name in source.carried(key):
        written = batch.operations.get((EDGE, edge_key(key, key, name)))
        if written is None or written.kind != TOMBSTONE:
            return False
    return True


# Reading


def read_vectors(
    source: Source, key: bytes, spaces: Mapping[str, int]
) -> tuple[dict[str, Vector], dict[str, tuple[int, ...]]]:
    """The vectors of a memory whose payload says `spaces`, and their numbers."""
    there = _by_space(_carried(source, key, spaces))
    vectors: dict[str, Vector] = {}
    numbers: dict[str, tuple[int, ...]] = {}
    for name, rows in spaces.items():
        slots = there.get(name, {})
        numbers[name] = tuple(slots[slot] for slot in sorted(slots))
        if slots:  # else a repair has told of their loss
            values = source.vectors(numbers[name])
            vectors[name] = values if rows else values[0]
    return vectors, numbers


def _carried(source: Source, key: bytes, spaces: Mapping[str, int]) -> dict[str, int]:
    """As source.carried(); below the history floor, where only single records can be read, by
    them."""
    if not isinstance(source, Snapshot) or not source.partial:
        return source.carried(key)
    found = {}
    for name in _types(spaces):
        edge = cast(Edge | None, source.get(EDGE, edge_key(key, key, name)))
        if edge is not None:
            found[name] = edge.vector
    return found


def _types(spaces: Mapping[str, int]) -> list[str]:
    return [vector_type(name, slot) for name, rows in spaces.items() for slot in range(rows or 1)]


def _by_space(carried: Mapping[str, int]) -> dict[str, dict[int, int]]:
    """{space: {slot: number}} of {type: number}."""
    found: dict[str, dict[int, int]] = {}
    for name, number in carried.items():
        place = place_of(name)
        if place is not None and number != NO_VECTOR:
            found.setdefault(place[0], {})[place[1]] = number
    return found


class PastVectors:
    """The vectors of all versions of a memory, each read once."""

    def __init__(self, source: Source, key: bytes) -> None:
        self._source, self._key = source, key
        self._versions: dict[str, list[Edge]] = {}
        self._read: dict[tuple[bool, tuple[int, ...]], Vector] = {}

    def at(self, seq: int, spaces: Mapping[str, int] | None) -> dict[str, Vector]:
        """Those of the version of commit `seq`, whose payload says `spaces`."""
        vectors = {}
        for name, rows in (spaces or {}).items():
            found = [self._number(each, seq) for each in _types({name: rows})]
            numbers = tuple(number for number in found if number != NO_VECTOR)
            if numbers:
                known = (rows == 0, numbers)
                if known not in self._read:
                    values = self._source.vectors(numbers)
                    self._read[known] = values if rows else values[0]
                vectors[name] = self._read[known]
        return vectors

    def _number(self, name: str, seq: int) -> int:
        versions = self._versions.get(name)
        if versions is None:
            history = self._source.history(EDGE, edge_key(self._key, self._key, name))
            versions = self._versions[name] = cast(list[Edge], history)
        for edge in versions:
            if edge.seq <= seq < edge.superseded:
                return edge.vector
        return NO_VECTOR


def changed_spaces(
    before: Source, old: Mapping[str, int], after: Source, new: Mapping[str, int], key: bytes
) -> tuple[str, ...]:
    """The named spaces in which a memory has not the same at both moments, sorted."""
    if not old and not new:
        return ()
    was, numbers = read_vectors(before, key, old)
    is_, others = read_vectors(after, key, new)
    return tuple(
        name
        for name in sorted(was.keys() | is_.keys() | old.keys() | new.keys())
        if old.get(name) != new.get(name)
        or (numbers.get(name) != others.get(name) and not _equal(was.get(name), is_.get(name)))
    )


def _equal(one: Vector | None, other: Vector | None) -> bool:
    if one is None or other is None:
        return one is other
    return one.shape == other.shape and one.tobytes() == other.tobytes()  # bit for bit, -0.0 too
