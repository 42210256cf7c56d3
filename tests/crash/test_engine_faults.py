"""Every call fails once, in every way: a typed error, and nothing that was promised is lost.

Here each call of the workload fails once with EIO, and a part of them in the other ways; `make
stress` tries each way at each call, once and from then on.
"""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import pytest

from engramdb.errors import EngramError, HistoryUnavailableError, StoragePoisonedError
from engramdb.lsm import Batch, StorageEngine
from engramdb.lsm.environment.faults import ANY_CALL
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.environment.trace import Image
from tests.crash.checks import dump
from tests.crash.damage_check import read_everything
from tests.crash.databases import image_of
from tests.crash.driver import PATH, Driver, connect, key, put, vector
from tests.crash.fault_runs import (
    FAULT_OPTIONS,
    FAULTS,
    LOCK,
    POISONED,
    TYPED,
    WatchedDisk,
    calls_of_the_workload,
    fails,
    forty_operations,
    run_with_fault,
)
from tests.crash.faulty import FaultyEnvironment
from tests.crash.watchdog import bounded

GROUPS = 8
THINNED = 40  # of the other ways one fault in so many


@pytest.mark.parametrize("group", range(GROUPS))
def test_each_call_fails_once(group: int) -> None:
    outcomes = Counter(
        run_with_fault(fault) for fault in FAULTS["EIO"].faults(sticky=False)[group::GROUPS]
    )
    assert outcomes[POISONED] > 50 and outcomes[TYPED] > 5


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("name", FAULTS)
def test_calls_fail_in_other_ways(name: str, sticky: bool) -> None:
    faults = FAULTS[name].faults(sticky=sticky)
    chosen = faults[len(name) % THINNED :: THINNED]
    outcomes = Counter(run_with_fault(fault) for fault in chosen)
    assert outcomes.total() == len(chosen) >= 4


def test_the_workload_makes_every_kind_of_call() -> None:
    calls = calls_of_the_workload()
    assert calls.total() > 1000
    reading = {"lock_is_held"}  # that only a reader asks
    kinds = {call for fault in FAULTS.values() for call in fault.calls} - {ANY_CALL} - reading
    assert not kinds - calls.keys() - {"truncate"}, "a kind of fault that is never tried"


def closed_database() -> Image:
    """Everything that the workload leaves, and a log."""
    disk = SimulatedDisk()
    driver = Driver(disk, FAULT_OPTIONS)
    forty_operations(driver)
    driver._open()
    driver.commit(put(1, b"in the log", 1), connect(3, 4))
    return image_of(disk)


IMAGE = closed_database()


def each_call(image: Image, sticky: bool, act: Callable[[WatchedDisk, str], None]) -> None:
    """Do something on the same disk again and again, with its first call failing, its second, ...
    until none is left to fail; and after each the database is free and sound."""
    for nth in count(1):
        disk = WatchedDisk(image=image)
        fault = disk.fail(ANY_CALL, nth, sticky=sticky)
        line = f"disk.fail(ANY_CALL, {nth}, {sticky=})"
        bounded(lambda disk=disk, line=line: act(disk, line), line)  # type: ignore[misc]
        disk.heal()
        assert disk.open_files() == [], f"{line}: open files"
        if disk.exists(PATH):
            assert not disk.lock_is_held(LOCK), f"{line}: the lock is held"
            assert not disk.exists(f"{PATH}/readers") or not any(
                disk.lock_is_held(f"{PATH}/readers/{name}") for name in disk.list(f"{PATH}/readers")
            ), f"{line}: a reader's lock is held"
        with StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk) as again:
            assert again.verify().ok, line
        if not fault.fired:
            assert nth > 20
            return


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
@pytest.mark.parametrize("read_only", [False, True], ids=["write", "read"])
def test_opening_fails(read_only: bool, sticky: bool) -> None:
    def act(disk: WatchedDisk, line: str) -> None:
        try:
            engine = StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk, read_only=read_only)
        except EngramError as error:
            # while somebody still holds the error, and with it the frames that it came through
            assert disk.open_files() == [], f"{line}: {error} leaves files open"
            return
        fails(engine.close)

    each_call(IMAGE, sticky, act)


@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_creating_fails(sticky: bool) -> None:
    def act(disk: WatchedDisk, line: str) -> None:
        with suppress(EngramError):
            StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk).close()

    each_call(image_of(SimulatedDisk()), sticky, act)


def test_reading_fails() -> None:
    """An error while reading is typed, and the next read gives the right answer."""
    with StorageEngine.open(PATH, FAULT_OPTIONS, environment=WatchedDisk(image=IMAGE)) as sound:
        expected = dump(sound)

    def act(disk: WatchedDisk, line: str) -> None:
        try:
            engine = StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk)
        except EngramError:
            return
        try:
            assert dump(engine) == expected, f"{line}: wrong answers"
        except EngramError as error:
            assert not isinstance(error, HistoryUnavailableError)
        disk.heal()
        assert dump(engine) == expected, f"{line}: wrong answers later"
        assert engine.verify().ok
        engine.close()

    each_call(IMAGE, False, act)


@pytest.mark.parametrize("error", [errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("sticky", [False, True], ids=["once", "sticky"])
def test_following_fails(error: int, sticky: bool) -> None:
    """A reader's own calls fail, while a writer beside it goes on: what it answers is always a
    state that was, and when the fault is gone it follows again."""
    for nth in count(1):
        disk = SimulatedDisk(3)
        line = f"reader.fail(ANY_CALL, {nth}, error={error}, {sticky=})"
        reader = FaultyEnvironment(disk)
        fault = reader.fail(ANY_CALL, nth, error=error, sticky=sticky)
        bounded(lambda d=disk, r=reader, n=line: follow(d, r, n), line)  # type: ignore[misc]
        if not fault.fired:
            assert nth > 100
            return


def follow(disk: SimulatedDisk, around: FaultyEnvironment, line: str) -> None:
    """A writer and a reader by turns."""
    writer = StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk)
    reader: StorageEngine | None = None
    seen = 0
    for step in range(6):
        batch = Batch()
        batch.put(key(step % 4), b"%d" % step * 300, vector(step))
        writer.commit(batch)
        if step == 3:
            writer.flush()
        try:
            if reader is None:
                reader = StorageEngine.open(PATH, FAULT_OPTIONS, environment=around, read_only=True)
            reader.refresh()
            got = read_everything(reader)
        except EngramError as error:
            assert fault_like(error, around), f"{line}: {error!r}"
            continue
        assert seen <= got.last_seq <= step + 1, f"{line}: went back to {got.last_seq}"
        seen = got.last_seq
        want = read_everything(writer)
        assert got.moments == want.moments[: len(got.moments)], f"{line}: wrong answers"
    around.heal()
    if reader is None:
        reader = StorageEngine.open(PATH, FAULT_OPTIONS, environment=around, read_only=True)
    assert reader.refresh() == writer.last_seq == 6, f"{line}: does not follow any more"
    assert read_everything(reader).moments == read_everything(writer).moments
    reader.close()
    if disk.exists(f"{PATH}/readers"):  # not if that could not be made
        assert not disk.list(f"{PATH}/readers"), f"{line}: its lock is left"
    writer.close()


def fault_like(error: EngramError, around: FaultyEnvironment) -> bool:
    """An error of the disk, or damage where EIO is what damage looks like; never a wrong word."""
    if around._fault is None:
        return False
    cause = error.cause if isinstance(error, StoragePoisonedError) else error.__cause__
    return isinstance(cause, OSError)
