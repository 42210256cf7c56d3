"""Bugs of the whole database that a hostile review found, one test each."""

from __future__ import annotations

import gc
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import engramdb
from engramdb import Database, MemoryNode
from engramdb.errors import (
    ClosedError,
    CorruptionError,
    EngramError,
    HistoryUnavailableError,
    StoragePoisonedError,
)
from engramdb.lsm import Batch, Options, StorageEngine, bulk, compaction, flush, rewrite
from engramdb.lsm import committer as committer_module
from engramdb.lsm.environment import MemoryEnvironment, posix
from tests.unit.lsm_support import columns

WAIT_S = 30.0


class Gate:
    """Takes the place of a function: one thread, by its name, is held in it until let through."""

    def __init__(self, function: Callable[..., Any], thread: str) -> None:
        self.entered, self.opened = threading.Event(), threading.Event()
        self._function, self._thread = function, thread

    def __call__(self, *arguments: Any) -> Any:
        if threading.current_thread().name == self._thread:
            self.entered.set()
            assert self.opened.wait(WAIT_S)
        return self._function(*arguments)


def in_thread(name: str, work: Callable[[], object], errors: list[Exception]) -> threading.Thread:
    """A started thread that collects what it raises."""

    def run() -> None:
        try:
            work()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("kind", ["compact", "bulk"])
def test_close_waits_for_whoever_still_writes_files(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise that thread goes on in a directory that belongs to the next one who opens it, and
    moves its file over one of theirs that has the same number."""
    db = Database.file_based(tmp_path, background=False)
    for _ in range(3):
        db.save_many([MemoryNode([1.0, float(i)]) for i in range(10)])
        db.flush()
    first = db.list_all()[0]
    gate = Gate(rewrite.write_rows, "busy")
    monkeypatch.setattr(compaction if kind == "compact" else bulk, "write_rows", gate)

    def work() -> None:
        if kind == "compact":
            db.compact()
        else:
            batch = columns(range(10), dimension=2)
            bulk.ingest(db._engine._core, batch, bulk.check_columns(batch, 2))

    errors: list[Exception] = []
    busy = in_thread("busy", work, errors)
    assert gate.entered.wait(WAIT_S)
    closing = in_thread("closing", db.close, errors)
    closing.join(0.5)
    if not closing.is_alive():  # as it was: the next one has the directory
        other = Database.file_based(tmp_path, background=False)
        if kind == "compact":
            other.purge(first)
        gate.opened.set()
        busy.join(WAIT_S)
        if kind == "bulk":
            other.purge(first)
        other.save(MemoryNode([3.0, 4.0]))
        other.close()
    gate.opened.set()
    busy.join(WAIT_S)
    closing.join(WAIT_S)
    assert not busy.is_alive() and not closing.is_alive()
    assert all(isinstance(error, ClosedError) for error in errors)
    with Database.file_based(tmp_path) as db:
        assert db.verify().ok
        assert len(db) in (30, 40)


def test_a_dropped_database_may_be_collected_by_its_own_background_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closing waits for that thread, which cannot wait for itself."""
    gate = Gate(rewrite.write_rows, "engramdb_flush_loop")
    problems: list[object] = []

    def write_rows(*arguments: Any) -> Any:
        written = gate(*arguments)
        if threading.current_thread().name == "engramdb_flush_loop":
            gc.collect()
        return written

    monkeypatch.setattr(flush, "write_rows", write_rows)
    monkeypatch.setattr("sys.unraisablehook", problems.append)
    monkeypatch.setattr("threading.excepthook", problems.append)
    monkeypatch.setattr("sys.excepthook", lambda *problem: problems.append(problem))
    gc.disable()
    try:
        db = Database.file_based(tmp_path, memtable_bytes=4096)
        circle: list[object] = [db]
        circle.append(circle)
        ids = [db.save(MemoryNode(attributes={"text": "x" * 500})) for _ in range(10)]
        assert gate.entered.wait(WAIT_S)
        core = db._engine._core
        del db, circle
        gate.opened.set()
        deadline = time.monotonic() + WAIT_S
        while not core.closed and time.monotonic() < deadline:
            time.sleep(0.01)
    finally:
        gc.enable()
    for thread in threading.enumerate():
        if thread.name.startswith("engramdb"):
            thread.join(WAIT_S)
    assert core.closed and core.poison is None and not problems
    with Database.file_based(tmp_path) as again:
        assert again.list_all() == sorted(ids)


def test_a_dropped_database_may_be_collected_while_another_is_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The collector runs wherever something is allocated, in the guarded part of lock() too."""
    dropped: list[object] = [Database.file_based(tmp_path / "dropped")]
    dropped.append(dropped)
    take = posix._take_flock

    def collect_and_take(fd: int) -> None:
        gc.collect()
        take(fd)

    monkeypatch.setattr(posix, "_take_flock", collect_and_take)
    del dropped
    errors: list[Exception] = []
    opened: list[Database] = []
    opening = in_thread(
        "opening", lambda: opened.append(Database.file_based(tmp_path / "other")), errors
    )
    opening.join(WAIT_S / 3)
    assert not opening.is_alive() and not errors
    opened[0].close()
    Database.file_based(tmp_path / "dropped").close()


@pytest.mark.parametrize(
    "stray",
    [
        "wal/000001.wal~",
        "wal/000001.wal.bak",
        "wal/000099.wal.bak",
        "wal/1.wal",
        "wal/\u00b2.wal",
        "wal/@eaDir/",
        "seg/@eaDir/",
        "seg/\u00b2.seg",
        "vec/@eaDir/",
        "vec/000001.old/",
        "tmp/@eaDir/",
        "readers/@eaDir/",
        "readers/.DS_Store",
        "@eaDir/",
    ],
)
def test_what_others_leave_in_the_directories_is_left_alone(stray: str, tmp_path: Path) -> None:
    """Editors, file managers and network drives put their own files everywhere."""
    origin, copy = tmp_path / "origin", tmp_path / "copy"
    with Database.file_based(origin) as db:
        ids = db.save_many([MemoryNode([1.0, 2.0]), MemoryNode([2.0, 1.0])])
        shutil.copytree(origin, copy)  # as a process that was killed leaves it
    place = copy / stray
    place.parent.mkdir(exist_ok=True)
    if stray.endswith("/"):
        place.mkdir()
    elif "000001" in stray or stray == "wal/1.wal":
        shutil.copy(copy / "wal" / "000001.wal", place)
    else:
        place.touch()
    for _ in range(2):
        with Database.file_based(copy) as db:
            assert db.list_all() == sorted(ids)
            ids.append(db.save(MemoryNode([3.0, 3.0])))
            with Database.open(copy, read_only=True) as reader:
                assert len(reader) == len(ids)
            db.flush()
            db.compact()
            ids.append(db.save(MemoryNode([3.0, 3.0])))
            db.purge(ids.pop(0))
            assert db.verify().ok and db.stats()
    if not stray.startswith("tmp/"):
        assert place.exists()


def test_whoever_shares_a_commit_with_an_interrupted_thread_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ctrl-C reaches the thread that leads a group commit while it waits for room."""
    db = Database.in_memory()
    core, committer = db._engine._core, db._engine._committer
    make_room, calls = committer._make_room, iter(range(9))

    def interrupted() -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        make_room()

    monkeypatch.setattr(committer, "_make_room", interrupted)
    outcomes: dict[str, BaseException | None] = {}

    def save(name: str) -> None:
        try:
            db.save(MemoryNode([1.0]))
            outcomes[name] = None
        except BaseException as error:
            outcomes[name] = error

    threads = []
    with core.write_lock:
        for position, name in enumerate("abc"):
            threads.append(threading.Thread(target=save, args=(name,), daemon=True))
            threads[-1].start()
            deadline = time.monotonic() + WAIT_S
            while len(committer._queue) != position or committer._leader is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
    for thread in threads:
        thread.join(WAIT_S)
    assert outcomes["a"] is None
    assert isinstance(outcomes["b"], KeyboardInterrupt)
    assert isinstance(outcomes["c"], EngramError)
    assert len(db) == 1
    db.save(MemoryNode([2.0]))
    assert len(db) == 2
    db.close()


def test_changes_are_refused_even_if_they_are_dropped_at_this_moment() -> None:
    """The floor and the files have to be of one moment."""
    db = Database.in_memory(history=engramdb.KeepLast(1), background=False)
    node = MemoryNode([1.0])
    for _ in range(4):
        db.save(node)
    engine = db._engine
    latest = engine.latest

    def compact_and_look() -> object:
        engine.compact()
        return latest()

    engine.latest = compact_and_look  # type: ignore[assignment, method-assign]
    try:
        seqs = [change.seq for change in engine.changes(0)]
    except HistoryUnavailableError:
        seqs = [1, 2, 3, 4]
    assert seqs == [1, 2, 3, 4]
    del engine.latest
    db.close()


def test_whoever_writes_files_again_and_again_does_not_keep_close_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Locks are not fair: nothing new may begin once close() has been called."""
    db = Database.in_memory(background=False)
    db.save(MemoryNode([1.0]))
    gate = Gate(db._engine._core.freeze, "closing")
    monkeypatch.setattr(db._engine._core, "freeze", gate)
    errors: list[Exception] = []
    closing = in_thread("closing", db.close, errors)
    assert gate.entered.wait(WAIT_S)
    batch = columns(range(3), dimension=1)
    refused: list[Exception] = []

    def begin() -> None:
        with pytest.raises(ClosedError, match="being closed"):
            bulk.ingest(db._engine._core, batch, bulk.check_columns(batch, 1))
        with pytest.raises(ClosedError, match="being closed"):
            compaction.compact_all(db._engine._core)

    try:
        in_thread("late", begin, refused).join(1)
    finally:
        gate.opened.set()
    closing.join(WAIT_S)
    assert not closing.is_alive() and not errors and not refused


def test_bad_arguments_are_refused_by_name() -> None:
    with Database.in_memory() as db:
        db.save(MemoryNode([1.0]))
        assert db.changes(2**70) == []
        with pytest.raises(engramdb.InvalidInputError, match="nodes"):
            db.save_many(5)  # type: ignore[arg-type]
        with db.transaction() as tx, pytest.raises(engramdb.InvalidInputError, match="nodes"):
            tx.save_many(None)  # type: ignore[arg-type]


def test_an_impatient_user_who_interrupts_twice_stops_nobody_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The one who waits for a commit may be handed the lead; if he has gone, nobody leads."""
    db = Database.in_memory()
    core, committer = db._engine._core, db._engine._committer

    class Turn:
        """A lock that is interrupted twice in one of the threads."""

        def __init__(self) -> None:
            self._lock, self._interrupts = threading.Lock(), iter(range(2))

        def acquire(self) -> None:
            if threading.current_thread().name == "b" and next(self._interrupts, None) is not None:
                raise KeyboardInterrupt
            self._lock.acquire()

        def release(self) -> None:
            self._lock.release()

    class Request(committer_module._Request):
        """Its turn is that one. The first acquire() makes it wait, as in the class itself."""

        __slots__ = ()

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            turn = Turn()
            turn._lock.acquire()
            self.turn = turn  # type: ignore[assignment]

    monkeypatch.setattr(committer_module, "_Request", Request)
    outcomes: dict[str, BaseException | None] = {}

    def save(name: str) -> None:
        try:
            db.save(MemoryNode([1.0]))
            outcomes[name] = None
        except BaseException as error:
            outcomes[name] = error

    threads = []
    with core.write_lock:
        for position, name in enumerate("abc"):
            threads.append(threading.Thread(target=save, args=(name,), name=name, daemon=True))
            threads[-1].start()
            deadline = time.monotonic() + WAIT_S
            while len(committer._queue) != position or committer._leader is None:
                assert time.monotonic() < deadline
                time.sleep(0.001)
        time.sleep(0.05)
    for thread in threads:
        thread.join(WAIT_S / 3)
    assert not any(thread.is_alive() for thread in threads)
    assert outcomes["a"] is None and outcomes["c"] is None
    assert isinstance(outcomes["b"], KeyboardInterrupt)
    assert len(db) == 3
    db.close()


def test_what_the_planner_cannot_read_stops_the_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was swallowed in the background: merging stopped, and nobody was told."""
    engine = StorageEngine.open("/db", Options(), environment=MemoryEnvironment())
    damage = CorruptionError("/db/vec/000001.vec", 64, "a sum", "another")

    def unreadable(*_: object) -> None:
        raise damage

    monkeypatch.setattr(compaction, "plan_segments", unreadable)
    batch = Batch()
    batch.put(bytes(16), b"one")
    engine.commit(batch)
    engine.flush()
    deadline = time.monotonic() + 30
    while engine._core.poison is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with pytest.raises(StoragePoisonedError) as caught:
        engine.commit(batch)
    assert caught.value.cause is damage
    engine.close()
