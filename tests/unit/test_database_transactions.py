"""Transactions: one snapshot, own writes on top, one commit at the end or none."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engramdb import (
    AttributeFilter,
    ClosedError,
    ConflictError,
    Database,
    MemoryNode,
    MemoryNotFoundError,
)


@pytest.fixture
def db() -> Any:
    with Database.in_memory() as database:
        yield database


def named(name: str, *vector: float) -> MemoryNode:
    return MemoryNode(vector or None, attributes={"name": name})


def test_all_is_written_in_one_commit(db: Database) -> None:
    old = db.save(named("old", 1.0, 0.0))
    with db.transaction() as tx:
        a = tx.save(named("a", 0.0, 1.0), reason="in a transaction")
        b, _ = tx.save_many([named("b"), named("c")])
        tx.connect(a, b, "knows", 0.5)
        tx.delete(old)
        assert db.list_all() == [old] and db.last_seq == 1
    assert db.last_seq == 2 and len(db) == 3 and old not in db
    assert [each.target_id for each in db.get_connections(a)] == [b]
    assert db.history(a)[0].reason == "in a transaction"


def test_an_exception_writes_nothing(db: Database) -> None:
    with pytest.raises(ZeroDivisionError), db.transaction() as tx:
        tx.save(named("a"))
        1 / 0  # noqa: B018
    assert db.last_seq == 0


def test_a_transaction_that_writes_nothing_commits_nothing(db: Database) -> None:
    a = db.save(named("a"))
    with db.transaction() as tx:
        tx.load(a)
        db.save(named("b"))
    assert db.last_seq == 2
    with db.transaction() as tx:
        fresh = tx.save(named("came and went"))
        tx.connect(fresh, a)
        tx.delete(fresh)
        assert fresh not in tx and tx.get_connected_to(a) == []
    assert db.last_seq == 2


def test_reads_see_the_snapshot_and_own_writes(db: Database) -> None:
    a = db.save(named("a", 1.0, 0.0))
    b = db.save(named("b", 0.0, 1.0))
    db.connect(a, b)
    with db.transaction() as tx:
        c = db.save(named("c", 1.0, 0.1))  # by others: not seen
        assert tx.list_all() == [a, b] and c not in tx.query().ids() and len(tx) == 2
        loaded = tx.load(a)
        loaded.set_attribute("name", "changed")
        tx.save(loaded)
        assert tx.load(a).get_attribute("name") == "changed"
        assert tx.load(a).embeddings.tolist() == [1.0, 0.0]
        assert db.load(a).get_attribute("name") == "a"
        d = tx.save(named("d", 1.0, 0.0))
        assert tx.list_all() == sorted([a, b, d]) and len(tx) == 3 and d in tx
        tx.connect(a, d)
        tx.connect(d, b)
        assert [each.target_id for each in tx.get_connections(a)] == [b, d]
        assert [each.source_id for each in tx.get_connected_to(b)] == [a, d]
        tx.disconnect(a, b)
        assert [each.target_id for each in tx.get_connections(a)] == [d]
        tx.delete(b)
        assert b not in tx and tx.get(b) is None and tx.get_connections(d) == []
        with pytest.raises(MemoryNotFoundError):
            tx.load(b)
        assert tx.history(a) == [] or [layer.seq for layer in tx.history(a)] == [1]


def test_search_sees_own_writes(db: Database) -> None:
    a = db.save(named("a", 1.0, 0.0))
    b = db.save(named("b", 0.0, 1.0))
    db.save_many([named("far", -1.0, 0.1 * number) for number in range(20)])
    with db.transaction() as tx:
        c = tx.save(named("c", 1.0, 0.0))
        moved = tx.load(b)
        moved.embeddings = [1.0, 1.0]
        tx.save(moved)
        best = tx.search_similar([1.0, 0.0], 3)
        assert best == [(a, 1.0), (c, 1.0), (b, pytest.approx(0.5**0.5))]
        assert tx.search_many([[1.0, 0.0]], 3) == [best]
        assert [node.id for node in tx.query().with_vector([1.0, 0.0]).with_limit(2).execute()] == [
            a,
            c,
        ]
        where = AttributeFilter.is_in("name", ["b", "c"])
        assert tx.search_similar([1.0, 0.0], 1, where=where) == [(c, 1.0)]
        tx.delete(a)
        assert tx.search_similar([1.0, 0.0], 1) == [(c, 1.0)]
        assert tx.search_similar([1.0, 0.0], 1, as_of=2) == [(a, 1.0)]
        assert tx.query().with_attribute_filter(where).ids() == sorted([b, c])
        assert tx.query().count() == 22
    assert db.search_similar([1.0, 0.0], 2) == [(c, 1.0), (b, pytest.approx(0.5**0.5))]


def test_search_scales_alike_for_saved_and_unsaved_vectors(db: Database) -> None:
    """Zero vectors, and norms at the ends of float32, included."""
    rows = np.array([[0, 0], [1e-30, 0], [1e30, 1e30], [1, 2], [-1, -2]], np.float32)
    db.save(MemoryNode(rows[3]))
    with db.transaction() as tx:
        tx.save_many([MemoryNode(row) for row in rows])
        inside = tx.search_similar([1.0, 2.0], 10, -1.0)
    assert db.search_similar([1.0, 2.0], 10, -1.0) == inside


def test_the_first_vector_of_all_may_come_in_a_transaction(db: Database) -> None:
    with db.transaction() as tx:
        a = tx.save(named("a", 1.0, 0.0))
        assert tx.search_similar([2.0, 0.0]) == [(a, 1.0)]
        with pytest.raises(ValueError, match=r"3 .* 2"):
            tx.save(named("b", 1.0, 0.0, 0.0))
        with pytest.raises(ValueError, match=r"3 .* 2"):
            tx.search_similar([1.0, 0.0, 0.0])
    assert db.dimension == 2


INTERFERENCE: dict[str, Callable[[Any, Database, str, str], Any]] = {
    "what it loaded was saved": lambda tx, db, a, b: (tx.load(a), db.save(db.load(a))),
    "what it loaded was deleted": lambda tx, db, a, b: (tx.get(a), db.delete(a)),
    "what it looked for was deleted": lambda tx, db, a, b: (a in tx, db.delete(a)),
    "what it wrote was saved": lambda tx, db, a, b: (
        tx.save(MemoryNode(id=a)),
        db.save(db.load(a)),
    ),
    "what it deleted was saved": lambda tx, db, a, b: (tx.delete(a), db.save(db.load(a))),
    "what it found with a query was saved": lambda tx, db, a, b: (
        tx.query().with_ids([a]).execute(),
        db.save(db.load(a)),
    ),
    "what it deleted was connected": lambda tx, db, a, b: (tx.delete(a), db.connect(b, a, "x")),
    "what it connected was deleted": lambda tx, db, a, b: (tx.connect(a, b, "x"), db.delete(b)),
    "what it connected was connected": lambda tx, db, a, b: (
        tx.connect(a, b, "x"),
        db.connect(a, b, "x"),
    ),
    "connections it listed grew": lambda tx, db, a, b: (
        tx.get_connections(a),
        db.connect(a, a, "x"),
    ),
    "connections it listed changed": lambda tx, db, a, b: (
        tx.get_connections(a),
        db.connect(a, b, "first", 0.1),
    ),
    "connections to it that it listed went": lambda tx, db, a, b: (
        tx.get_connected_to(b),
        db.disconnect(a, b),
    ),
    "connections it removed, all types, grew": lambda tx, db, a, b: (
        tx.disconnect(a, b),
        db.connect(a, b, "x"),
    ),
}


@pytest.mark.parametrize("case", INTERFERENCE)
def test_interference_is_a_conflict_and_nothing_is_written(db: Database, case: str) -> None:
    a, b = db.save(named("a")), db.save(named("b"))
    db.connect(a, b, "first")
    marker = MemoryNode()
    with pytest.raises(ConflictError), db.transaction() as tx:
        tx.save(marker)
        INTERFERENCE[case](tx, db, a, b)
    assert marker.id not in db and db.last_seq == 4


def test_an_id_that_was_absent_and_came_is_a_conflict(db: Database) -> None:
    absent = str(uuid.uuid4())
    with pytest.raises(ConflictError), db.transaction() as tx:
        assert tx.get(absent) is None
        db.save(MemoryNode(id=absent))
        tx.save(MemoryNode())


def test_what_it_did_not_touch_is_no_conflict(db: Database) -> None:
    a, b = db.save(named("a")), db.save(named("b"))
    with db.transaction() as tx:
        tx.load(a)
        tx.connect(a, a, "x")
        db.save(db.load(b))
        db.connect(b, a, "y")
        assert len(tx) == 2 and tx.list_all() == [a, b]
        db.save(named("c"))
    assert len(db.get_connections(a)) == 1


def test_expected_seq_inside_a_transaction(db: Database) -> None:
    node = named("a")
    db.save(node)
    with pytest.raises(ConflictError), db.transaction() as tx:
        tx.save(node, expected_seq=0)
    with db.transaction() as tx:
        tx.save(node, expected_seq=1)
    assert db.last_seq == 2


def test_saved_nodes_know_their_version_afterwards(db: Database) -> None:
    node = named("a", 1.0)
    with db.transaction() as tx:
        tx.save(node)
        loaded = tx.load(node.id)
    assert [layer.seq for layer in node.temporal_layers()] == [1]
    assert [layer.seq for layer in loaded.temporal_layers()] == [1]


def test_bad_input_names_its_argument(db: Database) -> None:
    db.save(named("a", 1.0, 0.0))
    with db.transaction() as tx:
        with pytest.raises(ValueError, match=r"^embeddings: "):
            tx.save(named("b", 1.0))
        with pytest.raises(ValueError, match=r"^nodes\[1\]\.embeddings: "):
            tx.save_many([named("b", 1.0, 0.0), named("c", 1.0)])
        with pytest.raises(ValueError, match=r"^node: "):
            tx.save("b")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=r"^memory_id: "):
            tx.delete("b")
    assert db.last_seq == 1


def test_what_is_saved_is_what_the_node_held_then(db: Database) -> None:
    node = named("then", 1.0)
    with db.transaction() as tx:
        tx.save(node)
        node.set_attribute("name", "later")
    assert db.load(node.id).get_attribute("name") == "then"


def test_a_transaction_is_used_once_and_inside_with(db: Database) -> None:
    tx = db.transaction()
    with pytest.raises(ClosedError):
        tx.save(named("a"))
    with tx:
        tx.save(named("a"))
    with pytest.raises(ClosedError):
        tx.list_all()
    with pytest.raises(ClosedError):
        tx.__enter__()
    assert len(db) == 1


def test_a_transfer_can_be_retried(db: Database) -> None:
    """The pattern of the documentation: load, change, save; again when there was a conflict."""
    account = db.save(MemoryNode(attributes={"balance": 0}))
    for attempt in range(2):
        try:
            with db.transaction() as tx:
                node = tx.load(account)
                node.set_attribute("balance", node.get_attribute("balance") + 1)
                if attempt == 0:
                    other = db.load(account)
                    other.set_attribute("balance", 10)
                    db.save(other)
                tx.save(node)
        except ConflictError:
            assert attempt == 0
    assert db.load(account).get_attribute("balance") == 11
