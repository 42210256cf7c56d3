"""The thread that reads ahead comes and goes; what it has learned lasts, and is forgotten."""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import engramdb
from engramdb import Database
from engramdb.lsm.environment import PosixEnvironment
from engramdb.lsm.environment.crash import EVERYTHING, CrashState
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice, reboot
from engramdb.prefetch.prefetcher import STORE_S, Prefetcher
from tests.erasure.scan import Needles, files_of, traces
from tests.unit.access_support import key_of, saved, saved_apart
from tests.unit.prefetch_support import (
    FILE,
    Seconds,
    filled,
    is_known,
    learned,
    opened,
    prefetcher_of,
    walked,
    warmth_of,
)

# Keeping it


def test_it_lasts() -> None:
    disk, clock = SimulatedDisk(), Seconds()
    db = opened(disk)
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    assert not prefetcher.store(), "nothing was learned"
    walked(db, prefetcher, ids[:10])
    assert prefetcher.store() and not prefetcher.store()
    db.close()
    assert not prefetcher.store()
    db = opened(disk)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, ids[:10])
    assert warmth_of(db).hits == 9, "after opening, too"
    db.close()


def test_it_is_stored_once_a_minute_while_it_is_used() -> None:
    disk, clock = SimulatedDisk(), Seconds()
    db = opened(disk)
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, ids[:10])
    learned(prefetcher, clock)
    assert not disk.exists(FILE)
    clock.s += STORE_S
    prefetcher.step()
    content = disk.content(FILE)
    clock.s += STORE_S
    prefetcher.step()
    assert disk.content(FILE) == content
    db.close()


def test_what_is_damaged_is_learned_anew() -> None:
    disk, clock = SimulatedDisk(), Seconds()
    db = opened(disk)
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, ids[:10])
    assert prefetcher.store()
    db.close()
    disk.plant(FILE, b"damaged")
    db = opened(disk)
    prefetcher = prefetcher_of(db, clock)
    assert db._engine.derived.unusable == 0
    walked(db, prefetcher, ids[:10])
    assert warmth_of(db).hits == 0 and db._engine.derived.unusable == 1
    db._engine.derived.store(
        "prefetch", {"keys": b"nonsense"}, erasures=db._engine.derived.erasures
    )
    again = prefetcher_of(db, clock)
    walked(db, again, ids[:2])
    assert db._engine.derived.unusable == 2 and again.store()
    db.close()


def test_deleted_memories_are_forgotten_when_it_is_stored() -> None:
    disk, clock = SimulatedDisk(), Seconds()
    db = opened(disk)
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, ids[:6])
    db.delete(ids[2])
    assert prefetcher.store()
    assert [is_known(prefetcher, each) for each in ids[:6]] == [True, True, False, True, True, True]
    db.close()


def test_purge_forgets_at_once_and_leaves_no_trace(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        one, other = saved_apart(db)
        db.flush()
        prefetcher = db._prefetcher
        assert prefetcher is not None
        for _ in range(5):
            for each in (one, other):
                db.load(each)
        until(lambda: is_known(prefetcher, one) and is_known(prefetcher, other))
    needles = Needles()
    needles.add_key(key_of(one))

    def found() -> list[str]:
        return traces(files_of(PosixEnvironment(), str(tmp_path / "db")), needles)

    assert any("prefetch.drv" in each for each in found())
    with Database.open(tmp_path / "db") as db:
        db.purge(one)  # its model was not even read yet
        prefetcher = db._prefetcher
        assert prefetcher is not None
        assert not is_known(prefetcher, one) and is_known(prefetcher, other)
        assert (tmp_path / "db/derived/prefetch.drv").exists()
        assert found() == []
    assert found() == []


def test_what_was_read_before_an_erasure_is_not_stored_after_it() -> None:
    disk, clock = SimulatedDisk(8), Seconds()
    db = opened(disk)
    one, other = saved_apart(db)
    db.flush()
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, [one, other] * 3)
    exist = engramdb.lsm.Snapshot.exist

    def erased_meanwhile(*arguments: object) -> object:
        found = exist(*arguments)  # type: ignore[arg-type]
        db.purge(one)
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engramdb.lsm.Snapshot, "exist", erased_meanwhile)
        assert not prefetcher.store()
    assert not disk.exists(FILE)
    prefetcher.forget([key_of(one)])
    assert disk.exists(FILE) and not is_known(prefetcher, one)
    db.close()


def test_a_power_cut_at_any_point_of_a_store_leaves_a_model_or_none() -> None:
    disk, clock = SimulatedDisk(4), Seconds()
    db = opened(disk)
    ids = filled(db, 40)
    prefetcher = prefetcher_of(db, clock)
    first = len(disk.trace.events)
    for start in (0, 5):
        walked(db, prefetcher, ids[start : start + 5])
        assert prefetcher.store()
    state, rng, seen = CrashState(disk.trace, first), random.Random(1), set()
    for point in range(first, len(disk.trace.events) + 1):
        state.advance_to(point)
        choices = [[], [EVERYTHING] * len(state.pending), random_choice(state, rng)]
        for choice in choices:
            after = opened(reboot(disk.trace, state.image(choice)))
            model = prefetcher_of(after)
            with model._entered():
                seen.add(len(model._learn()))
            after.close()
    assert seen == {0, 5, 10}
    db.close()


def test_a_reader_reads_ahead_and_writes_nothing(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        ids = filled(db, 40)
        with Database.open(tmp_path / "db", read_only=True) as reader:
            prefetcher = reader._prefetcher
            assert prefetcher is not None
            for each in ids[:10]:
                reader.load(each)
            until(lambda: is_known(prefetcher, ids[9]))
            reader.refresh()
            assert not prefetcher.store()
        assert not (tmp_path / "db/derived/prefetch.drv").exists()
        assert db.stats()["prefetch_on"] is False, "nothing was loaded here"


# The thread


def until(holds: Callable[[], bool]) -> None:
    """Wait for it, and give up after a long time only."""
    for _ in range(6000):
        if holds():
            return
        time.sleep(0.01)
    raise AssertionError("it never happened")


def thread_of(db: Database) -> threading.Thread:
    prefetcher = db._prefetcher
    assert prefetcher is not None and prefetcher._thread is not None
    return prefetcher._thread


def test_the_thread_reads_ahead(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", cache_size=32) as db:
        ids = filled(db)
        assert db._prefetcher is not None and db._prefetcher._thread is None
        for each in ids[:6]:
            db.load(each)
        prefetcher = db._prefetcher
        until(lambda: is_known(prefetcher, ids[5]))
        for each in ids[50:120]:
            db.load(each)
        hits = db.stats()["prefetch_hits"]
        for each in ids[:6]:
            reads = db.stats()["prefetch_reads"]
            db.load(each)
            if each == ids[0]:
                until(lambda before=reads: db.stats()["prefetch_reads"] > before)  # type: ignore[misc]
        assert db.stats()["prefetch_hits"] > hits
        assert db.stats()["prefetch_on"] is True and db.stats()["prefetch_errors"] == 0
        thread = thread_of(db)
        db._finalizer.detach()
    assert not thread.is_alive()


def test_it_sleeps_when_nothing_is_loaded_and_wakes_with_the_next_load(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        ids = filled(db, 40)
        db.load(ids[0])
        log = db._access
        assert log is not None
        until(lambda: log._call is not None)
        db.load(ids[1])
        prefetcher = db._prefetcher
        assert prefetcher is not None
        until(lambda: is_known(prefetcher, ids[1]))


def test_no_load_wakes_it_while_it_rests(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db") as db:
        ids = filled(db, 40)
        db.load(ids[0])
        prefetcher, log = db._prefetcher, db._access
        assert prefetcher is not None and log is not None
        until(lambda: log._call is not None)
        prefetcher._trial.rest(time.monotonic())
        db.load(ids[1])  # it sleeps, and had asked to be woken by this one
        until(lambda: log._call is None and not prefetcher._wake.is_set())
        for each in ids:
            db.load(each)
            assert log._call is None and not prefetcher._wake.is_set()
        assert db.stats()["prefetch_on"] is False


def test_there_is_no_thread_as_long_as_there_is_nothing_to_read(tmp_path: Path) -> None:
    others = set(threading.enumerate())
    with Database.file_based(tmp_path / "db") as db:
        (one,) = saved(db)
        db.load(one)
        assert db._prefetcher is not None and db._prefetcher._thread is None
        db.flush()
        for _ in range(600):
            db.load(one)
        thread_of(db)
    assert set(threading.enumerate()) <= others


def test_close_ends_it_whatever_it_does(tmp_path: Path) -> None:
    db = Database.file_based(tmp_path / "db", cache_size=32)
    ids = filled(db)
    db.close()
    for round_ in range(15):
        db = Database.open(tmp_path / "db", cache_size=32)
        for each in ids[: 20 * (round_ % 5) + 1]:
            db.load(each)
        thread = thread_of(db)
        time.sleep(0.002 * (round_ % 3))
        db.close()
        assert not thread.is_alive()
        db.close()


def test_an_engine_that_is_closed_meanwhile_ends_it(tmp_path: Path) -> None:
    db = Database.file_based(tmp_path / "db")
    ids = filled(db, 40)
    db.load(ids[0])
    thread = thread_of(db)
    db._engine.close()
    prefetcher = db._prefetcher
    assert prefetcher is not None
    prefetcher._wake.set()
    thread.join(60)
    assert not thread.is_alive() and prefetcher.errors == 0
    db.close()


def test_what_fails_in_it_is_counted_and_it_rests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Database.file_based(tmp_path / "db") as db:
        ids = filled(db, 40)

        def fail(prefetcher: Prefetcher, key: bytes) -> None:
            raise OSError(5, "a sick disk")

        monkeypatch.setattr(Prefetcher, "_read_ahead", fail)
        assert db.load(ids[0]).id == ids[0]
        until(lambda: db.stats()["prefetch_errors"] == 1)
        until(lambda: db.stats()["prefetch_on"] is False)
        for each in ids:
            assert db.load(each).id == each
        db.delete(ids[0])
        assert thread_of(db).is_alive()


def test_a_database_that_is_dropped_ends_it_and_keeps_what_it_knows(tmp_path: Path) -> None:
    db = Database.file_based(tmp_path / "db")
    ids = filled(db, 40)
    for each in ids[:10]:
        db.load(each)
    prefetcher, thread = db._prefetcher, thread_of(db)
    assert prefetcher is not None
    until(lambda: is_known(prefetcher, ids[9]))
    del db
    thread.join(60)
    assert not thread.is_alive()
    with Database.open(tmp_path / "db") as again:
        assert again._prefetcher is not None and is_known(again._prefetcher, ids[9])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_a_forked_child_is_closed_whatever_the_thread_was_doing(tmp_path: Path) -> None:
    db = Database.file_based(tmp_path / "db")
    ids = filled(db, 40)
    db.load(ids[0])
    prefetcher = db._prefetcher
    assert prefetcher is not None
    with prefetcher._entered(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
        if not child:
            try:
                db.load(ids[1])
            except engramdb.ClosedError:
                db.close()
                os._exit(0)
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0
    assert db.load(ids[1]).id == ids[1]
    db.close()


def test_it_goes_on_while_others_save_merge_and_purge(tmp_path: Path) -> None:
    with Database.file_based(tmp_path / "db", cache_size=32, memtable_bytes=4096) as db:
        ids = filled(db, 60)
        purged, done, wrong = ids[40:], threading.Event(), list[BaseException]()

        def walk(seed: int) -> None:
            rng = random.Random(seed)
            try:
                while not done.is_set():
                    start = rng.randrange(30)
                    for each in ids[start : start + 10]:
                        assert db.load(each).id == each
                        db.get(rng.choice(purged))
                        time.sleep(0.001)
            except BaseException as error:
                wrong.append(error)

        walkers = [threading.Thread(target=walk, args=(seed,)) for seed in range(2)]
        for walker in walkers:
            walker.start()
        for number, each in enumerate(purged):
            node = db.load(ids[number])
            node.set_attribute("round", number)
            db.save(node)
            db.purge(each)
            if number % 5 == 0:
                db.compact()
                db.flush()
        done.set()
        for walker in walkers:
            walker.join()
        prefetcher = db._prefetcher
        assert prefetcher is not None
        assert wrong == [] and prefetcher.errors == 0
        until(lambda: is_known(prefetcher, ids[35]))
    needles = Needles()  # of ids that were made together and share their first half
    needles.strings = {key_of(each) for each in purged} | {each.encode() for each in purged}
    kept = (tmp_path / "db/derived/prefetch.drv").read_bytes()
    assert key_of(ids[35]) in kept
    assert traces(files_of(PosixEnvironment(), str(tmp_path / "db")), needles) == []
