"""Traversals, shortest paths and spreading activation: what their docstrings promise."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import engramdb
from engramdb import Database, InvalidInputError, MemoryNotFoundError, Visit
from engramdb.index.graph import within_hops
from engramdb.lsm.keys import join, to_list
from engramdb.lsm.records import is_connection, vector_type
from tests.unit.graph_support import chain, key_of, some

MISSING = str(uuid.uuid4())


@pytest.fixture
def db() -> Iterator[Database]:
    with Database.in_memory() as database:
        yield database


# traverse


def test_breadth_first_by_hops_and_id(db: Database) -> None:
    a, b, c, d, e = some(db, 5)
    for source, target in ((a, c), (a, b), (b, d), (c, d), (d, a), (d, e)):
        db.connect(source, target)
    assert db.traverse(a, 1) == [(b, 1), (c, 1)]
    assert db.traverse(a, 9) == [(b, 1), (c, 1), (d, 2), (e, 3)]
    first = db.traverse(a, 9)[0]
    assert isinstance(first, Visit) and first.id == b and first.hops == 1
    assert db.traverse([a, b], 1) == [(c, 1), (d, 1)], "starts are not in the answer"
    assert db.traverse(iter((a, a)), 1) == db.traverse(uuid.UUID(a), 1)  # type: ignore[arg-type]
    assert db.traverse([], 3) == []
    assert db.traverse(e, 3) == []


def test_a_limit_keeps_the_first(db: Database) -> None:
    a, *others = some(db, 6)
    for other in others[:4]:
        db.connect(a, other)
    db.connect(others[0], others[4])
    whole = db.traverse(a, 5)
    assert len(whole) == 5
    for limit in range(1, 8):
        assert db.traverse(a, 5, limit=limit) == whole[:limit]


def test_direction_type_and_strength(db: Database) -> None:
    a, b, c, d = some(db, 4)
    db.connect(a, b, "x", 0.5)
    db.connect(a, c, "y", 0.25)
    db.connect(d, a, "x", 1.0)
    assert db.traverse(a, 1, "x") == [(b, 1)]
    assert db.traverse(a, 1, ["x", "y"]) == [(b, 1), (c, 1)]
    assert db.traverse(a, 1, []) == [] == db.traverse(a, 1, "z")
    assert db.traverse(a, 1, min_strength=0.5) == [(b, 1)], "so strong is strong enough"
    assert db.traverse(a, 1, min_strength=0.51) == []
    assert db.traverse(a, 1, direction="incoming") == [(d, 1)]
    assert db.traverse(b, 9, direction="both") == [(a, 1), (c, 2), (d, 2)]
    assert db.traverse(b, 9, direction="both", relationship_type="x") == [(a, 1), (d, 2)]


def test_cycles_and_connections_to_itself_end(db: Database) -> None:
    a, b, c = some(db, 3)
    for pair in ((a, a), (a, b), (b, c), (c, a), (c, c)):
        db.connect(*pair)
    for direction in ("outgoing", "incoming", "both"):
        assert {visit.id for visit in db.traverse(a, 10**9, direction=direction)} == {b, c}


def test_as_of_any_time(db: Database) -> None:
    a, b, c = some(db, 3)
    chain(db, [a, b, c])
    before = db.last_seq
    db.delete(b)
    assert db.traverse(a, 5) == [] and db.shortest_path(a, c) is None
    past = db.as_of(before)
    assert past.traverse(a, 5) == [(b, 1), (c, 2)]
    assert past.shortest_path(a, c) == [a, b, c]
    assert past.spread_activation(a) == [(a, 1.0), (b, 0.5), (c, 0.25)]
    with pytest.raises(MemoryNotFoundError):
        db.as_of(0).traverse(a, 1)
    with pytest.raises(MemoryNotFoundError):
        db.traverse(b, 1)


def test_below_what_was_kept_it_is_refused(db: Database) -> None:
    a, b = some(db, 2)
    db.connect(a, b)
    db.connect(a, b, strength=0.5)
    db.set_history(engramdb.KeepLast(1))
    db.compact()
    with pytest.raises(engramdb.HistoryUnavailableError):
        db.as_of(2).traverse(a, 1)


def test_a_transaction_walks_its_own_writes(db: Database) -> None:
    a, b, c, d = some(db, 4)
    chain(db, [a, b, c])
    with db.transaction() as tx:
        tx.connect(c, d)
        tx.disconnect(a, b)
        tx.connect(a, c, strength=0.5)
        assert tx.traverse(a, 5) == [(c, 1), (d, 2)]
        tx.connect(a, c, strength=0.25)
        assert tx.spread_activation(a, max_hops=1) == [(a, 1.0), (c, 0.125)]
        assert tx.shortest_path(a, d) == [a, c, d]
        tx.delete(c)
        assert tx.traverse(a, 5) == []
        assert db.traverse(a, 5) == [(b, 1), (c, 2)]
    assert db.traverse(a, 5) == []


def test_a_walk_in_a_transaction_is_not_held_against_others(db: Database) -> None:
    a, b, c = some(db, 3)
    with db.transaction() as tx:
        assert tx.traverse(a, 3) == []
        db.connect(a, b)
        tx.connect(b, c)
    assert db.traverse(a, 3) == [(b, 1), (c, 2)]


# shortest_path


def test_the_first_of_all_shortest_paths(db: Database) -> None:
    a, b, c, d, e, f = some(db, 6)
    for source, target in ((a, c), (a, b), (c, d), (b, e), (d, f), (e, f)):
        db.connect(source, target)
    assert db.shortest_path(a, f) == [a, b, e, f], "b comes before c"
    db.connect(c, f)
    assert db.shortest_path(a, f) == [a, c, f]
    assert db.shortest_path(f, a) is None
    assert db.shortest_path(f, a, direction="incoming") == [f, c, a]
    assert db.shortest_path(b, c, direction="both") == [b, a, c]
    assert db.shortest_path(a, a) == [a]
    assert db.shortest_path(a, f, max_hops=1) is None
    assert db.shortest_path(a, f, max_hops=2) == [a, c, f]
    assert db.shortest_path(a, f, relationship_type="other") is None
    assert db.shortest_path(a, f, min_strength=1.0) == [a, c, f]


def test_a_long_chain(db: Database) -> None:
    ids = some(db, 300)
    chain(db, ids)
    assert db.shortest_path(ids[0], ids[-1]) == ids
    assert db.shortest_path(ids[0], ids[-1], max_hops=299) == ids
    assert db.shortest_path(ids[0], ids[-1], max_hops=298) is None
    assert db.traverse(ids[0], 500) == [(each, hops) for hops, each in enumerate(ids)][1:]


# spread_activation


def test_what_arrives_adds_up(db: Database) -> None:
    a, b, c, d = some(db, 4)
    db.connect(a, c, "x", 0.5)
    db.connect(a, c, "y", 1.0)
    db.connect(b, c, "x", 0.5)
    db.connect(c, d, "x", 0.5)
    # c: 1 * 0.5 * 0.5 + 1 * 0.5 * 1 + 2 * 0.5 * 0.5; d: that * 0.5 * 0.5
    assert db.spread_activation({a: 1, b: 2.0}) == [(b, 2.0), (c, 1.25), (a, 1.0), (d, 0.3125)]
    assert db.spread_activation([a, b], limit=1) == [(a, 1.0)], "ties by id"
    assert db.spread_activation(a, relationship_type="x", decay=1) == [
        (a, 1.0),
        (c, 0.5),
        (d, 0.25),
    ]
    assert db.spread_activation(d, direction="incoming", max_hops=1) == [(d, 1.0), (c, 0.25)]
    assert db.spread_activation([]) == []


def test_a_cycle_brings_energy_back(db: Database) -> None:
    a, b = some(db, 2)
    db.connect(a, b)
    db.connect(b, a)
    assert db.spread_activation(a, max_hops=2) == [(a, 1.25), (b, 0.5)]
    assert db.spread_activation(a, max_hops=2, direction="both") == [(a, 2.0), (b, 1.0)]
    db.connect(a, a)
    assert dict(db.spread_activation(a, max_hops=1, direction="both"))[a] == 1.5, "once"


def test_what_is_too_weak_is_dropped(db: Database) -> None:
    ids = some(db, 6)
    chain(db, ids)
    assert db.spread_activation(ids[0], max_hops=9, min_activation=0.125) == [
        (each, 0.5**hops) for hops, each in enumerate(ids[:4])
    ]
    assert db.spread_activation({ids[0]: 1e-9}) == [(ids[0], 1e-9)], "a seed stays"
    db.connect(ids[0], ids[5], "nothing", 0.0)
    assert len(db.spread_activation(ids[0], max_hops=1, min_activation=0)) == 2
    for each in ids[1:3]:
        db.connect(each, ids[4], "together")
    db.connect(ids[0], ids[2])
    # each of the two brings 0.25, and what counts is their sum
    found = dict(db.spread_activation(ids[0], max_hops=2, min_activation=0.5))
    assert found[ids[4]] == 0.5


def test_more_than_a_float_holds_is_infinite(db: Database) -> None:
    ids = some(db, 2)
    for source in ids:
        for target in ids:
            db.connect(source, target)
    found = db.spread_activation({ids[0]: 1e308}, decay=1, max_hops=1000)
    assert found == [(ids[0], float("inf")), (ids[1], float("inf"))]


def test_the_sum_does_not_depend_on_where_connections_lie(db: Database) -> None:
    rng = np.random.default_rng(5)
    ids = some(db, 50)
    targets, sources = ids[:10], ids[10:]
    for source in sources:
        for target in targets:
            db.connect(source, target, strength=float(rng.random()))
    there = db.spread_activation(sources, max_hops=1)
    db.flush()
    for source in sources[20:3:-3]:
        for edge in db.get_connections(source):
            db.connect(source, edge.target_id, strength=edge.strength)
    assert db.spread_activation(sources, max_hops=1) == there, "bit for bit"
    db.compact()
    assert db.spread_activation(sources[::-1], max_hops=1) == there


# within_hops


def test_within_hops_gives_sorted_keys_without_the_starts(db: Database) -> None:
    ids = some(db, 5)
    chain(db, ids)
    db.connect(ids[1], ids[0])
    source = db._engine.latest()
    start = [key_of(ids[0])]
    for hops in range(5):
        found = to_list(join(*within_hops(source, start, hops)))
        assert found == [key_of(each) for each in ids[1 : hops + 1]]
    assert len(within_hops(source, start, 3, frozenset(["no"]))[0]) == 0
    assert len(within_hops(source, start, 3, min_strength=1.0, direction="incoming")[0]) == 1
    assert len(within_hops(source, [], 3)[0]) == 0


# Bad input


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_hops", 0),
        ("max_hops", True),
        ("max_hops", 1.0),
        ("max_hops", None),
        ("relationship_type", ""),
        ("relationship_type", 5),
        ("relationship_type", ["x", None]),
        ("relationship_type", "\0own"),
        ("min_strength", 1.5),
        ("min_strength", float("nan")),
        ("min_strength", "much"),
        ("direction", "upward"),
        ("direction", None),
        ("limit", 0),
        ("start", "no id"),
        ("start", [5]),
        ("start", 5),
    ],
)
def test_a_wrong_argument_is_named(db: Database, argument: str, value: Any) -> None:
    (a,) = some(db, 1)
    arguments = {"start": a, "max_hops": 1, argument: value}
    with pytest.raises(InvalidInputError) as refused:
        db.traverse(**arguments)
    assert refused.value.argument == argument
    del arguments["start"]
    if argument == "start":
        with pytest.raises(InvalidInputError, match="seeds"):
            db.spread_activation(value)
    elif argument not in ("limit", "max_hops"):
        with pytest.raises(InvalidInputError, match=argument):
            db.shortest_path(a, a, **arguments)


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("decay", 0),
        ("decay", 1.01),
        ("decay", "half"),
        ("max_hops", 0),
        ("max_hops", 1001),
        ("min_activation", -1),
        ("min_activation", float("inf")),
        ("min_activation", 10**400),
        ("direction", "down"),
        ("limit", -1),
    ],
)
def test_spreading_names_a_wrong_argument(db: Database, argument: str, value: Any) -> None:
    (a,) = some(db, 1)
    with pytest.raises(InvalidInputError) as refused:
        db.spread_activation(a, **{argument: value})
    assert refused.value.argument == argument


@pytest.mark.parametrize("energy", [0, -1.0, float("nan"), float("inf"), "1", True, None])
def test_an_energy_is_finite_and_above_nothing(db: Database, energy: Any) -> None:
    (a,) = some(db, 1)
    with pytest.raises(InvalidInputError, match="seeds"):
        db.spread_activation({a: energy})
    with pytest.raises(InvalidInputError, match="twice"):
        db.spread_activation({a: 1, a.upper(): 1})


def test_choices_are_named(db: Database) -> None:
    (a,) = some(db, 1)
    with pytest.raises(InvalidInputError, match='"outgoing", "incoming", "both"'):
        db.traverse(a, 1, direction="sideways")
    with pytest.raises(InvalidInputError, match="from 1 to 1,000"):
        db.spread_activation(a, max_hops=10**6)


def test_a_memory_that_is_not_there_is_named(db: Database) -> None:
    (a,) = some(db, 1)
    calls: list[Any] = [
        lambda: db.traverse(MISSING, 1),
        lambda: db.traverse([a, MISSING], 1),
        lambda: db.shortest_path(a, MISSING),
        lambda: db.shortest_path(MISSING, MISSING),
        lambda: db.spread_activation({MISSING: 1}),
    ]
    for call in calls:
        with pytest.raises(MemoryNotFoundError, match=MISSING):
            call()


# The database's own edges


def test_edges_of_the_database_itself_are_not_shown(db: Database) -> None:
    a, b, c = some(db, 3)
    db.connect(a, b)
    before = db.last_seq
    node = db.load(a)
    node.set_vector("tokens", [[1.0, 0.0], [0.0, 1.0]])  # kept as edges from it to itself
    db.save(node)
    assert not is_connection(vector_type("tokens", 0)) and is_connection("own\0")
    for _ in range(2):
        assert len(db.get_connections(a)) == 1 == len(db.get_connected_to(b))
        assert db.get_connected_to(a) == [] == db.get_connections(b)
        assert db.traverse(a, 5, direction="both") == [(b, 1)]
        assert db.shortest_path(a, c) is None
        assert db.spread_activation(a) == [(a, 1.0), (b, 0.5)]
        assert len(within_hops(db._engine.latest(), [key_of(a)], 5)[0]) == 1
        assert not db.diff(before).connections
        assert db.changes(before)[0].connected == []
        assert db.disconnect(a, a) is False
        db.flush()
    with db.transaction() as tx:
        assert len(tx.get_connections(a)) == 1 and tx.disconnect(a, a) is False
    with pytest.raises(InvalidInputError, match="NUL"):
        db.connect(a, b, "\0own")
    db.delete(a)
    assert db._engine.latest().edges_from(key_of(a)) == [], "they go with their memory"
