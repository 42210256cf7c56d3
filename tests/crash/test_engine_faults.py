"""Every call fails once, in every way: a typed error, and nothing that was promised is lost."""

from __future__ import annotations

import errno
import gc
import random
import weakref
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from engramdb.errors import EngramError, HistoryUnavailableError, StoragePoisonedError
from engramdb.lsm import Batch, StorageEngine
from engramdb.lsm.environment import File
from engramdb.lsm.environment.base import Mode
from engramdb.lsm.environment.faults import ANY_CALL
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.environment.trace import Acknowledged, Issued
from engramdb.lsm.records import EDGE, MEMORY
from engramdb.lsm.retention import KeepLast
from tests.crash.checks import check_database, check_now, dump, match
from tests.crash.driver import PATH, SMALL, Driver, connect, delete, disconnect, key, put
from tests.crash.oracle import World

OPTIONS = replace(SMALL, memtable_bytes_max=2500, log_allocate_bytes=512, bulk_bytes_min=1)


class WatchedDisk(SimulatedDisk):
    """Knows which files are open."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed)
        self.handles: list[weakref.ref[File]] = []

    def open(self, path: str, mode: Mode) -> File:
        file = super().open(path, mode)
        watched = type("Watched", (type(file),), {"__slots__": ("__weakref__",)})
        handle: File = watched(self, path, file._node, mode != "r")  # type: ignore[attr-defined]
        self.handles.append(weakref.ref(handle))
        return handle

    def open_files(self) -> list[str]:
        """The paths of the files that nobody closed or let go."""
        if self._open():
            gc.collect()  # takes a while
        return self._open()

    def _open(self) -> list[str]:
        living = [handle() for handle in self.handles]
        return [f.path for f in living if f is not None and f._node is not None]  # type: ignore[attr-defined]


def forty_operations(driver: Driver) -> None:
    """Something of everything, with flushes, merges and reopenings on the way."""
    for i in range(6):
        driver.commit(put(i, bytes([97 + i]) * 300, i), put(9, b"again %d" % i, 1))
    driver.commit(connect(1, 2), connect(2, 3))
    driver.commit(delete(1), disconnect(1, 2), sync=False)
    driver.wait_durable()
    driver.pin("here")
    driver.flush()
    driver.bulk(put(3, b"bulk", 7), put(11, b"bulk", 8))
    for i in range(6):
        driver.commit(put(i, b"second " * 60, i), sync=i % 2 == 0)
    driver.set_history(KeepLast(1))
    driver.compact()
    driver.commit(put(4, b"patched", 4))
    driver.unpin("here")
    driver.reopen()
    for i in range(6):
        driver.commit(put(i, b"third " * 90, i + 1), delete(9) if i == 3 else put(9, b"x", 2))
    driver.purge(2, 11)
    driver.fork("/fork")
    driver.commit(put(2, b"new life", 1))
    driver.compact()
    driver.close()


def calls_of_the_workload() -> dict[str, int]:
    """How often each kind of call is made after the database was created."""
    disk = SimulatedDisk()
    driver = Driver(disk, OPTIONS)
    disk.calls.clear()
    forty_operations(driver)
    return dict(disk.calls)


CALLS = calls_of_the_workload()
TOTAL = sum(CALLS.values())


def world_of(disk: SimulatedDisk) -> World:
    events = disk.trace.events
    return World.of(
        [event.what for event in events if isinstance(event, Issued)],
        [event.what for event in events if isinstance(event, Acknowledged)],
    )


def fails(act: Callable[[], object]) -> str:
    """The error's name, "" if there was none; not an error object, which holds on to files."""
    try:
        act()
    except EngramError as error:
        return type(error).__name__
    return ""


def run_with_fault(arm: Callable[[SimulatedDisk], object], line: str) -> None:
    """The workload with one fault, and all that must hold after it."""
    disk = WatchedDisk()
    driver = Driver(disk, OPTIONS)
    arm(disk)
    problem = fails(lambda: forty_operations(driver))
    engine = driver.engine
    if problem and not engine._core.closed:
        if engine._core.poison is None:
            assert problem != "StoragePoisonedError", f"{line}: not poisoned"
        else:
            refuses_writes(engine)
        latest = engine.latest()
        fails(lambda: (latest.count(MEMORY), latest.get(MEMORY, key(9)), latest.count(EDGE)))
        del latest
    fails(driver.close)
    fails(driver.close)
    assert disk.open_files() == [], f"{line}: files are open after close()"
    disk.heal()
    world = world_of(disk)
    for crashed in (disk.crash([]), disk.crash(rng=random.Random(line))):
        after_power_cut = StorageEngine.open(PATH, OPTIONS, environment=crashed)
        check_now(after_power_cut, match(after_power_cut, world)[0])
        after_power_cut._core.close("read")
    goes_on(disk, world)


def refuses_writes(engine: StorageEngine) -> None:
    """A poisoned engine acknowledges nothing more."""
    batch = Batch()
    batch.put(key(50), b"refused", None)
    for write in (
        lambda: engine.commit(batch),
        engine.flush,
        engine.compact,
        lambda: engine.pin("refused"),
        lambda: engine.purge([key(1)]),
    ):
        with pytest.raises(StoragePoisonedError):
            write()


def goes_on(disk: SimulatedDisk, world: World) -> None:
    """Opened again on the same machine, whose page cache may know more than the disk: what it
    shows, and what is written then, survives a power cut."""
    reopened = StorageEngine.open(PATH, OPTIONS, environment=disk)
    check_database(reopened, match(reopened, world)[0])
    batch = Batch()
    batch.put(key(60), b"after the failure", None)
    seq = reopened.commit(batch, sync=True).seq
    reopened._core.close("its process was killed")
    again = StorageEngine.open(PATH, OPTIONS, environment=disk.crash([]))
    assert again.last_seq == seq, f"{again.last_seq} commits after the next power cut, not {seq}"
    record = again.latest().get(MEMORY, key(60))
    assert record is not None and record.payload == b"after the failure"
    again._core.close("read")


KINDS = [
    ("EIO", {"error": errno.EIO}),
    ("ENOSPC", {"error": errno.ENOSPC}),
    ("short", {"error": errno.ENOSPC, "partial": 100}),
    ("happens", {"error": errno.EIO, "happens": True}),
    ("kept", {"error": errno.EIO, "drop": False}),
]
GROUPS = 4
THINNED = 3


def is_thinned(name: str, sticky: bool) -> bool:
    """EIO, once, at every call; what differs little from that, at every third one."""
    return name in ("ENOSPC", "short") or (name == "EIO" and sticky)


KINDS_OF: dict[str, list[str]] = {
    "EIO": [ANY_CALL],
    "ENOSPC": ["write_at", "open", "rename", "link", "make_directory"],
    "short": ["write_at"],
    "happens": ["rename", "link", "unlink"],
    "kept": ["sync", "sync_data", "sync_directory"],
}


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("group", range(GROUPS))
@pytest.mark.parametrize(("name", "how"), KINDS, ids=[name for name, _ in KINDS])
def test_any_call_fails(name: str, how: dict[str, Any], group: int, sticky: bool) -> None:
    for kind in KINDS_OF[name]:
        count = TOTAL if kind == ANY_CALL else CALLS[kind]
        step = GROUPS * (THINNED if is_thinned(name, sticky) else 1)
        for nth in range(1 + group, count + 1, step):
            line = f"disk.fail({kind!r}, {nth}, sticky={sticky}, **{how})"
            try:
                run_with_fault(partial(_arm, kind=kind, nth=nth, sticky=sticky, how=how), line)
            except Exception as error:
                raise AssertionError(f"{line} -> {type(error).__name__}: {error}") from error


def _arm(disk: SimulatedDisk, *, kind: str, nth: int, sticky: bool, how: dict[str, Any]) -> None:
    disk.fail(kind, nth, sticky=sticky, **how)


def closed_database() -> SimulatedDisk:
    disk = SimulatedDisk()
    driver = Driver(disk, OPTIONS)
    forty_operations(driver)
    driver._open()
    driver.commit(put(1, b"in the log", 1), connect(3, 4))
    driver.kill()
    driver.engine._core.file_lock.release()  # type: ignore[union-attr]
    return disk


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_opening_fails(read_only: bool, sticky: bool) -> None:
    nth = 0
    while True:
        nth += 1
        disk = closed_database().crash([-1] * 1000)
        fault = disk.fail(ANY_CALL, nth, sticky=sticky)
        engine = None
        try:
            with suppress(EngramError):
                engine = StorageEngine.open(PATH, OPTIONS, environment=disk, read_only=read_only)
        except Exception as error:
            raise AssertionError(f"{nth=} {read_only=} {sticky=}: {error!r}") from error
        disk.heal()
        if engine is not None:
            fails(engine.close)
        again = StorageEngine.open(PATH, OPTIONS, environment=disk)
        assert again.verify().ok
        again.close()
        if not fault.fired:
            break
    assert nth > 20


def test_creating_fails() -> None:
    for nth in range(1, 60):
        disk = SimulatedDisk()
        fault = disk.fail(ANY_CALL, nth)
        engine = None
        with suppress(EngramError):
            engine = StorageEngine.open(PATH, OPTIONS, environment=disk)
        disk.heal()
        if engine is not None:
            engine.close()
        StorageEngine.open(PATH, OPTIONS, environment=disk).close()
        if not fault.fired:
            return
    raise AssertionError("creating a database takes very many calls")


def test_reading_fails() -> None:
    """An error while reading is typed, and the next read gives the right answer."""
    disk = closed_database()
    engine = StorageEngine.open(PATH, OPTIONS, environment=disk)
    expected = dump(engine)
    engine._core.file_lock.release()  # type: ignore[union-attr]
    for nth in range(1, 400):
        engine = StorageEngine.open(PATH, OPTIONS, environment=disk)
        fault = disk.fail(ANY_CALL, nth)
        try:
            assert dump(engine) == expected
        except EngramError as error:
            assert not isinstance(error, HistoryUnavailableError)
        disk.heal()
        assert dump(engine) == expected, nth
        assert engine.verify().ok
        engine._core.file_lock.release()  # type: ignore[union-attr]
        if not fault.fired:
            assert nth > 10
            return
    raise AssertionError("reading takes very many calls")
