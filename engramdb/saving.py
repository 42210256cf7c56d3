"""Every write of memories and connections. What goes into a batch is in engramdb.writing."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeVar, cast

from engramdb.carried import (
    Wanted,
    carried,
    gets_no_vectors,
    mind_others,
    put_vectors,
    wanted_of,
)
from engramdb.columns import Attributes, column_batch
from engramdb.lsm import ColumnBatch
from engramdb.lsm.keys import to_list
from engramdb.lsm.records import EDGE, MEMORY, Batch, Edge, GuardFailed
from engramdb.lsm.snapshot import Snapshot
from engramdb.model.identifiers import format_key, format_keys, parse_id
from engramdb.model.memory_node import MemoryNode
from engramdb.model.relationship import check_relationship_type, check_strength
from engramdb.query.arguments import check_node, check_nodes, check_seq, check_sync
from engramdb.reading import Reading
from engramdb.writing import (
    connect,
    delete_memory,
    disconnect,
    edges_between,
    keeps_ends,
    put_node,
    put_nodes,
)

T = TypeVar("T")

_RETRY_S: Final = 0.0002  # what made a guard fail becomes visible once it is synced


class Saving(Reading):
    """The writes of a database. Each is one atomic commit; `sync` says when it returns.

    sync    True: when the commit is on the disk; False: at once; None: as the database's
            durability says
    """

    def save(
        self,
        node: MemoryNode,
        *,
        reason: str | None = None,
        sync: bool | None = None,
        expected_seq: int | None = None,
    ) -> str:
        """Save a memory: a new version, a temporal layer of its own. Returns the id.

        reason        kept with the version, shown by history()
        sync          see above
        expected_seq  ConflictError unless the newest version is of that commit (0: unless there
                      is none)

        Raises InvalidInputError naming the argument; then nothing is written.
        """
        if type(node) is not MemoryNode:
            node = check_node(node)
        if sync is not None:
            check_sync(sync)
        engine, batch = self._engine, Batch()
        seen_seq = engine.last_seq if node._vectors or engine.has_spaces else 0
        put_node(batch, node, reason, engine, engine.dimension, engine.latest)
        key = node._key
        if expected_seq is not None:
            batch.expect[MEMORY, key] = check_seq(expected_seq, "expected_seq")
        if not batch.knows_no_spaces:
            mind_others(batch, [wanted_of(node, is_stored=False)], seen_seq)
        try:
            node._seq = engine.commit(batch, sync=sync).seq
        except GuardFailed:  # the first space with a name has come meanwhile
            return self.save(node, reason=reason, sync=sync, expected_seq=expected_seq)
        node._layers_loader = self._layers
        return format_key(key)

    def save_many(
        self,
        nodes: Iterable[MemoryNode],
        *,
        reason: str | None = None,
        sync: bool | None = None,
    ) -> list[str]:
        """Save memories in one atomic commit. Returns the ids, in the order given.

        Of a memory given twice the later one counts. Raises InvalidInputError naming nodes[i] and
        what of it is wrong; then nothing is written.
        """
        check_sync(sync)
        engine, batch, listed = self._engine, Batch(), check_nodes(nodes)
        seen_seq = engine.last_seq
        put_nodes(batch, listed, reason, engine, engine.dimension, engine.latest)
        if not listed:
            engine.check_open()
            return []
        if not batch.knows_no_spaces:
            newest = {node._key: node for node in listed}
            wanted = [wanted_of(node, is_stored=False) for node in newest.values()]
            mind_others(batch, wanted, seen_seq)
        try:
            seq, loader = engine.commit(batch, sync=sync).seq, self._layers
        except GuardFailed:  # the first space with a name has come meanwhile
            return self.save_many(listed, reason=reason, sync=sync)
        for node in listed:
            node._seq, node._layers_loader = seq, loader
        return format_keys([node._key for node in listed])

    def save_columns(
        self,
        ids: Iterable[str] | None = None,
        embeddings: object = None,
        attributes: Attributes | None = None,
        *,
        reason: str | None = None,
        sync: bool | None = None,
    ) -> list[str]:
        """Save many memories from whole arrays, in one atomic commit. Returns the ids.

        ids         UUIDs, each once; new ones if None
        embeddings  an (n, dimension) matrix of finite numbers; None: memories without vectors
        attributes  a list of n mappings, or a mapping of columns: lists or one-dimensional arrays
        reason      kept with each version

        All of them are created now. Raises InvalidInputError naming the argument and the row; then
        nothing is written.
        """
        check_sync(sync)
        engine = self._engine
        engine.check_open()
        batch, keys = column_batch(ids, embeddings, attributes, reason, engine.dimension)
        while keys:
            seen_seq = engine.last_seq
            if ids is not None and engine.has_spaces and self._replaced(batch, keys, sync):
                break
            if ids is not None:
                batch.guards = [gets_no_vectors(keys, seen_seq)]
            try:
                engine.commit_columns(batch, sync=sync)
                break
            except GuardFailed:
                time.sleep(_RETRY_S)
        return format_keys(keys)

    def _replaced(self, columns: ColumnBatch, keys: list[bytes], sync: bool | None) -> bool:
        """Save memories some of which have vectors in named spaces, which they lose. False, and
        nothing is written, if none has."""
        latest = self._engine.latest()
        if not any(carried(latest, key) for key in keys):
            return False
        batch, wanted = columns.as_batch(), [Wanted(key, {}, {}) for key in keys]
        for each in wanted:
            put_vectors(batch, each, latest)
        mind_others(batch, wanted, latest.seq)
        self._engine.commit(batch, sync=sync)
        return True

    def delete(self, memory_id: str, *, sync: bool | None = None) -> bool:
        """Delete a memory and every connection from it and to it, in one commit.

        Its history stays: restore() brings back the memory, undo() of the commit brings back its
        connections too. Returns False if there is no such memory. Raises InvalidInputError if the
        id is not a UUID.
        """
        key = parse_id(memory_id)

        def build(snapshot: Snapshot, batch: Batch) -> bool:
            batch.guards.append(
                lambda now: now.get(MEMORY, key) is not None and keeps_ends(batch, now)
            )
            return delete_memory(batch, snapshot, key)

        return self._write(build, sync)

    def clear_all(self, *, sync: bool | None = None) -> int:
        """Delete all memories and all connections, in one commit. Their history stays.

        Returns how many memories were deleted.
        """
        everything, seen = Batch(), -1

        def catch_up(snapshot: Snapshot) -> None:
            nonlocal seen  # a second look is only at what was written since the first
            for record_class in (MEMORY, EDGE):
                for key in _written_since(snapshot, record_class, seen):
                    _clear(everything, snapshot, record_class, key)
            seen = snapshot.seq

        def build(snapshot: Snapshot, batch: Batch) -> None:
            catch_up(snapshot)
            batch.operations = everything.operations
            batch.guards.append(lambda now: not _anything_since(now, seen))
            batch.rebuild = catch_up  # to start anew, writers who go on would starve it

        self._write(build, sync)
        return sum(record_class == MEMORY for record_class, _ in everything.operations)

    def connect(
        self,
        source_id: str,
        target_id: str,
        relationship_type: str = "Association",
        strength: float = 1.0,
        attributes: Mapping[str, Any] | None = None,
        *,
        sync: bool | None = None,
    ) -> None:
        """Connect two memories, from source to target.

        relationship_type  a RelationshipType or any text of at most 256 bytes
        strength           from 0 to 1
        attributes         as those of a memory

        Between two memories there is at most one connection of each type and direction: connecting
        again writes a new version of it, whose creation time stays. Raises MemoryNotFoundError if
        one of them is not there, InvalidInputError naming the argument.
        """
        ends = parse_id(source_id, "source_id"), parse_id(target_id, "target_id")
        relationship_type = check_relationship_type(relationship_type)
        strength = check_strength(strength)

        def build(snapshot: Snapshot, batch: Batch) -> None:
            connect(batch, snapshot, ends, relationship_type, strength, attributes)
            batch.guards.append(lambda now: keeps_ends(batch, now))

        self._write(build, sync)

    def disconnect(
        self,
        source_id: str,
        target_id: str,
        relationship_type: str | None = None,
        *,
        sync: bool | None = None,
    ) -> bool:
        """Remove the connection of one type from source to target, or those of all types.

        Returns whether there was one. Raises InvalidInputError naming the argument.
        """
        ends = parse_id(source_id, "source_id"), parse_id(target_id, "target_id")
        if relationship_type is not None:
            relationship_type = check_relationship_type(relationship_type)

        def build(snapshot: Snapshot, batch: Batch) -> bool:
            edges = edges_between(snapshot, ends, relationship_type)
            keys = [edge.key for edge in edges]
            batch.guards.append(
                lambda now: [e.key for e in edges_between(now, ends, relationship_type)] == keys
            )
            return disconnect(batch, edges)

        return self._write(build, sync)

    def _write(self, build: Callable[[Snapshot, Batch], T], sync: bool | None) -> T:
        """Commit what `build` makes of the present; again, if others have just changed it."""
        engine = self._engine
        check_sync(sync)
        while True:
            batch = Batch()
            result = build(engine.latest(), batch)
            if not batch.operations:
                return result
            try:
                engine.commit(batch, sync=sync)
            except GuardFailed:
                time.sleep(_RETRY_S)
            else:
                return result


def _written_since(snapshot: Snapshot, record_class: int, seq: int) -> list[bytes]:
    """The keys that may have changed since a commit; all of them for a negative one."""
    if seq >= 0:
        return snapshot.touched(record_class, seq)
    return [key for rows in snapshot.scan(record_class) for key in to_list(rows.keys)]


def _anything_since(snapshot: Snapshot, seq: int) -> bool:
    return any(snapshot.touched(record_class, seq) for record_class in (MEMORY, EDGE))


def _clear(batch: Batch, snapshot: Snapshot, record_class: int, key: bytes) -> None:
    """Have the batch delete a record, or leave it alone if it is gone already."""
    found = snapshot.get(record_class, key)
    if found is None:
        batch.operations.pop((record_class, key), None)
    elif record_class == EDGE:
        edge = cast(Edge, found)
        batch.delete_edge(edge.source, edge.target, edge.type)
    else:
        batch.delete(key)
