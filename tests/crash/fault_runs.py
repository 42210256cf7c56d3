"""A workload of forty operations with one call that fails, and all that must hold after it: a typed
error, nothing lost that was promised, no hang, no file left open, no lock held, and the database
opens afterwards and goes on.

    run_with_fault(ArmedFault("sync", 17, dict(error=errno.EIO, sticky=False)))

Each fault is one line, which arms it again. Signals: Python repeats a call that a signal has ended
(EINTR, PEP 475), so what reaches the engine is not EINTR but what the signal's handler throws out
of the call, before it has happened or after. EINTR itself is tried too, for environments that are
not Python's own; the engine must take it for what any error is.
"""

from __future__ import annotations

import errno
import gc
import random
import threading
import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from engramdb.errors import EngramError, StoragePoisonedError
from engramdb.lsm import Batch, Options, StorageEngine
from engramdb.lsm.environment import File
from engramdb.lsm.environment.base import Mode
from engramdb.lsm.environment.crash import CrashState
from engramdb.lsm.environment.faults import ANY_CALL
from engramdb.lsm.environment.simulated import SimulatedDisk, random_choice, reboot
from engramdb.lsm.environment.trace import EMPTY, Acknowledged, Image, Issued
from engramdb.lsm.records import EDGE, MEMORY
from engramdb.lsm.retention import KeepLast
from tests.crash.checks import check_database, check_now, match, oracle_of
from tests.crash.driver import PATH, SMALL, Driver, connect, delete, disconnect, key, put
from tests.crash.oracle import Recovered, World
from tests.crash.watchdog import bounded

FAULT_OPTIONS = replace(SMALL, memtable_bytes_max=2500, log_allocate_bytes=512, bulk_bytes_min=1)
THREADED = replace(FAULT_OPTIONS, background=True, fan_in=2)
LOCK = f"{PATH}/LOCK"
POISONED, TYPED, THROWN, NONE = "poisoned", "typed error", "thrown through", "no error"


class Interrupted(BaseException):
    """What the handler of a signal throws, as KeyboardInterrupt."""


class WatchedDisk(SimulatedDisk):
    """Knows which files are open."""

    def __init__(self, seed: int = 0, image: Image = EMPTY) -> None:
        super().__init__(seed, image=image, generation=1)
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
    driver.commit(connect(1, 2), connect(2, 3), idempotency="once")
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
    driver.checkpoint("/checkpoint")
    driver.compact()
    driver.close()


@cache
def calls_of_the_workload() -> Counter[str]:
    """How often each kind of call is made after the database was created."""
    disk = SimulatedDisk()
    driver = Driver(disk, FAULT_OPTIONS)
    disk.calls.clear()
    forty_operations(driver)
    return disk.calls


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A way to fail: of which calls, and how (the arguments of SimulatedDisk.fail)."""

    calls: tuple[str, ...]
    how: dict[str, Any] = field(hash=False)

    def faults(self, *, sticky: bool) -> list[ArmedFault]:
        """One for each call of the workload that can fail so."""
        counts = calls_of_the_workload()
        return [
            ArmedFault(call, nth, {**self.how, "sticky": sticky})
            for call in self.calls
            for nth in range(1, (counts.total() if call == ANY_CALL else counts[call]) + 1)
        ]


@dataclass(frozen=True, slots=True, repr=False)
class ArmedFault:
    """One call that fails, and if `sticky` all after it."""

    call: str
    nth: int
    how: dict[str, Any] = field(hash=False)

    def __repr__(self) -> str:
        how = ", ".join(
            f"{name}={getattr(value, '__name__', value)}" for name, value in self.how.items()
        )
        return f"ArmedFault({self.call!r}, {self.nth}, dict({how}))"


_SYNCS = ("sync", "sync_data", "sync_directory")
_NAMES = ("rename", "link", "unlink", "make_directory")
FAULTS: dict[str, FaultKind] = {
    "EIO": FaultKind((ANY_CALL,), {"error": errno.EIO}),
    "ENOSPC": FaultKind(
        ("write_at", "open", "truncate", *_SYNCS, *_NAMES), {"error": errno.ENOSPC}
    ),
    "EINTR": FaultKind((ANY_CALL,), {"error": errno.EINTR}),
    "short": FaultKind(("write_at",), {"error": errno.ENOSPC, "partial": 100}),
    "whole": FaultKind(("write_at",), {"error": errno.EIO, "partial": 1 << 30}),
    "happens": FaultKind((*_NAMES, *_SYNCS, "truncate"), {"error": errno.EIO, "happens": True}),
    "kept": FaultKind(_SYNCS, {"error": errno.EIO, "drop": False}),
    "thrown": FaultKind((ANY_CALL,), {"raises": Interrupted, "drop": False}),
    "thrown after": FaultKind(
        ("write_at", *_NAMES, *_SYNCS, "truncate"),
        {"raises": Interrupted, "happens": True, "partial": 1 << 30},
    ),
}


def world_of(disk: SimulatedDisk) -> World:
    """What was issued and acknowledged on it."""
    events = disk.trace.events
    return World.of(
        [event.what for event in events if isinstance(event, Issued)],
        [event.what for event in events if isinstance(event, Acknowledged)],
    )


def fails(act: Callable[[], object]) -> str:
    """The error's name, "" if there was none; not an error object, which holds on to files."""
    try:
        act()
    except (EngramError, Interrupted) as error:
        return type(error).__name__
    return ""


def run_with_fault(fault: ArmedFault, options: Options = FAULT_OPTIONS) -> str:
    """The workload with one fault, and all that must hold after it. AssertionError of one line, or
    what became of it. With THREADED options flush and merge run beside it: which call is the nth
    is not determined then, and a fault may come too late to be noticed."""
    line = f"run_with_fault({fault!r}{', THREADED' if options.background else ''})"
    try:
        return bounded(lambda: _run(fault, options), line)
    except Exception as error:
        raise AssertionError(f"{line}  # {type(error).__name__}: {error}") from error


def _run(fault: ArmedFault, options: Options) -> str:
    others = set(threading.enumerate())
    disk = WatchedDisk()
    driver = Driver(disk, options)
    disk.fail(fault.call, fault.nth, **fault.how)
    outcome = fail_and_close(driver, others, is_sticky=fault.how.get("sticky", False))
    if not options.background:  # what comes of it later may be hidden by a flush
        assert outcome != NONE, "a call failed and nobody was told"
    assert disk.open_files() == [], "files are open after close()"
    assert not disk.lock_is_held(LOCK), "the lock is held after close()"
    world = world_of(disk)
    state = CrashState(disk.trace, len(disk.trace.events))
    for choice in ([], random_choice(state, random.Random(repr(fault)))):
        crashed = reboot(disk.trace, state.image(choice))
        after_power_cut = StorageEngine.open(PATH, FAULT_OPTIONS, environment=crashed)
        check_now(after_power_cut, match(after_power_cut, world)[0])
        after_power_cut._core.close("read")
    _goes_on(disk, world)
    return outcome


def fail_and_close(driver: Driver, others: set[threading.Thread], *, is_sticky: bool) -> str:
    """Run the workload into the fault that its disk is to have, look at the engine, close it, and
    take the fault away. Returns what became of it. `others`: the threads that were there before."""
    problem = fails(lambda: forty_operations(driver))
    outcome = _outcome(problem, driver)
    if problem and not driver.engine._core.closed:
        _check_living(driver, is_sticky)
    # an engine that failed, and could not be asked how far it came, promises nothing by closing
    knows = not problem or not (is_sticky or driver.options.background)
    close = driver.close if knows else driver.engine.close
    fails(close)
    fails(close)
    driver.disk.heal()
    left = set(threading.enumerate()) - others
    threads = [thread.name for thread in left if "engramdb" in thread.name]
    assert not threads, f"{threads} run after close()"
    return outcome


def _outcome(problem: str, driver: Driver) -> str:
    if not problem:
        return NONE
    if driver.engine._core.poison is not None or problem == "StoragePoisonedError":
        return POISONED
    return THROWN if problem == "Interrupted" else TYPED


def _check_living(driver: Driver, sticky: bool) -> None:
    """An engine that has met an error answers right, and either writes on or refuses to."""
    engine, disk = driver.engine, driver.disk
    if engine._core.poison is not None:
        _refuses_writes(engine)
    fails(lambda: _read_some(engine))
    if sticky:
        return
    disk.heal()
    oracle, settings = match(engine, world_of(disk))
    check_now(engine, oracle)
    if engine._core.poison is None and not driver.options.background:
        disk.issue(Recovered(engine.last_seq, settings))
        driver.commits, driver.settings = engine.last_seq, settings
        driver.commit(put(51, b"written after an error", 5), sync=True)


def _read_some(engine: StorageEngine) -> None:
    latest = engine.latest()
    latest.count(MEMORY)
    latest.get(MEMORY, key(9))
    latest.count(EDGE)


def _refuses_writes(engine: StorageEngine) -> None:
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
        try:
            write()
        except StoragePoisonedError:
            continue
        raise AssertionError("a poisoned engine has taken a write")


def _goes_on(disk: SimulatedDisk, world: World) -> None:
    """Opened again on the same machine, whose page cache may know more than the disk: what it
    shows, and what is written then, survives a power cut; so do the copies that were promised."""
    reopened = StorageEngine.open(PATH, FAULT_OPTIONS, environment=disk)
    check_database(reopened, match(reopened, world)[0])
    batch = Batch()
    batch.put(key(60), b"after the failure", None)
    seq = reopened.commit(batch, sync=True).seq
    reopened._core.close("its process was killed")
    after = disk.crash([])
    again = StorageEngine.open(PATH, FAULT_OPTIONS, environment=after)
    assert again.last_seq == seq, f"{again.last_seq} commits after the next power cut, not {seq}"
    record = again.latest().get(MEMORY, key(60))
    assert record is not None and record.payload == b"after the failure"
    again._core.close("read")
    for copied, commits, settings in world.copies:
        copy = StorageEngine.open(copied.path, FAULT_OPTIONS, environment=after, create=False)
        check_now(copy, oracle_of(commits, settings))
        copy.close()
