"""A transaction: reads of one snapshot and of its own writes, and one commit at the end or none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any, Self

from engramdb.access.log import AccessLog
from engramdb.errors import ClosedError, ConflictError, ReadOnlyError
from engramdb.indexing.indexer import Indexer
from engramdb.lsm import StorageEngine
from engramdb.lsm.records import (
    MEMORY,
    NO_VECTOR,
    TOMBSTONE,
    Batch,
    GuardFailed,
    Record,
    is_connection,
)
from engramdb.lsm.snapshot import Snapshot
from engramdb.model.identifiers import parse_id
from engramdb.model.memory_node import LayersLoader, MemoryNode
from engramdb.model.moments import now_us
from engramdb.model.relationship import check_relationship_type, check_strength
from engramdb.overlay import UNSAVED, Overlay
from engramdb.query.arguments import check_node, check_nodes, check_seq
from engramdb.query.source import Source
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


class Transaction(Reading):
    """Made by `with db.transaction() as tx`. All or nothing.

    Every read sees the database as it was when the transaction began, and what the transaction has
    written since. At the end of the block everything is written as one commit, unless a memory or
    connection that was loaded, listed or written here has been changed by others meanwhile: then
    ConflictError is raised and nothing is written. What a search, a traversal, a query's count(),
    len() or list_all() saw is not held against others; what one found and the transaction then
    loaded is. An exception inside the block writes nothing. Belongs to one thread.
    """

    def __init__(
        self,
        engine: StorageEngine,
        layers_loader: LayersLoader,
        access: AccessLog | None = None,
        indexer: Indexer | None = None,
    ) -> None:
        self._engine = engine
        self._indexer = indexer
        self._access = access
        self._record_access = None if access is None else access.record
        self._layers_loader = layers_loader
        self._snapshot: Snapshot | None = None
        self._overlay: Overlay | None = None
        self._saved: list[MemoryNode] = []
        self._own_dimension: int | None = None
        self._own_widths: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self._snapshot is not None:
            raise ClosedError("a transaction is used once; call transaction() again")
        self._snapshot = self._engine.snapshot()
        self._overlay = Overlay(self._snapshot)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        overlay, snapshot = self._overlay, self._snapshot
        assert overlay is not None and snapshot is not None
        self._overlay = None
        try:
            if kind is None and overlay.operations:
                self._commit(overlay, snapshot)
        finally:
            snapshot.close()

    # Writes

    def save(
        self, node: MemoryNode, *, reason: str | None = None, expected_seq: int | None = None
    ) -> str:
        """Save a memory when the transaction ends; what it holds now is what will be saved.

        With `expected_seq`, ConflictError if its newest version, in the transaction's snapshot, is
        of another commit (0: there is none). Raises InvalidInputError. Returns the id.
        """
        node = check_node(node)
        overlay, snapshot = self._writable()
        batch, dimension, widths = Batch(), self._dimension, self._widths
        put_node(batch, node, reason, self._engine, dimension, lambda: snapshot, widths)
        if expected_seq is not None:
            check_seq(expected_seq, "expected_seq")
            newest = snapshot.newest_seq(MEMORY, node._key)
            if newest != expected_seq:
                raise ConflictError(
                    f"the newest version of {node.id} is of commit {newest}, "
                    f"not of {expected_seq}; load it again"
                )
            overlay.expect[MEMORY, node._key] = newest
        overlay.put_all(batch)
        self._own_widths = widths
        if dimension is None and node._embeddings is not None:
            self._own_dimension = node._embeddings.size
        self._saved.append(node)
        return node.id

    def save_many(self, nodes: Iterable[MemoryNode], *, reason: str | None = None) -> list[str]:
        """Save memories when the transaction ends. One bad node, and none of them is.

        Raises InvalidInputError naming it. Returns the ids.
        """
        overlay, snapshot = self._writable()
        batch, listed, widths = Batch(), check_nodes(nodes), self._widths
        self._own_dimension = put_nodes(
            batch, listed, reason, self._engine, self._dimension, lambda: snapshot, widths
        )
        overlay.put_all(batch)
        self._own_widths = widths
        self._saved += listed
        return [node.id for node in listed]

    def delete(self, memory_id: str) -> bool:
        """Delete a memory and its connections when the transaction ends. False if it is not there.

        Raises InvalidInputError if the id is not a UUID.
        """
        key = parse_id(memory_id)
        overlay, _ = self._writable()
        self._loaded(key)
        return delete_memory(overlay, overlay, key)

    def connect(
        self,
        source_id: str,
        target_id: str,
        relationship_type: str = "Association",
        strength: float = 1.0,
        attributes: Mapping[str, Any] | None = None,
    ) -> None:
        """Connect two memories when the transaction ends; see Database.connect."""
        ends = parse_id(source_id, "source_id"), parse_id(target_id, "target_id")
        relationship_type = check_relationship_type(relationship_type)
        strength = check_strength(strength)
        overlay, _ = self._writable()
        connect(overlay, overlay, ends, relationship_type, strength, attributes)

    def disconnect(
        self, source_id: str, target_id: str, relationship_type: str | None = None
    ) -> bool:
        """Remove connections when the transaction ends; see Database.disconnect."""
        ends = parse_id(source_id, "source_id"), parse_id(target_id, "target_id")
        if relationship_type is not None:
            relationship_type = check_relationship_type(relationship_type)
        overlay, snapshot = self._writable()
        if relationship_type is None:
            seen = _between(snapshot, ends)
            overlay.guards.append(lambda now: _between(now, ends) == seen)
        return disconnect(overlay, edges_between(overlay, ends, relationship_type))

    def _writable(self) -> tuple[Overlay, Snapshot]:
        overlay = self._source()
        if self._engine.read_only:
            raise ReadOnlyError("the database was opened with read_only=True")
        assert self._snapshot is not None
        return overlay, self._snapshot

    # What the reads see

    def _source(self) -> Overlay:
        self._engine.check_open()
        if self._overlay is None:
            raise ClosedError("this transaction is over, or was not entered with `with`")
        return self._overlay

    def _now_us(self) -> int:
        return now_us()

    def _has_unsaved(self) -> bool:
        return True

    @property
    def _dimension(self) -> int | None:
        return self._own_dimension or self._engine.dimension  # others may have set another since

    @property
    def _widths(self) -> dict[str, int]:
        return self._engine.spaces | self._own_widths

    def _node(self, source: Source, record: Record) -> MemoryNode:
        if record.seq != UNSAVED:
            node = super()._node(source, record)
        else:
            node = super()._node(source, record._replace(vector=NO_VECTOR))
            node._embeddings = self._source().unsaved_vector(record.key)
        node._layers_loader = self._layers_loader  # works on when the transaction is over
        return node

    # What the commit will make sure of

    def _loaded(self, key: bytes) -> None:
        expect = self._source().expect
        if (MEMORY, key) not in expect:
            assert self._snapshot is not None
            expect[MEMORY, key] = self._snapshot.newest_seq(MEMORY, key)

    def _walked(self, key: bytes, *, incoming: bool) -> None:
        overlay = self._source()
        assert self._snapshot is not None
        seen = _versions(self._snapshot, key, incoming)
        overlay.guards.append(lambda now: _versions(now, key, incoming) == seen)

    def _commit(self, overlay: Overlay, snapshot: Snapshot) -> None:
        batch = Batch(expect=overlay.expect, guards=overlay.guards)
        for (record_class, key), operation in overlay.operations.items():
            newest = snapshot.newest_seq(record_class, key)
            batch.expect.setdefault((record_class, key), newest)
            if newest or operation.kind != TOMBSTONE:  # what came and went here leaves no trace
                batch.operations[record_class, key] = operation
        if not batch.operations:
            return
        batch.guards.append(lambda now: keeps_ends(batch, now))
        try:
            commit = self._engine.commit(batch)
        except GuardFailed:
            raise ConflictError(
                "connections that this transaction relied on have changed since it began; "
                "nothing was written: run it again"
            ) from None
        for node in self._saved:
            if (MEMORY, node._key) in batch.operations:
                node._seq, node._layers_loader = commit.seq, self._layers_loader


def _versions(source: Source, key: bytes, incoming: bool) -> set[tuple[bytes, int]]:
    edges = source.edges_to(key) if incoming else source.edges_from(key)
    return {(edge.key, edge.seq) for edge in edges if is_connection(edge.type)}


def _between(source: Source, ends: tuple[bytes, bytes]) -> set[tuple[bytes, int]]:
    return {(edge.key, edge.seq) for edge in edges_between(source, ends, None)}
