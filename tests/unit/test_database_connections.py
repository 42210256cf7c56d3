"""Connections: both directions, types, versions, and no loose ends."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pytest

from engramdb import Database, MemoryNode, MemoryNotFoundError, RelationshipType
from engramdb.lsm import Batch
from engramdb.model.attributes import encode_edge


@pytest.fixture
def db() -> Any:
    with Database.in_memory() as database:
        yield database


def three(db: Database) -> list[str]:
    return db.save_many([MemoryNode(attributes={"name": name}) for name in "abc"])


def test_a_connection_is_seen_from_both_ends(db: Database) -> None:
    a, b, c = three(db)
    db.connect(a, b)
    db.connect(c, b, RelationshipType.CAUSATION, 0.25, {"why": ["because"]})
    (outgoing,) = db.get_connections(c)
    assert outgoing.source_id == c and outgoing.target_id == b
    assert outgoing.relationship_type == "Causation" == RelationshipType.CAUSATION
    assert outgoing.strength == 0.25 and outgoing.attributes == {"why": ["because"]}
    assert [each.source_id for each in db.get_connected_to(b)] == [a, c]
    assert db.get_connected_to(b, "Causation") == [outgoing]
    assert db.get_connections(b) == [] and db.get_connected_to(b, "no such type") == []
    (plain,) = db.get_connections(a)
    assert plain.relationship_type == "Association" and plain.strength == 1.0


def test_connections_come_in_the_order_of_their_commits(db: Database) -> None:
    a, b, c = three(db)
    for target, kind in ((c, "x"), (a, "x"), (b, "y"), (b, "x")):
        db.connect(a, target, kind)
    assert [each.target_id for each in db.get_connections(a)] == [c, a, b, b]
    assert [each.target_id for each in db.get_connections(a, "x")] == [c, a, b]


def test_connecting_again_is_a_new_version(db: Database) -> None:
    a, b, _ = three(db)
    db.connect(a, b, "knows", 0.5)
    (first,) = db.get_connections(a)
    db.connect(a, b, "knows", 0.75)
    (second,) = db.get_connections(a)
    assert second.strength == 0.75
    assert second.creation_timestamp == first.creation_timestamp
    assert db.as_of(2).get_connections(a) == [first]
    assert db.as_of(1).get_connections(a) == []


def test_both_ends_must_be_there(db: Database) -> None:
    a, b, _ = three(db)
    missing = str(uuid.uuid4())
    for source, target in ((a, missing), (missing, a)):
        with pytest.raises(MemoryNotFoundError, match=missing):
            db.connect(source, target)
    db.delete(b)
    with pytest.raises(MemoryNotFoundError, match=b):
        db.connect(a, b)


def test_disconnect_one_type_or_all(db: Database) -> None:
    a, b, _ = three(db)
    for kind in ("x", "y", "z"):
        db.connect(a, b, kind)
    db.connect(b, a, "x")
    assert db.disconnect(a, b, "x") is True
    assert db.disconnect(a, b, "x") is False
    assert {each.relationship_type for each in db.get_connections(a)} == {"y", "z"}
    before = db.last_seq
    assert db.disconnect(a, b) is True and db.last_seq == before + 1
    assert db.get_connections(a) == [] and len(db.get_connections(b)) == 1
    assert db.disconnect(a, b) is False and db.last_seq == before + 1
    assert db.disconnect(str(uuid.uuid4()), b) is False


def test_delete_takes_its_connections_along_both_ways(db: Database) -> None:
    a, b, c = three(db)
    db.connect(a, b)
    db.connect(b, c)
    db.connect(b, b, "itself")
    db.connect(a, c)
    before = db.last_seq
    assert db.delete(b)
    assert db.last_seq == before + 1
    assert [each.target_id for each in db.get_connections(a)] == [c]
    assert db.get_connected_to(c) == db.get_connections(a)
    assert db.get_connections(b) == [] == db.get_connected_to(b)
    assert len(db.as_of(before).get_connections(b)) == 2


def test_a_memory_that_comes_back_comes_without_its_connections(db: Database) -> None:
    a, b, _ = three(db)
    db.connect(a, b)
    db.delete(b)
    db.restore(b, 2)
    assert b in db and db.get_connections(a) == []


def test_undo_of_the_deletion_brings_the_connections_back(db: Database) -> None:
    a, b, _ = three(db)
    db.connect(a, b)
    before = db.get_connections(a)
    db.delete(b)
    db.undo()
    assert b in db and db.get_connections(a) == before


def test_connections_of_what_never_was_are_empty(db: Database) -> None:
    assert db.get_connections(str(uuid.uuid4())) == []
    assert db.get_connected_to(str(uuid.uuid4())) == []


@pytest.mark.parametrize("durability", ["sync", "os"])
def test_no_connection_is_left_dangling_by_threads(tmp_path: Any, durability: str) -> None:
    """One thread connects to a memory while another deletes it and saves it anew."""
    with Database.file_based(tmp_path / "db", durability=durability) as db:
        hub = MemoryNode()
        db.save(hub)
        spokes = db.save_many([MemoryNode() for _ in range(4)])
        stop = threading.Event()
        failures: list[BaseException] = []

        def connect(spoke: str) -> None:
            try:
                while not stop.is_set():
                    try:
                        db.connect(spoke, hub.id, "to")
                        db.connect(hub.id, spoke, "from")
                    except MemoryNotFoundError:
                        pass
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=connect, args=[spoke]) for spoke in spokes]
        for thread in threads:
            thread.start()
        for _ in range(60):
            db.delete(hub.id)
            now = db.as_of(db.last_seq)
            if hub.id not in now:
                assert now.get_connected_to(hub.id) == [] == now.get_connections(hub.id)
            db.save(hub)
        stop.set()
        for thread in threads:
            thread.join()
        assert failures == []
        db.delete(hub.id)
        assert all(db.get_connections(spoke) == [] for spoke in spokes)


def test_what_reads_have_in_common_is_not_shared_with_callers(db: Database) -> None:
    a, b, c = three(db)
    db.connect(a, b)
    db.connect(a, c, attributes={"why": ["seen"]})
    for _ in range(2):
        plain, told = db.get_connections(a)
        assert (plain.attributes, told.attributes) == ({}, {"why": ["seen"]})
        plain.attributes["mine"] = told.attributes["mine"] = 1  # type: ignore[index]


def test_a_connection_of_the_length_of_a_plain_one_keeps_its_attributes(db: Database) -> None:
    a, b, _ = three(db)
    payload = encode_edge(5, {"a": "12345"})
    assert len(payload) == len(encode_edge(2**40, {})) == 11
    batch = Batch()
    batch.put_edge(uuid.UUID(a).bytes, uuid.UUID(b).bytes, "knows", 1.0, payload)
    db._engine.commit(batch)
    assert db.get_connections(a)[0].attributes == {"a": "12345"}
