"""The access history of memories: what counts, and what is known then."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import pytest

import engramdb
from engramdb import AccessHistory, Database, MemoryNode
from engramdb.access import log as log_module
from engramdb.access.log import PENDING, PENDING_MAX
from tests.unit.access_support import FILE, Clock, count_of, key_of, opened, saved

DAY_NS = 86_400 * 10**9


# What counts


def test_each_load_counts_once_and_is_seen_at_once() -> None:
    clock = Clock()
    db = opened(clock=clock)
    (a,) = saved(db)
    node = db.load(a)
    assert node.access_history == AccessHistory(1, clock.now(), clock.now(), (clock.now(),), 1.0)
    first = clock.now()
    clock.ns += 2 * DAY_NS + 1_234_567_000
    assert db.get(a) is not None
    history = node.access_history
    assert (history.count, history.first, history.last) == (2, first, clock.now())
    assert history.recent == (clock.now(), first)
    clock.ns += 2 * DAY_NS
    assert node.access_history.frequency == pytest.approx(2 / (4 + 1.234567 / 86400))
    db.close()


def test_the_last_ten_are_kept() -> None:
    clock = Clock()
    db = opened(clock=clock)
    (a,) = saved(db)
    moments = []
    for _ in range(25):
        moments.append(clock.now())
        node = db.load(a)
        clock.ns += 10**9
    history = node.access_history
    assert history.recent == tuple(moments[:14:-1]) and len(history.recent) == 10
    assert (history.count, history.first, history.last) == (25, moments[0], moments[-1])
    db.close()


def test_a_clock_that_steps_back_leaves_times_in_order() -> None:
    clock = Clock()
    db = opened(clock=clock)
    (a,) = saved(db)
    db.load(a)
    later = clock.now()
    clock.ns -= DAY_NS
    node = db.load(a)
    history = node.access_history
    assert history.recent == (later, clock.now()) and history.first == clock.now()
    assert history.frequency == 2.0
    db.close()


def test_what_a_query_returns_counts_and_what_it_passes_over_does_not() -> None:
    db = opened()
    ids = saved(db, 4)
    found = db.query().with_vector([3.0, 1.0]).with_limit(2).execute()
    assert [node.access_history.count for node in found] == [1, 1]
    assert sum(count_of(db, each) for each in ids) == 2
    db.query().with_ids(ids).execute()
    assert sum(count_of(db, each) for each in ids) == 6
    db.close()


READS = {
    "search_similar": lambda db, a: db.search_similar([1.0, 1.0]),
    "search_many": lambda db, a: db.search_many([[1.0, 1.0]]),
    "query ids": lambda db, a: db.query().ids(),
    "query count": lambda db, a: db.query().count(),
    "query as of": lambda db, a: db.query().as_of(1).execute(),
    "as_of load": lambda db, a: db.as_of(1).load(a),
    "as_of get": lambda db, a: db.as_of(1).get(a),
    "as_of query": lambda db, a: db.as_of(1).query().execute(),
    "history": lambda db, a: db.history(a),
    "layers": lambda db, a: db.as_of(1).load(a).temporal_layers(),
    "contains": lambda db, a: a in db,
    "list_all": lambda db, a: db.list_all(),
    "connections": lambda db, a: db.get_connections(a),
    "diff": lambda db, a: db.diff(0),
    "absent": lambda db, a: db.get("00000000-0000-0000-0000-000000000001"),
}


@pytest.mark.parametrize("name", READS)
def test_reads_that_hand_out_no_memory_of_now_do_not_count(name: str) -> None:
    db = opened()
    (a,) = saved(db)
    READS[name](db, a)
    assert count_of(db, a) == 0 and not db._access._pending  # type: ignore[union-attr]
    db.close()


def test_a_memory_that_is_not_there_is_not_counted() -> None:
    db = opened()
    with pytest.raises(engramdb.MemoryNotFoundError):
        db.load("00000000-0000-0000-0000-000000000001")
    db.close()
    assert not db._environment.exists(FILE)  # type: ignore[union-attr]


def test_loads_of_a_transaction_count() -> None:
    db = opened()
    a, b = saved(db, 2)
    with db.transaction() as tx:
        node = tx.load(a)
        tx.get(b)
        tx.query().execute()
    assert node.access_history.count == 2 and count_of(db, b) == 2
    db.close()


def test_it_makes_no_commit() -> None:
    db = opened()
    (a,) = saved(db)
    seq = db.last_seq
    db.load(a)
    db.flush()
    assert db.last_seq == seq and len(db.history(a)) == 1 and len(db.changes(0)) == 1
    db.close()


def test_nodes_without_a_database_have_none() -> None:
    assert MemoryNode([1.0]).access_history == AccessHistory(0, None, None, (), 0.0)
    db = opened()
    node = MemoryNode([1.0])
    db.save(node)
    assert node.access_history.count == 0
    db.load(node.id)
    assert node.access_history.count == 1, "it is live"
    past = db.as_of(1)
    assert past.load(node.id).access_history.count == 1, "the database is asked, whatever version"
    db.close()
    with pytest.raises(engramdb.ClosedError):
        _ = node.access_history


# Threads, and signals


def test_threads_lose_no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_module, "PENDING", 50)
    monkeypatch.setattr(log_module, "PENDING_MAX", 10**9)
    db = Database.in_memory()
    ids = saved(db, 20)
    keys = [key_of(each) for each in ids]

    def work() -> None:
        for key in keys * 200:
            db._access.record(key)  # type: ignore[union-attr]

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert count_of(db, ids[0]) <= 800
        db.flush()
    for thread in threads:
        thread.join()
    assert [count_of(db, each) for each in ids] == [800] * 20
    db.close()


def test_an_access_in_the_middle_of_a_drain_is_kept() -> None:
    db = Database.in_memory()
    (a,) = saved(db)
    access, key = db._access, key_of(a)
    assert access is not None

    class Busy(list[bytes]):
        """Another thread appends while it is copied."""

        def __getitem__(self, at: Any) -> Any:
            copy = super().__getitem__(at)
            self.append(super().__getitem__(0))
            return copy

    access._pending = Busy()
    access.record(key)
    first, later = count_of(db, a), count_of(db, a)
    assert first == 1 and later > first
    db.close()


def test_a_load_waits_for_nobody() -> None:
    """While the table is in use, accesses wait in the list, and not without end."""
    db = Database.in_memory()
    (a,) = saved(db)
    access, key = db._access, key_of(a)
    assert access is not None
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with access._entered():
            held.set()
            done.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)
    for _ in range(PENDING_MAX + 500):
        access.record(key)
    assert len(access._pending) == PENDING_MAX
    done.set()
    thread.join()
    assert count_of(db, a) == PENDING_MAX
    db.close()


def test_a_signal_handler_in_the_middle_of_it_waits_for_nobody() -> None:
    db = opened()
    (a,) = saved(db)
    access = db._access
    assert access is not None
    with access._entered():
        for _ in range(PENDING + 1):
            node = db.load(a)
        assert not access.store()
        with pytest.raises(engramdb.EngramError, match="signal handler"):
            _ = node.access_history
    assert node.access_history.count == PENDING + 1
    db.close()


# For rankings


def test_columns_of_many_memories() -> None:
    clock = Clock()
    db = opened(clock=clock)
    ids = saved(db, 3)
    access = db._access
    assert access is not None
    db.load(ids[0])
    moment_us = clock.ns // 1000
    clock.ns += 10**9
    db.load(ids[0])
    db.load(ids[2])
    keys = np.frombuffer(b"".join(map(key_of, ids)), np.uint8).reshape(-1, 16)
    counts, first_us, recent_us = access.columns_of(keys)
    assert counts.tolist() == [2, 0, 1] and recent_us.shape == (3, 10)
    assert recent_us[0, :2].tolist() == [moment_us + 10**6, moment_us]
    assert first_us[[0, 2]].tolist() == [moment_us, moment_us + 10**6]
    then = access.columns_of(keys, until_us=moment_us)
    assert then.counts.tolist() == [1, 0, 0] and then.recent_us[0, 0] == moment_us
    assert access.columns_of(keys[:0]).counts.tolist() == []
    db.close()
    with pytest.raises(engramdb.ClosedError):
        access.columns_of(keys)
