"""Rules that write: each does it, then tells the oracle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule

import engramdb
from tests.model.checks import assert_same_hits, edge_of, memory_of, same
from tests.model.machine import TYPES, Machine, attributes, contents, syncs, values, vectors
from tests.model.oracle import Name, State, WouldConflict


class WriteRules(Machine):
    """Memories and connections, going back, and erasure."""

    @rule(content=contents, sync=syncs, reason=st.none() | st.just("because"))
    def save(self, content: tuple[Any, Any], sync: bool | None, reason: str | None) -> None:
        node = engramdb.MemoryNode(content[1], attributes=content[0])
        assert self.db.save(node, sync=sync, reason=reason, expected_seq=0) == node.id
        self.committed({("memory", node.id): memory_of(node)}, sync)

    @rule(data=st.data(), items=st.lists(contents, max_size=5), sync=syncs)
    def save_many(self, data: st.DataObject, items: list[Any], sync: bool | None) -> None:
        nodes = [
            engramdb.MemoryNode(
                vector,
                attributes=attributes,
                id=self.known(data) if data.draw(st.booleans()) else None,
            )
            for attributes, vector in items
        ]
        before = self.db.last_seq
        assert self.db.save_many(nodes, sync=sync) == [node.id for node in nodes]
        if nodes:
            self.committed({("memory", node.id): memory_of(node) for node in nodes}, sync)
        else:
            assert self.db.last_seq == before

    @rule(data=st.data(), rows=st.lists(st.tuples(attributes, vectors), min_size=1, max_size=20))
    def save_columns(self, data: st.DataObject, rows: list[Any]) -> None:
        ids = None
        if data.draw(st.booleans()):
            ids = list({self.known(data): None for _ in rows})
            rows = rows[: len(ids)]
        matrix = np.array([vector for _, vector in rows], np.float32)
        saved = self.db.save_columns(ids, matrix, [attributes for attributes, _ in rows])
        assert ids is None or saved == ids
        nodes = [self.db.load(memory_id) for memory_id in saved]
        for node, (content, vector) in zip(nodes, rows, strict=True):
            assert same(dict(node.attributes), content)
            assert tuple(node.embeddings.tolist()) == vector
        self.committed({("memory", node.id): memory_of(node) for node in nodes})

    @rule(data=st.data(), value=values, sync=syncs)
    def patch(self, data: st.DataObject, value: Any, sync: bool | None) -> None:
        """Save a loaded memory with its vector unchanged."""
        memory_id = self.known(data)
        node = self.db.get(memory_id)
        if node is None:
            return
        node.set_attribute("patched", value)
        newest = self.oracle.newest(("memory", memory_id))
        with pytest.raises(engramdb.ConflictError):
            self.db.save(node, expected_seq=newest - 1 if newest > 1 else newest + 1)
        self.db.save(node, sync=sync, expected_seq=newest)
        self.committed({("memory", memory_id): memory_of(node)}, sync)

    @rule(data=st.data(), sync=syncs)
    def delete(self, data: st.DataObject, sync: bool | None) -> None:
        memory_id = self.known(data)
        there = self.oracle.get(("memory", memory_id)) is not None
        assert self.db.delete(memory_id, sync=sync) is there
        if there:
            self.committed(self.oracle.deletion(memory_id), sync)

    @rule(really=st.integers(0, 9))
    def clear_all(self, really: int) -> None:
        if really:
            return
        memories, edges = self.oracle.memories(), self.oracle.edges()
        assert self.db.clear_all() == len(memories)
        changes: dict[Name, State] = {("memory", memory_id): None for memory_id in memories}
        changes |= {("edge", ends): None for ends in edges}
        if changes:
            self.committed(changes)

    @rule(
        data=st.data(),
        type_=st.sampled_from(TYPES),
        strength=st.floats(0, 1),
        attributes=attributes,
        sync=syncs,
    )
    def connect(
        self, data: st.DataObject, type_: str, strength: float, attributes: Any, sync: bool | None
    ) -> None:
        source, target = self.known(data), self.known(data)
        memories = self.oracle.memories()
        if source not in memories or target not in memories:
            with pytest.raises(engramdb.MemoryNotFoundError):
                self.db.connect(source, target, type_)
            return
        self.db.connect(source, target, type_, strength, attributes, sync=sync)
        name: Name = ("edge", (source, target, type_))
        (made,) = [
            each for each in self.db.get_connections(source, type_) if each.target_id == target
        ]
        before = self.oracle.get(name)
        if before is not None:
            assert made.creation_timestamp == before.creation
        assert made.strength == strength and same(dict(made.attributes), attributes)
        self.committed({name: edge_of(made)}, sync)

    @rule(data=st.data(), type_=st.none() | st.sampled_from(TYPES), sync=syncs)
    def disconnect(self, data: st.DataObject, type_: str | None, sync: bool | None) -> None:
        edges = sorted(self.oracle.edges())
        if edges:
            source, target, _ = data.draw(st.sampled_from(edges))
        else:
            source, target = self.known(data), self.known(data)
        gone = [ends for ends in edges if ends[:2] == (source, target) and type_ in (None, ends[2])]
        assert self.db.disconnect(source, target, type_, sync=sync) is bool(gone)
        if gone:
            self.committed({("edge", ends): None for ends in gone}, sync)

    @rule(data=st.data())
    def restore(self, data: st.DataObject) -> None:
        memory_id, seq = self.known(data), self.moment(data)
        state = self.oracle.get(("memory", memory_id), seq)
        with self.maybe_dropped(seq):
            if state is None:
                with pytest.raises(engramdb.MemoryNotFoundError):
                    self.db.restore(memory_id, seq)
            else:
                self.db.restore(memory_id, seq)
                self.committed({("memory", memory_id): state})

    @rule(data=st.data())
    def undo(self, data: st.DataObject) -> None:
        if self.oracle.seq == 0:
            with pytest.raises(engramdb.InvalidInputError):
                self.db.undo()
            return
        count = data.draw(st.integers(1, min(4, self.oracle.seq)))
        one = data.draw(st.booleans())
        until = self.moment(data) if one else self.oracle.seq
        until = max(until, count)
        since = until - 1 if one else until - count
        before = self.db.last_seq
        with self.maybe_dropped(since, commits=True):
            try:
                changes = self.oracle.inverse(since, until)
            except WouldConflict:
                with pytest.raises(engramdb.ConflictError):
                    self.db.undo(commit=until) if one else self.db.undo(count)
                return
            seq = self.db.undo(commit=until) if one else self.db.undo(count)
            assert seq == self.db.last_seq
            if changes:
                self.committed(changes)
            else:
                assert seq == before

    @rule(data=st.data(), items=st.lists(contents, max_size=3), fails=st.booleans())
    def transaction(self, data: st.DataObject, items: list[Any], fails: bool) -> None:
        changes: dict[Name, State] = {}
        before = self.db.last_seq
        doomed, patched = self.known(data), self.known(data)
        try:
            with self.db.transaction() as tx:
                for attributes, vector in items:
                    node = engramdb.MemoryNode(vector, attributes=attributes)
                    tx.save(node)
                    changes["memory", node.id] = memory_of(node)
                there = self.oracle.get(("memory", doomed)) is not None
                assert tx.delete(doomed) is there
                if there:
                    changes |= self.oracle.deletion(doomed)
                loaded = tx.get(patched)
                if loaded is not None:
                    loaded.set_attribute("patched", "in a transaction")
                    tx.save(loaded)
                    changes["memory", patched] = memory_of(loaded)
                seen = {memory_id: memory_of(tx.load(memory_id)) for memory_id in tx.list_all()}
                expected = self.oracle.copy()
                expected.commit(before + 1, changes)
                assert same(seen, expected.memories()) and len(tx) == len(seen)
                query = (1.0, -1.0, 2.0)
                assert_same_hits(tx.search_similar(query, 5, -1.0), expected.search(query, 5, -1.0))
                if fails:
                    raise KeyError("the caller changed its mind")
        except KeyError:
            assert self.db.last_seq == before
            return
        if changes:
            self.committed(changes)
        else:
            assert self.db.last_seq == before

    @rule(data=st.data())
    def purge(self, data: st.DataObject) -> None:
        memory_id = self.known(data)
        self.let_go()
        self.db.purge(memory_id)
        self.oracle.purge(memory_id)
        assert self.db.get(memory_id) is None
        assert self.db.history(memory_id) == []
        self.oracle.seq = self.durable_seq = self.db.last_seq
