"""What differs between two moments: memories, their attributes, their connections."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Any, Final, cast

from engramdb.carried import changed_spaces
from engramdb.lsm.records import EDGE, MEMORY, NO_VECTOR, Edge, Record, is_connection
from engramdb.lsm.snapshot import Snapshot
from engramdb.model.attributes import decode_memory
from engramdb.model.connection import Connection
from engramdb.model.identifiers import format_key
from engramdb.reading import connection_of


class Missing(enum.Enum):
    """Stands for the value of an attribute that is not there; None is a value."""

    MISSING = "missing"

    def __repr__(self) -> str:
        return "MISSING"

    def __bool__(self) -> bool:
        return False


MISSING: Final = Missing.MISSING


@dataclass(frozen=True, slots=True)
class AttributeChange:
    """One attribute at both moments; MISSING where it is not there."""

    old: Any
    new: Any


@dataclass(frozen=True, slots=True)
class MemoryChange:
    """A memory that is there at both moments, and not the same."""

    id: str
    attributes: dict[str, AttributeChange]
    embeddings_changed: bool
    validity_changed: bool = False  # valid_from or valid_to
    vectors_changed: tuple[str, ...] = ()  # the named spaces, sorted


@dataclass(frozen=True, slots=True)
class ConnectionChange:
    """A connection that is there at both moments, and not the same."""

    old: Connection
    new: Connection


@dataclass(frozen=True, slots=True)
class ConnectionDifference:
    """Connections by what became of them, sorted by source, target and type."""

    added: list[Connection]
    removed: list[Connection]
    changed: list[ConnectionChange]

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed)


@dataclass(frozen=True, slots=True)
class Difference:
    """What diff() returns; false if nothing differs. Ids are sorted."""

    added: list[str]
    removed: list[str]
    changed: list[MemoryChange]
    connections: ConnectionDifference

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.connections)


def compare(before: Snapshot, after: Snapshot) -> Difference:
    """What became of `before` in `after`, whichever of them is the earlier moment."""
    early, late = (before, after) if before.seq <= after.seq else (after, before)
    difference = Difference([], [], [], _compare_edges(before, after, early, late))
    for key in sorted(late.touched(MEMORY, early.seq)):
        old = cast(Record | None, before.get(MEMORY, key))
        new = cast(Record | None, after.get(MEMORY, key))
        if old is None:
            if new is not None:
                difference.added.append(format_key(key))
        elif new is None:
            difference.removed.append(format_key(key))
        else:
            was, is_ = decode_memory(old.payload), decode_memory(new.payload)
            attributes = _compare_attributes(was.attributes, is_.attributes)
            embeddings_changed = not _same_vector(before, old, after, new)
            validity_changed = was.validity != is_.validity
            vectors_changed = changed_spaces(before, was.spaces or {}, after, is_.spaces or {}, key)
            change = MemoryChange(
                format_key(key), attributes, embeddings_changed, validity_changed, vectors_changed
            )
            if attributes or embeddings_changed or validity_changed or vectors_changed:
                difference.changed.append(change)
    return difference


def _compare_edges(
    before: Snapshot, after: Snapshot, early: Snapshot, late: Snapshot
) -> ConnectionDifference:
    difference = ConnectionDifference([], [], [])
    for key in late.touched(EDGE, early.seq):
        old, new = before.get(EDGE, key), after.get(EDGE, key)
        if not all(is_connection(cast(Edge, each).type) for each in (old, new) if each is not None):
            continue
        was = None if old is None else connection_of(cast(Edge, old))
        is_ = None if new is None else connection_of(cast(Edge, new))
        if was is None:
            if is_ is not None:
                difference.added.append(is_)
        elif is_ is None:
            difference.removed.append(was)
        elif (
            was.strength != is_.strength
            or was.creation_timestamp != is_.creation_timestamp
            or not same_value(was.attributes, is_.attributes)
        ):
            difference.changed.append(ConnectionChange(was, is_))
    difference.added.sort(key=_name)
    difference.removed.sort(key=_name)
    difference.changed.sort(key=lambda change: _name(change.new))
    return difference


def _name(connection: Connection) -> tuple[str, str, str]:
    return connection.source_id, connection.target_id, connection.relationship_type


def _compare_attributes(was: dict[str, Any], is_: dict[str, Any]) -> dict[str, AttributeChange]:
    changes = {}
    for name in was | is_:
        before, after = was.get(name, MISSING), is_.get(name, MISSING)
        if not same_value(before, after):
            changes[name] = AttributeChange(before, after)
    return changes


def _same_vector(before: Snapshot, old: Record, after: Snapshot, new: Record) -> bool:
    if old.vector == new.vector:
        return True
    if NO_VECTOR in (old.vector, new.vector):
        return False
    one, other = before.vector(old.vector), after.vector(new.vector)
    return one.tobytes() == other.tobytes()  # bit for bit, -0.0 too


def same_value(one: Any, other: Any) -> bool:
    """Whether two attribute values are the same, of the same type: 1, 1.0 and True are three."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same_value(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same_value, one, other))
    if isinstance(one, float):
        return bool(one.hex() == other.hex())  # 0.0 and -0.0 are two
    return bool(one == other)
