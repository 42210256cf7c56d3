"""Any sequence of writes gives the graph that plain dicts give, now and as of every commit."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb import ConflictError, Database, DatabaseConfig, MemoryNode
from engramdb.lsm import edge_index
from tests.unit.graph_support import PlainGraph

# some share one half of their key with others, and some sort against the order of their making
IDS = [
    str(uuid.UUID(int=high << 64 | low))
    for high, low in ((1, 5), (1, 2**64 - 1), (2**64 - 1, 0), (3, 7), (3, 0), (2, 7), (0, 1))
]
TYPES = ["x", "y", "z"]
STRENGTHS = [0.0, 0.25, 0.5, 1.0]  # sums and products of these are exact

memory = st.sampled_from(IDS)
write = st.one_of(
    st.tuples(
        st.just("connect"), memory, memory, st.sampled_from(TYPES), st.sampled_from(STRENGTHS)
    ),
    st.tuples(
        st.just("connect"), memory, memory, st.sampled_from(TYPES), st.sampled_from(STRENGTHS)
    ),
    st.tuples(
        st.just("connect"), memory, memory, st.sampled_from(TYPES), st.sampled_from(STRENGTHS)
    ),
    st.tuples(st.just("disconnect"), memory, memory, st.sampled_from([None, *TYPES])),
    st.tuples(st.just("save"), memory),
    st.tuples(st.just("delete"), memory),
)
rule = st.fixed_dictionaries(
    {
        "types": st.sampled_from([None, ["x"], ["x", "z"], []]),
        "min_strength": st.sampled_from([0.0, 0.25, 1.0]),
        "direction": st.sampled_from(["outgoing", "incoming", "both"]),
    }
)
action = st.one_of(
    write,
    write,
    write,
    st.tuples(st.just("undo"), st.integers(1, 2)),
    st.tuples(st.sampled_from(["flush", "compact"])),
    st.tuples(st.just("transaction"), st.lists(write, max_size=6), rule),
)


class Pair:
    """A database and the plain graph after each of its commits."""

    def __init__(self) -> None:
        self.db = Database(DatabaseConfig(use_memory_storage=True, background=False))
        self.db.save_many([MemoryNode(id=each) for each in IDS])
        self.states = {0: PlainGraph(), self.db.last_seq: PlainGraph(IDS)}

    @property
    def now(self) -> PlainGraph:
        return self.states[self.db.last_seq]

    def do(self, name: str, *arguments: Any) -> None:
        graph, seq = self.now.copy(), self.db.last_seq
        if name == "transaction":
            self.transaction(graph, *arguments)
        elif name == "undo":
            graph = self.undo(seq, *arguments)
        elif name in ("flush", "compact"):
            getattr(self.db, name)()
        else:
            apply(self.db, graph, name, *arguments)
        assert self.db.last_seq - seq <= 1
        if self.db.last_seq == seq:
            assert graph.edges == self.states[seq].edges
        self.states[self.db.last_seq] = graph

    def undo(self, seq: int, count: int) -> PlainGraph:
        """The state before the last commits; of the very first one there is no connection."""
        if seq - count < 1:
            return self.now
        try:
            self.db.undo(count)
        except ConflictError as error:
            raise AssertionError("nobody else has written") from error
        return self.states[seq - count].copy()

    def transaction(self, graph: PlainGraph, writes: list[Any], how: dict[str, Any]) -> None:
        with self.db.transaction() as tx:
            for each in writes:
                apply(tx, graph, *each)
                compare(tx, graph, how, IDS[0], IDS[1])


def apply(to: Any, graph: PlainGraph, name: str, *arguments: Any) -> None:
    """One write, to both."""
    if name == "connect":
        source, target, kind, strength = arguments
        if {source, target} <= graph.memories:
            to.connect(source, target, kind, strength)
            graph.edges[source, target, kind] = strength
    elif name == "disconnect":
        source, target, kind = arguments
        gone = [
            each for each in graph.edges if each[:2] == (source, target) and kind in (None, each[2])
        ]
        assert to.disconnect(source, target, kind) == bool(gone)
        for each in gone:
            del graph.edges[each]
    elif name == "delete":
        assert to.delete(arguments[0]) == (arguments[0] in graph.memories)
        graph.delete(arguments[0])
    else:
        to.save(MemoryNode(id=arguments[0]))
        graph.memories.add(arguments[0])


def compare(reader: Any, graph: PlainGraph, how: dict[str, Any], one: str, other: str) -> None:
    """Everything that can be asked, of both."""
    for each in IDS:
        out = {
            (c.source_id, c.target_id, c.relationship_type): c.strength
            for c in reader.get_connections(each)
        }
        back = {
            (c.source_id, c.target_id, c.relationship_type): c.strength
            for c in reader.get_connected_to(each)
        }
        assert out == {n: s for n, s in graph.edges.items() if n[0] == each}
        assert back == {n: s for n, s in graph.edges.items() if n[1] == each}
    asked = {
        "relationship_type": how["types"],
        "min_strength": how["min_strength"],
        "direction": how["direction"],
    }
    there = [each for each in (one, other) if each in graph.memories]
    for hops in (1, 2, 50):
        assert reader.traverse(there, hops, **asked) == graph.traverse(there, hops, **how)
    if len(there) == 2:
        for most in (None, 1, 3):
            path = reader.shortest_path(one, other, max_hops=most, **asked)
            assert path == graph.shortest_path(one, other, most, **how)
    seeds = dict(zip(there, (1.0, 0.5), strict=False))
    found = reader.spread_activation(seeds, max_hops=4, min_activation=0.0625, **asked)
    assert dict(found) == graph.activation(seeds, 0.5, 4, 0.0625, **how)
    assert found == sorted(found, key=lambda pair: (-pair[1], pair[0]))


@pytest.mark.parametrize("tail", [0, 4, edge_index.TAIL_MIN])
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_it_is_the_graph_of_plain_dicts(tail: int, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_index, "TAIL_MIN", tail)  # sorted at once, now and then, or never
        pair = Pair()
        with pair.db:
            for each in data.draw(st.lists(action, min_size=1, max_size=30)):
                pair.do(*each)
                how = data.draw(rule)
                compare(pair.db, pair.now, how, data.draw(memory), data.draw(memory))
            for seq, graph in pair.states.items():
                how = data.draw(rule)
                with pair.db.as_of(seq) as past:
                    compare(past, graph, how, data.draw(memory), data.draw(memory))


@pytest.mark.parametrize("seed", range(3))
def test_a_larger_graph_in_many_places(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hundreds of edges: in segments with marks, frozen and active memtables."""
    monkeypatch.setattr(edge_index, "TAIL_MIN", 16)
    draw = random.Random(seed)
    with Database(DatabaseConfig(use_memory_storage=True, background=False)) as db:
        ids = db.save_many([MemoryNode() for _ in range(40)])
        graph, states = PlainGraph(ids), {}
        for number in range(600):
            kind = draw.choices(["connect", "disconnect"], [8, 2])[0]
            source, target = draw.choice(ids), draw.choice(ids)
            if kind == "connect":
                apply(db, graph, kind, source, target, draw.choice(TYPES), draw.choice(STRENGTHS))
            else:
                apply(db, graph, kind, source, target, None)
            if number % 50 == 0:
                states[db.last_seq] = graph.copy()
            if number in (150, 300, 450):
                db.flush()
        states[db.last_seq] = graph
        for compacted in (False, True):
            if compacted:
                db.compact()
            for seq, then in states.items():
                for direction in ("outgoing", "incoming", "both"):
                    how = {
                        "types": draw.choice([None, ["x"]]),
                        "min_strength": 0.25,
                        "direction": direction,
                    }
                    compare_some(db.as_of(seq), then, how, draw.sample(ids, 2))


def compare_some(reader: Any, graph: PlainGraph, how: dict[str, Any], pair: list[str]) -> None:
    asked = {
        "relationship_type": how["types"],
        "min_strength": how["min_strength"],
        "direction": how["direction"],
    }
    assert reader.traverse(pair, 3, **asked) == graph.traverse(pair, 3, **how)
    path = reader.shortest_path(*pair, **asked)
    assert path == graph.shortest_path(*pair, None, **how)
    found = reader.spread_activation(pair, max_hops=2, **asked)
    assert dict(found) == graph.activation(dict.fromkeys(pair, 1.0), 0.5, 2, 0.001, **how)
