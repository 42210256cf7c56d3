"""Connections in memtables and files: hubs, many versions, tombstones, readers beside writers."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import engramdb
from engramdb import Database
from engramdb.lsm.segment import Segment
from tests.unit.graph_support import chain, key_of, some


@pytest.fixture
def db() -> Iterator[Database]:
    with Database.in_memory() as database:
        yield database


# Hubs


def hub(db: Database, spokes: int, outgoing: bool) -> tuple[str, list[str]]:
    center, *ids = some(db, spokes + 1)
    with db.transaction() as tx:
        for each in ids:
            tx.connect(*((center, each) if outgoing else (each, center)))
    return center, ids


@pytest.mark.parametrize("outgoing", [True, False])
@pytest.mark.parametrize("flushed", [True, False])
def test_a_hub_is_not_walked_for_one_of_its_connections(
    db: Database, outgoing: bool, flushed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    center, ids = hub(db, 500, outgoing)
    db.connect(ids[0], ids[1])
    if flushed:
        db.flush()
    read = 0

    def count(method: Any) -> Any:
        def counted(self: Any, *arguments: Any) -> Any:
            nonlocal read
            found = method(self, *arguments)
            read += len(found) if isinstance(found, list) else 1
            return found

        return counted

    monkeypatch.setattr(Segment, "kept_edge", count(Segment.kept_edge))
    table = type(db._engine.latest().version.active)
    monkeypatch.setattr(table, "edges", count(table.edges))
    pair = (center, ids[7]) if outgoing else (ids[7], center)
    assert db.disconnect(*pair) and not db.disconnect(*pair)
    with db.transaction() as tx:
        pair = (center, ids[8]) if outgoing else (ids[8], center)
        assert tx.disconnect(*pair)
    assert db.delete(ids[9])
    db.connect(*pair)
    assert 0 < read < 40
    assert len(db.traverse(center, 1, direction="both")) == 498


def test_a_disconnection_concerns_the_pair_alone(db: Database) -> None:
    a, b, c = some(db, 3)
    db.connect(a, b)
    with db.transaction() as tx:
        tx.disconnect(a, b)
        db.connect(a, c)  # of the same memory, but not between the two
    assert db.traverse(a, 1) == [(c, 1)]
    db.connect(a, b)
    with pytest.raises(engramdb.ConflictError), db.transaction() as tx:
        tx.disconnect(a, b)
        db.connect(a, b, "another")
    assert len(db.get_connections(a)) == 3


@pytest.mark.parametrize("count", [40, 300])
def test_many_versions_of_one_connection_are_one(db: Database, count: int) -> None:
    a, b = some(db, 2)
    for number in range(count):
        db.connect(a, b, strength=number / count)
    table = db._engine.latest().version.active
    assert len(table.outgoing[key_of(a)]) == 1 == len(table.incoming[key_of(b)])
    assert [each.strength for each in db.get_connections(a)] == [(count - 1) / count]
    for _ in range(2):
        for seq in (1, 2, 20, count + 1):
            found = [each.strength for each in db.as_of(seq).get_connected_to(b)]
            assert found == ([(seq - 2) / count] if seq > 1 else [])
        db.flush()


# Threads


def test_readers_walk_while_others_write(db: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain grows at its end: whoever walks it sees a beginning of it that never shrinks."""
    monkeypatch.setattr("engramdb.lsm.edge_index.TAIL_MIN", 8)
    ids = some(db, 400)
    failures: list[BaseException]
    stop, failures = threading.Event(), []

    def walk() -> None:
        last = 0
        try:
            while not stop.is_set():
                seen = db.traverse(ids[0], 1000)
                assert seen == [(ids[hops], hops) for hops in range(1, len(seen) + 1)]
                assert len(seen) >= last
                last = len(seen)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=walk) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number, pair in enumerate(itertools.pairwise(ids)):
        db.connect(*pair)
        if number == 250:
            db.flush()
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len(db.traverse(ids[0], 1000)) == 399


def test_a_tombstone_in_a_file_stays_one_when_a_connection_comes_back(db: Database) -> None:
    a, b = some(db, 2)
    db.connect(a, b)
    db.disconnect(a, b)
    db.flush()
    assert db.traverse(a, 1) == []
    gone = db.last_seq
    db.connect(a, b)
    for reader, there in ((db, 1), (db.as_of(gone), 0), (db.as_of(gone - 1), 1)):
        assert len(reader.traverse(a, 1)) == len(reader.get_connections(a)) == there


def test_a_reader_beside_the_writer_follows_it(tmp_path: Any) -> None:
    with Database.file_based(tmp_path / "db") as writer:
        a, b, c = some(writer, 3)
        chain(writer, [a, b, c])
        writer.flush()
        with Database.open(tmp_path / "db", read_only=True) as reader:
            assert reader.traverse(a, 5) == [(b, 1), (c, 2)]
            writer.disconnect(a, b)
            writer.connect(a, c)
            assert reader.traverse(a, 5) == [(b, 1), (c, 2)]
            reader.refresh()
            assert reader.traverse(a, 5) == [(c, 1)] and len(reader.get_connections(a)) == 1
            writer.flush()
            writer.disconnect(a, c)
            reader.refresh()
            assert reader.traverse(a, 5) == [] == reader.get_connections(a)
