"""The access history lasts, survives what it can, and is forgotten when it must be."""

from __future__ import annotations

import os
import random
import warnings
from pathlib import Path

import pytest

import engramdb
from engramdb import AccessHistory, Database
from engramdb.access.log import INTERVAL_NS, PENDING
from engramdb.lsm.environment.crash import EVERYTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice, reboot
from tests.erasure.scan import Needles, files_of, traces
from tests.unit.access_support import FILE, Clock, count_of, key_of, opened, saved, saved_apart

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
