"""The end of an engine: closed, forked away from, or poisoned; each says clearly what it is."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from engramdb.errors import ClosedError, StoragePoisonedError
from engramdb.lsm import KeepAll, StorageEngine
from engramdb.lsm.environment import MemoryEnvironment
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import (
    PATH,
    assert_consistent,
    columns,
    contents,
    core_of,
    delete,
    key,
    open_engine,
    put,
    value,
    vec,
)

USES: dict[str, Callable[[StorageEngine], object]] = {
    "commit": lambda e: put(e, 1, b"x"),
    "commit_columns": lambda e: e.commit_columns(columns(range(3))),
    "latest": lambda e: e.latest(),
    "snapshot": lambda e: e.snapshot(),
    "at": lambda e: e.at(0),
    "seq_at": lambda e: e.seq_at(0),
    "changes": lambda e: e.changes(0),
    "pin": lambda e: e.pin("p"),
    "unpin": lambda e: e.unpin("p"),
    "pins": lambda e: e.pins(),
    "set_history": lambda e: e.set_history(KeepAll()),
    "flush": lambda e: e.flush(),
    "compact": lambda e: e.compact(),
    "purge": lambda e: e.purge([key(1)]),
    "fork": lambda e: e.fork("/fork"),
    "checkpoint": lambda e: e.checkpoint("/checkpoint"),
    "verify": lambda e: e.verify(),
    "stats": lambda e: e.stats(),
    "refresh": lambda e: e.refresh(),
    "wait_durable": lambda e: e.wait_durable(1),
    "check_open": lambda e: e.check_open(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_use_after_close(use: Callable[[StorageEngine], object]) -> None:
    engine = open_engine(MemoryEnvironment())
    put(engine, 1, b"x")
    engine.close()
    engine.close()
    with pytest.raises(ClosedError, match="it was closed; open it again"):
        use(engine)
    engine.close()


def test_closing_flushes_so_that_opening_has_nothing_to_do() -> None:
    disk = SimulatedDisk()
    with open_engine(disk, durability="os") as engine:
        for i in range(10):
            put(engine, i, b"x", vec(i, 1))
        held = contents(engine.latest())
    assert disk.list(f"{PATH}/wal") == [] and disk.list(f"{PATH}/tmp") == []
    with open_engine(disk.crash(())) as engine:
        assert contents(engine.latest()) == held


def test_threads_that_close_at_once_and_writers_meanwhile(tmp_path: Path) -> None:
    path = str(tmp_path)
    for round_ in range(5):
        engine = open_engine(None, path, background=True)
        acknowledged: list[int] = []
        failures: list[BaseException] = []

        def write(
            engine: StorageEngine = engine,
            acknowledged: list[int] = acknowledged,
            failures: list[BaseException] = failures,
            round_: int = round_,
        ) -> None:
            try:
                for i in range(1000):
                    put(engine, round_ * 1000 + i, b"x")
                    acknowledged.append(round_ * 1000 + i)
            except ClosedError:
                pass
            except BaseException as error:
                failures.append(error)

        def close(engine: StorageEngine = engine, failures: list[BaseException] = failures) -> None:
            try:
                engine.close()
            except BaseException as error:
                failures.append(error)

        writer = threading.Thread(target=write)
        writer.start()
        while not acknowledged:
            pass
        closers = [threading.Thread(target=close) for _ in range(3)]
        for thread in closers:
            thread.start()
        for thread in (*closers, writer):
            thread.join()
        assert not failures
        with open_engine(None, path) as again:
            assert all(value(again.latest(), i) == b"x" for i in acknowledged)


def test_a_thread_that_closes_between_the_steps_of_another_that_closes() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"x")
    real = engine._maintenance.stop

    def stop() -> None:
        engine._maintenance.stop = real  # type: ignore[method-assign]
        other = threading.Thread(target=engine.close)
        other.start()
        other.join()
        real()

    engine._maintenance.stop = stop  # type: ignore[method-assign]
    engine.close()
    with pytest.raises(ClosedError):
        engine.latest()
    with open_engine(disk) as again:
        assert value(again.latest(), 1) == b"x"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:This process")
def test_in_a_forked_child_it_is_closed_and_the_parent_notices_nothing(tmp_path: Path) -> None:
    engine = open_engine(None, str(tmp_path), background=True)
    put(engine, 1, b"x")
    child = os.fork()
    if child == 0:
        wrong = 0
        for use in USES.values():
            try:
                use(engine)
                wrong += 1
            except ClosedError as error:
                wrong += "forked" not in str(error)
            except BaseException:
                wrong += 1
        try:
            engine.close()
        except BaseException:
            wrong += 1
        os._exit(min(wrong, 100))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert put(engine, 2, b"y").seq == 2
    assert_consistent(engine)
    engine.close()
    with open_engine(None, str(tmp_path)) as again:
        assert again.last_seq == 2


# Poison


@pytest.mark.parametrize("kind", ["write_at", "sync_data"])
@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
def test_after_a_failed_write_nothing_is_acknowledged_any_more(kind: str, error: int) -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"acknowledged", vec(1, 2))
    disk.fail(kind, error=error)
    with pytest.raises(StoragePoisonedError) as caught:
        put(engine, 2, b"failed", vec(3, 4))
    assert isinstance(caught.value.cause, OSError) and caught.value.cause.errno == error
    disk.heal()  # too late: what the failed call left is not known
    writes = dict(disk.calls)
    for name in ("commit", "commit_columns", "flush", "compact", "purge", "pin", "set_history",
                 "fork", "unpin", "wait_durable"):  # fmt: skip
        with pytest.raises(StoragePoisonedError, match="stopped writing"):
            USES[name](engine)
    assert disk.calls["write_at"] == writes["write_at"], "a poisoned engine writes nothing"
    assert disk.calls["sync_data"] == writes["sync_data"], "a failed sync is never tried again"
    # reading goes on, without what failed
    assert value(engine.latest(), 1) == b"acknowledged" and value(engine.latest(), 2) is None
    assert engine.last_seq == 1 and engine.latest().count(MEMORY) == 1
    engine.close()
    assert disk.calls["write_at"] == writes["write_at"]
    with open_engine(disk) as again:
        assert value(again.latest(), 1) == b"acknowledged"
        assert value(again.latest(), 2) in (None, b"failed")
        assert_consistent(again)
        put(again, 3, b"mended")


def test_a_flush_that_waited_for_a_failing_commit_does_not_write_it() -> None:
    # flush() saw a sound engine, then the group before it failed: its rows must not reach a file,
    # and the log must not be synced a second time
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"acknowledged")
    core = core_of(engine)
    outcome: list[BaseException] = []

    def flush() -> None:
        try:
            engine.flush()
        except BaseException as error:
            outcome.append(error)

    log = core.log
    assert log is not None

    def failing_sync() -> None:
        thread.start()
        while not waiting.is_set():
            pass
        raise OSError(errno.EIO, "the disk is gone")

    waiting = threading.Event()
    real = core.check_writable

    def check_writable() -> None:
        real()
        if threading.current_thread() is thread:
            waiting.set()

    core.check_writable = check_writable  # type: ignore[method-assign]
    log.sync = failing_sync  # type: ignore[method-assign]
    thread = threading.Thread(target=flush)
    with pytest.raises(StoragePoisonedError):
        put(engine, 2, b"failed")
    thread.join()
    assert [type(error) for error in outcome] == [StoragePoisonedError]
    assert core.manifest.last_seq == 0 and disk.list(f"{PATH}/seg") == []
    engine.close()


def test_a_wait_for_durability_never_claims_what_failed() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk, durability="os")
    seq = put(engine, 1, b"x").seq
    core = core_of(engine)
    real = core.sync_log

    def poisoned_in_between() -> None:
        core.fail(OSError(errno.EIO, "elsewhere"))
        real()

    core.sync_log = poisoned_in_between  # type: ignore[method-assign]
    with pytest.raises(StoragePoisonedError):
        engine.wait_durable(seq)
    engine.close()


@pytest.mark.parametrize("kind", ["write_at", "sync", "rename", "link", "sync_directory", "unlink"])
@pytest.mark.parametrize("action", ["flush", "compact", "purge"])
def test_a_failed_rewrite_loses_nothing(kind: str, action: str) -> None:
    for nth in (1, 2, 3):
        disk = SimulatedDisk(seed=nth)
        engine = open_engine(disk)
        for i in range(3):
            put(engine, i, b"old", vec(i, 1))
            engine.flush()
        put(engine, 0, b"new", vec(9, 9))
        delete(engine, 1)
        held = contents(engine.latest())
        disk.fail(kind, nth)
        failed = False
        try:
            {"flush": engine.flush, "compact": engine.compact}.get(
                action, lambda e=engine: e.purge([key(77)])
            )()
        except StoragePoisonedError:
            failed = True
            with pytest.raises(StoragePoisonedError):
                put(engine, 5, b"never")
        disk.heal()
        assert contents(engine.latest()) == held
        engine.close()
        for after in (disk, disk.crash(())):
            with open_engine(after) as again:
                assert contents(again.latest()) == held, (failed, nth)
                assert_consistent(again)
