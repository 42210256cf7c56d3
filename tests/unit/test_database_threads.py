"""Many threads on one database: nothing lost, nothing torn, no reader disturbed."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engramdb import ConflictError, Database, MemoryNode


@pytest.fixture(autouse=True)
def often_switched() -> Iterator[None]:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(interval)


def together(*works: Callable[[], Any]) -> None:
    """Run all at once; the first exception of any of them is raised."""
    failures: list[BaseException] = []

    def guarded(work: Callable[[], Any]) -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=[work]) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


@pytest.mark.parametrize("durability", ["sync", "interval", "os"])
def test_no_save_is_lost(tmp_path: Path, durability: str) -> None:
    saved: list[list[str]] = [[] for _ in range(8)]
    with Database.file_based(
        tmp_path / "db", durability=durability, memtable_bytes=16 * 1024
    ) as db:

        def writer(number: int) -> None:
            for count in range(40):
                node = MemoryNode([float(number), float(count)], attributes={"by": number})
                saved[number].append(db.save(node))
                assert db.load(node.id).get_attribute("by") == number

        together(*(lambda number=number: writer(number) for number in range(8)))
        assert db.last_seq == 320 and len(db) == 320
    with Database.file_based(tmp_path / "db") as db:
        assert db.list_all() == sorted(id_ for ids in saved for id_ in ids)


def test_readers_see_whole_commits(tmp_path: Path) -> None:
    """A writer keeps two memories equal; nobody ever sees them differ."""
    a, b = MemoryNode([1.0, 0.0]), MemoryNode([0.0, 1.0])
    stop = threading.Event()
    with Database.file_based(tmp_path / "db", durability="os", memtable_bytes=8 * 1024) as db:

        def write() -> None:
            for value in range(300):
                a.set_attribute("value", value)
                b.set_attribute("value", value)
                db.save_many([a, b])
            stop.set()

        def read() -> None:
            while not stop.is_set():
                nodes = db.query().execute()
                assert len({node.get_attribute("value") for node in nodes}) <= 1
                with db.transaction() as tx:
                    found = [
                        node.get_attribute("value") for node in map(tx.get, (a.id, b.id)) if node
                    ]
                    assert len(found) in (0, 2) and len(set(found)) <= 1
                hits = db.search_similar([1.0, 1.0], 10)
                assert len(hits) in (0, 2)

        together(write, read, read)


def test_a_counter_under_expected_seq_and_transactions(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", durability="os") as db:
        counter = MemoryNode(attributes={"count": 0})
        db.save(counter)

        def add_with_transactions() -> None:
            done = 0
            while done < 40:
                try:
                    with db.transaction() as tx:
                        node = tx.load(counter.id)
                        node.set_attribute("count", node.get_attribute("count") + 1)
                        tx.save(node)
                    done += 1
                except ConflictError:
                    pass

        def add_with_expected_seq() -> None:
            done = 0
            while done < 40:
                node = db.load(counter.id)
                seq = db.history(counter.id)[-1].seq
                if node.get_attribute("count") != db.load(counter.id).get_attribute("count"):
                    continue
                node = db.as_of(seq).load(counter.id)
                node.set_attribute("count", node.get_attribute("count") + 1)
                try:
                    db.save(node, expected_seq=seq)
                    done += 1
                except ConflictError:
                    pass

        together(
            add_with_transactions,
            add_with_transactions,
            add_with_expected_seq,
            add_with_expected_seq,
        )
        assert db.load(counter.id).get_attribute("count") == 160


def test_one_of_two_deleters_is_told_that_it_did_it(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        for _ in range(30):
            memory_id = db.save(MemoryNode())
            told: list[bool] = []
            work = lambda memory_id=memory_id, told=told: told.append(db.delete(memory_id))  # noqa: E731
            together(work, work, work)
            assert sorted(told) == [False, False, True]


def test_clear_all_leaves_nothing_of_what_came_before_it(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", durability="os") as db:
        stop = threading.Event()

        def write() -> None:
            while not stop.is_set():
                a, b = db.save_many([MemoryNode(), MemoryNode()])
                with contextlib.suppress(KeyError):  # cleared in between
                    db.connect(a, b)

        def clear() -> None:
            try:
                for _ in range(20):
                    db.clear_all()
                    past = db.as_of(db.last_seq)
                    ids = set(past.list_all())
                    for memory_id in ids:
                        assert {each.target_id for each in past.get_connections(memory_id)} <= ids
            finally:
                stop.set()

        together(write, write, clear)
        db.clear_all()
        assert len(db) == 0 and db.stats()["connections"] == 0


def test_close_in_another_thread_is_told_and_not_crashed_on(tmp_path: Path) -> None:
    from engramdb import ClosedError

    db = Database.file_based(tmp_path / "db", durability="os")
    started = threading.Event()

    def write() -> None:
        try:
            while True:
                db.save(MemoryNode([1.0]))
                db.search_similar([1.0])
                started.set()
        except ClosedError:
            pass

    def close() -> None:
        started.wait()
        db.close()

    together(write, write, close)
