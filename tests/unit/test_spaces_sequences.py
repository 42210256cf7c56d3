"""Any sequence of saves, deletes, undos, merges and reopenings, with vectors in two named spaces,
answers as a list of states would."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engramdb import Database, DatabaseConfig, MemoryNode
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.model.identifiers import format_key
from tests.unit.lsm_support import key

WIDTHS = {"title": 2, "tokens": 3}
IDS = [format_key(key(number)) for number in range(4)]
CONFIG = DatabaseConfig(storage_dir="/db", background=False, memtable_bytes=8192)

Named = dict[str, Any]
State = dict[str, tuple[Any, Named]]
"""Of each memory its vector and those in named spaces, as lists."""

number = st.sampled_from([0.0, 1.0, -1.0, 0.5, 2.0])


def row(width: int) -> st.SearchStrategy[list[float]]:
    return st.lists(number, min_size=width, max_size=width)


change = st.fixed_dictionaries(
    {},
    optional={
        "title": st.one_of(st.none(), row(2)),
        "tokens": st.one_of(st.none(), row(3), st.lists(row(3), min_size=1, max_size=3)),
    },
)
step = st.one_of(
    st.tuples(st.just("save"), st.sampled_from(IDS), change, st.one_of(st.none(), row(2))),
    st.tuples(st.just("save"), st.sampled_from(IDS), change, st.one_of(st.none(), row(2))),
    st.tuples(st.just("fresh"), st.sampled_from(IDS), change),
    st.tuples(st.just("together"), st.lists(st.tuples(st.sampled_from(IDS), change), max_size=4)),
    st.tuples(st.just("in a transaction"), st.sampled_from(IDS), change, change),
    st.tuples(st.just("delete"), st.sampled_from(IDS)),
    st.tuples(st.just("restore"), st.sampled_from(IDS), st.integers(0, 30)),
    st.tuples(st.just("undo"), st.integers(1, 3)),
    st.tuples(st.sampled_from(["flush", "compact", "reopen", "kill"])),
)


class Pair:
    """A database and the list of its states, by commit."""

    def __init__(self) -> None:
        self.disk = SimulatedDisk()
        self.db = Database(CONFIG, environment=self.disk)
        self.states: list[State] = [{}]

    def run(self, what: str, *arguments: Any) -> None:
        before = self.db.last_seq
        state = dict(self.states[-1])
        getattr(self, "do_" + what.replace(" ", "_"))(state, *arguments)
        assert self.db.last_seq - before in (0, 1)
        if self.db.last_seq > before:
            self.states.append(state)
        self.check(len(self.states) - 1)
        self.check(len(what) * 7 % len(self.states))

    def _changed(self, reader: Any, memory_id: str, changes: Named) -> MemoryNode:
        node: MemoryNode = reader.get(memory_id) or MemoryNode(id=memory_id)
        for name, values in changes.items():
            node.set_vector(name, values)
        return node

    @staticmethod
    def _after(state: State, memory_id: str, changes: Named) -> tuple[Any, Named]:
        embeddings, named = state.get(memory_id, (None, {}))
        merged = {**named, **changes}
        return embeddings, {name: values for name, values in merged.items() if values is not None}

    def do_save(self, state: State, memory_id: str, changes: Named, embeddings: Any) -> None:
        node = self._changed(self.db, memory_id, changes)
        node.embeddings = embeddings
        self.db.save(node)
        state[memory_id] = (embeddings, self._after(state, memory_id, changes)[1])

    def do_fresh(self, state: State, memory_id: str, changes: Named) -> None:
        named = {name: values for name, values in changes.items() if values is not None}
        self.db.save(MemoryNode(id=memory_id, vectors=named))
        state[memory_id] = (None, named)

    def do_together(self, state: State, several: list[tuple[str, Named]]) -> None:
        self.db.save_many([self._changed(self.db, *each) for each in several])
        before = dict(state)
        for memory_id, changes in several:
            state[memory_id] = self._after(before, memory_id, changes)

    def do_in_a_transaction(self, state: State, memory_id: str, one: Named, two: Named) -> None:
        with self.db.transaction() as tx:
            tx.save(self._changed(tx, memory_id, one))
            state[memory_id] = self._after(state, memory_id, one)
            assert named_of(tx.load(memory_id)) == state[memory_id][1]
            tx.save(self._changed(tx, memory_id, two))
            state[memory_id] = self._after(state, memory_id, two)
            assert named_of(tx.load(memory_id)) == state[memory_id][1]

    def do_delete(self, state: State, memory_id: str) -> None:
        assert self.db.delete(memory_id) == (state.pop(memory_id, None) is not None)

    def do_restore(self, state: State, memory_id: str, seq: int) -> None:
        then = self.states[min(seq, len(self.states) - 1)]
        if memory_id in then:
            self.db.restore(memory_id, min(seq, len(self.states) - 1))
            state[memory_id] = then[memory_id]

    def do_undo(self, state: State, count: int) -> None:
        if count < len(self.states):
            self.db.undo(count)
            state.clear()
            state.update(self.states[-1 - count])

    def do_flush(self, _: State) -> None:
        self.db.flush()

    def do_compact(self, _: State) -> None:
        self.db.compact()

    def do_reopen(self, _: State) -> None:
        self.db.close()
        self.db = Database(CONFIG, environment=self.disk)

    def do_kill(self, _: State) -> None:
        self.disk = self.disk.crash()
        self.db = Database(CONFIG, environment=self.disk)

    def check(self, seq: int) -> None:
        """Everything as of a commit, by every way to it."""
        expected = self.states[seq]
        with self.db.as_of(seq) as past:
            assert past.list_all() == sorted(expected)
            for memory_id, (embeddings, named) in expected.items():
                node = past.load(memory_id)
                assert named_of(node) == named
                have = None if node.embeddings is None else node.embeddings.tolist()
                assert have == embeddings
            for name, width in WIDTHS.items():
                if name in self.db.spaces:
                    hits = past.search_similar(np.eye(width), 99, -1.0, space=name)
                    assert {each for each, _ in hits} == {
                        memory_id for memory_id, (_, named) in expected.items() if name in named
                    }
                    for each, score in hits:
                        assert abs(score - maxsim(expected[each][1][name], width)) < 1e-9


def named_of(node: MemoryNode) -> Named:
    return {name: values.tolist() for name, values in node.vectors.items()}


def maxsim(rows: Any, width: int) -> float:
    """The mean of the best cosines with the unit vectors."""
    matrix = np.array(rows, np.float64).reshape(-1, width)
    lengths = np.sqrt((matrix * matrix).sum(axis=1, keepdims=True))
    cosines = np.divide(matrix, lengths, out=np.zeros_like(matrix), where=lengths > 0)
    return float(cosines.max(axis=0).mean())


@settings(
    deadline=None,
    max_examples=40,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(step, min_size=1, max_size=25))
def test_any_sequence(steps: list[tuple[Any, ...]]) -> None:
    pair = Pair()
    for each in steps:
        pair.run(*each)
    assert pair.db.verify().ok
    for memory_id in IDS:
        layers = pair.db.history(memory_id)
        for layer in layers:
            state = pair.states[layer.seq]
            named = {name: values.tolist() for name, values in layer.vectors.items()}
            assert named == (state[memory_id][1] if not layer.deleted else {})
    pair.db.close()
