"""The access history of memories: what counts, that it lasts, and that it is forgotten."""

from __future__ import annotations

import os
import random
import threading
import uuid
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engramdb
from engramdb import AccessHistory, Database, MemoryNode
from engramdb.access import log as log_module
from engramdb.access.log import INTERVAL_NS, PENDING, PENDING_MAX, AccessLog
from engramdb.lsm.environment.crash import EVERYTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice, reboot
from tests.erasure.scan import Needles, files_of, traces

DAY_NS = 86_400 * 10**9
FILE = "/database/derived/access.drv"


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        return self.ns

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.ns // 10**9, UTC) + timedelta(
            microseconds=self.ns % 10**9 // 1000
        )


def opened(disk: SimulatedDisk | None = None, clock: Clock | None = None, **more: Any) -> Database:
    config = engramdb.DatabaseConfig(storage_dir="/database", background=False, **more)
    db = Database(config, disk or SimulatedDisk())
    if clock is not None:
        db._access = AccessLog(db._engine, clock)
        db._record_access = db._access.record
        db._finalizer.detach()
    return db


def saved(db: Database, count: int = 1) -> list[str]:
    return db.save_many([MemoryNode([float(i), 1.0]) for i in range(count)])


def saved_apart(db: Database) -> tuple[str, str]:
    """Two memories whose ids have nothing in common, as a scan for traces needs it."""
    rng = random.Random("apart")
    one, other = (MemoryNode([1.0, 2.0], id=str(uuid.UUID(bytes=rng.randbytes(16)))) for _ in "ab")
    db.save_many([one, other])
    return one.id, other.id


def key_of(memory_id: str) -> bytes:
    return bytes.fromhex(memory_id.replace("-", ""))


def count_of(db: Database, memory_id: str) -> int:
    return db._access_history(key_of(memory_id)).count


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


# Keeping it


def test_it_lasts() -> None:
    disk, clock = SimulatedDisk(), Clock()
    db = opened(disk, clock)
    a, b = saved(db, 2)
    for _ in range(12):
        db.load(a)
        clock.ns += 10**9
    before = db.load(a).access_history
    db.close()
    db = opened(disk, clock)
    assert db._access_history(key_of(a)) == before
    assert db.load(a).access_history.count == 14 and count_of(db, b) == 0
    db.flush()
    db._engine._core.file_lock.release()  # type: ignore[union-attr]
    db._engine._core.closed = "its process was killed"
    db = opened(disk, clock)
    assert count_of(db, a) == 14
    db.close()


def test_a_killed_process_loses_what_came_since() -> None:
    disk = SimulatedDisk()
    db = opened(disk)
    (a,) = saved(db)
    db.load(a)
    db.flush()
    db.load(a)
    after = opened(disk.crash([EVERYTHING] * 99))
    assert count_of(after, a) == 1
    after.close()
    db.close()


def test_nothing_is_written_without_a_load() -> None:
    disk = SimulatedDisk()
    db = opened(disk)
    ids = saved(db, 3)
    db.flush()
    db.search_similar([1.0, 1.0])
    db.close()
    assert not disk.exists("/database/derived")
    db = opened(disk)
    db.load(ids[0])
    db.close()
    content, writes = disk.content(FILE), disk.calls["write_at"]
    db = opened(disk)
    opening = disk.calls["write_at"] - writes
    assert count_of(db, ids[0]) == 1, "asking is no load"
    db.close()
    assert disk.content(FILE) == content and disk.calls["write_at"] == writes + opening


def test_opening_reads_nothing_of_it() -> None:
    disk = SimulatedDisk()
    db = opened(disk)
    (a,) = saved(db)
    db.load(a)
    db.close()
    disk.plant(FILE, b"damaged")
    db = opened(disk)
    assert db._engine.derived.unusable == 0
    assert db.load(a).access_history.count == 1 and db._engine.derived.unusable == 1
    db.close()
    db = opened(disk)
    assert count_of(db, a) == 1
    db.close()


def test_it_is_stored_once_a_minute_while_it_is_used() -> None:
    disk, clock = SimulatedDisk(), Clock()
    db = opened(disk, clock)
    (a,) = saved(db)
    for _ in range(PENDING + 1):
        db.load(a)
    assert not disk.exists(FILE)
    clock.ns += INTERVAL_NS
    db.load(a)
    written = disk.content(FILE)
    db.load(a)
    clock.ns += INTERVAL_NS - 1
    db.load(a)
    assert disk.content(FILE) == written
    clock.ns += 1
    db.load(a)
    assert disk.content(FILE) != written
    after = opened(disk.crash([EVERYTHING] * 99))
    assert count_of(after, a) == PENDING + 5
    after.close()
    db.close()


def test_a_store_that_fails_is_tried_again_and_harms_nobody() -> None:
    disk, clock = SimulatedDisk(), Clock()
    db = opened(disk, clock)
    (a,) = saved(db)
    db.load(a)
    clock.ns += INTERVAL_NS
    disk.fail("rename")
    assert db.load(a).access_history.count == 2
    assert not disk.exists(FILE) and db.stats()["derived_failed"] == 1
    clock.ns += INTERVAL_NS
    db.load(a)
    assert disk.exists(FILE)
    db.load(a)
    disk.fail("create", sticky=True)
    disk.fail("open", sticky=True)
    db._access.store()  # type: ignore[union-attr]
    disk.heal()
    db.close()
    db = opened(disk)
    assert count_of(db, a) == 4
    db.close()


def test_deleted_memories_are_forgotten_when_it_is_stored() -> None:
    disk = SimulatedDisk()
    db = opened(disk)
    ids = saved(db, 6)
    db.flush()
    more = saved(db, 2)
    for each in (*ids, *more):
        db.load(each)
    db.delete(ids[0])
    db.delete(more[0])
    db.flush()
    db.delete(ids[1])
    db.close()
    db = opened(disk)
    assert [count_of(db, each) for each in (*ids, *more)] == [0, 1, 1, 1, 1, 1, 0, 1]
    db.load(ids[2])
    db.close()
    db = opened(disk)
    assert [count_of(db, each) for each in ids] == [0, 0, 2, 1, 1, 1]
    db.clear_all()
    db.load(saved(db)[0])
    db.close()
    db = opened(disk)
    assert len(db._access._drain()) == 1  # type: ignore[union-attr]
    db.close()


def test_with_track_access_false_nothing_is_kept_or_read() -> None:
    disk = SimulatedDisk()
    db = opened(disk, track_access=False)
    (a,) = saved(db)
    assert db.load(a).access_history == AccessHistory()
    db.query().execute()
    with db.transaction() as tx:
        tx.load(a)
    db.purge("00000000-0000-0000-0000-000000000001")
    db.close()
    assert not disk.exists("/database/derived")
    with pytest.raises(engramdb.InvalidInputError, match="track_access"):
        engramdb.DatabaseConfig(use_memory_storage=True, track_access=1)  # type: ignore[arg-type]
    with Database.in_memory(track_access=False) as other:
        assert other.load(saved(other)[0]).access_history.count == 0


def test_readers_count_for_themselves_and_write_nothing(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        (a,) = saved(db)
        db.load(a)
        db.flush()
        content = (tmp_path / "db/derived/access.drv").read_bytes()
        with Database.open(tmp_path / "db", read_only=True) as reader:
            assert reader.load(a).access_history.count == 2
        assert (tmp_path / "db/derived/access.drv").read_bytes() == content
        assert db.load(a).access_history.count == 2


def test_copies_begin_without(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        (a,) = saved(db)
        db.load(a)
        db.flush()
        with db.fork(tmp_path / "fork") as fork:
            assert fork.load(a).access_history.count == 1
        db.checkpoint(tmp_path / "copy")
        with Database.open(tmp_path / "copy") as copy:
            assert copy.load(a).access_history.count == 1


def test_a_database_that_is_dropped_keeps_it(tmp_path: Path) -> None:
    db = Database.file_based(tmp_path / "db")
    (a,) = saved(db)
    db.load(a)
    del db
    with Database.open(tmp_path / "db") as again:
        assert count_of(again, a) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_is_closed_even_if_the_log_was_in_use() -> None:
    db = Database.in_memory()
    (a,) = saved(db)
    node = db.load(a)
    assert db._access is not None
    with db._access._lock, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if not child:
            try:
                _ = node.access_history
            except engramdb.ClosedError:
                db.close()
                os._exit(0)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert node.access_history.count == 1
    db.close()


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


# Crashes and erasure


def test_a_power_cut_at_any_point_of_a_store_gives_a_history_that_was_true() -> None:
    disk, clock = SimulatedDisk(4), Clock()
    db = opened(disk, clock)
    a, b = saved(db, 2)
    db.flush()
    first = len(disk.trace.events)
    true = {(0, 0)}
    for round_ in range(3):
        for _ in range(round_ + 1):
            db.load(a)
        db.load(b)
        db.flush()
        true.add((count_of(db, a), count_of(db, b)))
    state, rng, seen = CrashState(disk.trace, first), random.Random(1), set()
    for point in range(first, len(disk.trace.events) + 1):
        state.advance_to(point)
        choices = [[], [EVERYTHING] * len(state.pending)]
        choices += [random_choice(state, rng) for _ in range(10)]
        for choice in choices:
            left = reboot(disk.trace, state.image(choice))
            after = opened(left, clock)
            counts = count_of(after, a), count_of(after, b)
            assert counts in true
            seen.add(counts)
            assert after.verify().ok and after.load(a).access_history.count == counts[0] + 1
            after.close()
    assert seen == true
    db.close()


def test_purge_forgets_at_once_and_leaves_no_trace() -> None:
    disk = SimulatedDisk(8)
    db = opened(disk)
    a, b = saved_apart(db)
    needles = Needles()
    needles.add_key(key_of(a))
    for each in (a, b, b):
        db.load(each)
    db.flush()
    assert any("access.drv" in each for each in traces(files_of(disk, "/database"), needles))
    db.load(b)
    first = len(disk.trace.events)
    db.purge(a)
    assert traces(files_of(disk, "/database"), needles) == []
    assert (count_of(db, a), count_of(db, b)) == (0, 3)
    assert count_of(opened(disk.crash([EVERYTHING] * 99)), b) == 3, "the others were stored again"
    state = CrashState(disk.trace, first)
    for point in range(first, len(disk.trace.events) + 1):
        state.advance_to(point)
        for choice in ([], [EVERYTHING] * len(state.pending)):
            left = reboot(disk.trace, state.image(choice))
            after = opened(left)
            if not after.history(a):
                assert traces(files_of(left, "/database"), needles) == [], point
            assert count_of(after, b) in (0, 2, 3)
            after.close()
    db.close()
    assert traces(files_of(disk, "/database"), needles) == []


def test_purge_in_a_fresh_process_keeps_the_history_of_others() -> None:
    disk = SimulatedDisk()
    db = opened(disk)
    a, b = saved_apart(db)
    db.load(a)
    db.load(b)
    db.close()
    db = opened(disk)
    db.purge(a)
    db.close()
    db = opened(disk)
    assert (count_of(db, a), count_of(db, b)) == (0, 1)
    db.close()


def test_a_load_that_was_under_way_brings_nothing_back() -> None:
    disk = SimulatedDisk()
    db = opened(disk)
    a, b = saved_apart(db)
    needles = Needles()
    needles.add_key(key_of(a))
    db.load(b)
    db.purge(a)
    db._access.record(key_of(a))  # type: ignore[union-attr]  # it had found the memory before
    db.close()
    assert traces(files_of(disk, "/database"), needles) == []
    db = opened(disk)
    assert (count_of(db, a), count_of(db, b)) == (0, 1)
    db.close()
