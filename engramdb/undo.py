"""Going back, forwards: undo and restore append commits that bring an earlier state back."""

from __future__ import annotations

from typing import cast

from engramdb.carried import Wanted, mind_others, put_rows, put_vectors, read_vectors
from engramdb.errors import ConflictError, InvalidInputError, MemoryNotFoundError
from engramdb.lsm import StorageEngine
from engramdb.lsm.records import (
    MEMORY,
    META,
    NO_VECTOR,
    TOMBSTONE,
    Batch,
    Edge,
    Record,
    Vector,
    space_of,
)
from engramdb.lsm.snapshot import Snapshot
from engramdb.model.attributes import decode_memory, encode_memory
from engramdb.model.identifiers import format_key
from engramdb.query.source import Source
from engramdb.writing import keeps_ends

Name = tuple[int, bytes]
"""A record: its class and its key."""


def inverse_of_last(engine: StorageEngine, count: int) -> Batch:
    """The batch that brings back the state before the last `count` commits."""
    now = engine.latest()
    if count > now.seq:
        raise InvalidInputError("n", f"there are only {now.seq} commits, {count} were asked for")
    commits = engine.changes(now.seq - count, now.seq)
    names = {(kind, key): None for each in commits for kind, key, _ in each.operations}
    reason = f"undo of commit {now.seq}"
    if count > 1:
        reason = f"undo of commits {now.seq - count + 1} to {now.seq}"
    return _inverse(engine, list(names), now.seq - count, now.seq, reason)


def inverse_of(engine: StorageEngine, seq: int) -> Batch:
    """The batch that brings back, for what commit `seq` wrote, the state before it.

    Raises ConflictError if something of it has a newer version.
    """
    newest_seq = engine.latest().seq
    if not 1 <= seq <= newest_seq:
        raise InvalidInputError(
            "commit", f"there is no commit {seq}; commits go from 1 to {newest_seq}"
        )
    commits = engine.changes(seq - 1, seq)
    names = [(kind, key) for each in commits for kind, key, _ in each.operations]
    return _inverse(engine, names, seq - 1, seq, f"undo of commit {seq}")


def _inverse(
    engine: StorageEngine, names: list[Name], before_seq: int, newest_seq: int, reason: str
) -> Batch:
    """For each record: its state as of `before_seq`, if it has no version after `newest_seq`."""
    before, now = engine.at(before_seq, partial=True), engine.latest()
    batch = Batch()
    carried: list[tuple[Edge, Vector]] = []
    for record_class, key in sorted(names):  # the same conflict is named however files are merged
        newest = None if record_class == META else now.find(record_class, key)
        if newest is None:  # bookkeeping, or purged since
            continue
        if newest.seq > newest_seq:
            raise ConflictError(
                f"{_show(newest)} was changed again by commit {newest.seq}; undo that one first"
            )
        gone = newest.kind == TOMBSTONE
        batch.expect[record_class, key] = 0 if gone else newest.seq
        old = before.get(record_class, key)
        if old is None:
            if not gone:
                _remove(batch, newest)
        elif isinstance(old, Edge) and old.vector != NO_VECTOR:
            carried.append((old, before.vector(old.vector)))
        elif isinstance(old, Edge):
            batch.put_edge(old.source, old.target, old.type, old.strength, old.payload)
        else:
            put_again(batch, before, old, reason)
    put_rows(batch, carried)
    batch.guards.append(lambda latest: keeps_ends(batch, latest))
    return batch


def _remove(batch: Batch, newest: Record | Edge) -> None:
    if isinstance(newest, Edge):
        batch.delete_edge(newest.source, newest.target, newest.type)
    else:
        batch.delete(newest.key)


def _show(newest: Record | Edge) -> str:
    if isinstance(newest, Edge):
        space = space_of(newest.type)
        if space is not None:
            return f"the vector of the memory {format_key(newest.source)} in the space {space!r}"
        return f"the connection from {format_key(newest.source)} to {format_key(newest.target)}"
    return f"the memory {format_key(newest.key)}"


def restored(
    source: Snapshot, key: bytes, moment: object, reason: str | None, latest: Snapshot
) -> Batch:
    """The batch that writes a memory anew as it is in `source`, over what there is in `latest`."""
    record = cast(Record | None, source.get(MEMORY, key))
    if record is None:
        raise MemoryNotFoundError(format_key(key), f" as of {moment}")
    batch = Batch()
    put_again(batch, source, record, reason)
    spaces = decode_memory(record.payload).spaces or {}
    wanted = Wanted(key, *read_vectors(source, key, spaces))
    put_vectors(batch, wanted, latest)
    mind_others(batch, [wanted], latest.seq)
    return batch


def put_again(batch: Batch, source: Source, record: Record, reason: str | None) -> None:
    """Write an old version anew. Its vector is not stored again if it need not be."""
    was = decode_memory(record.payload)
    payload = encode_memory(was.creation_us, reason, was.attributes, was.validity, was.spaces)
    if record.vector == NO_VECTOR:
        batch.put(record.key, payload)
    else:
        batch.put(record.key, payload, source.vector(record.vector), record.vector)
