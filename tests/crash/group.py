"""Concurrent commits with real threads in an order that is always the same.

    group(driver, Asked((put(1, b"a"),)), Asked((put(2, b"b"),), sync=False), ...)

The first thread leads a group of its own and is held inside its sync until the others have queued,
one after the other; then those are one group with one sync. Only the thread that has the baton
runs. A thread that is woken runs to its end before the one that woke it goes on, so whatever the
engine tells a caller too early stands too early in the trace.

A commit is marked as issued when its thread asks for it, which is in the order of the queue and so
of the seqs; what is promised is marked when the call returns.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from engramdb.errors import ConflictError, StoragePoisonedError
from engramdb.lsm import Batch, committer
from engramdb.lsm.log_writer import LogWriter
from tests.crash.driver import Driver
from tests.crash.oracle import Commit, Key, Promise, Write

COMMITTED: Final = "committed"
CONFLICT: Final = "conflict"  # another version than expected: nothing is written
REPEATED: Final = "repeated"  # an idempotency key that was committed before
FAILED: Final = "failed"  # the log cannot be synced: it may be there afterwards or not

HELD_IN_SYNC: Final = "sync"
HELD_IN_APPEND: Final = "append"
PATIENCE_S: Final = 30.0


@dataclass(frozen=True)
class Asked:
    """What one thread asks for, and what it is to be told."""

    writes: tuple[Write, ...]
    sync: bool | None = None
    idempotency: str = ""
    expect: Mapping[Key, int] = field(default_factory=dict)
    outcome: str = COMMITTED


def group(driver: Driver, *asked: Asked, held_in: str = HELD_IN_SYNC) -> None:
    """Commit the first, and while it is being synced queue the others."""
    stage = _Stage()
    threads = [_Caller(driver, stage, one) for one in asked]
    with stage.installed(threads[0], held_in):
        for thread in threads:
            thread.start()
            _wait_for(thread.settled)
        was_held = stage.held
        stage.go.set()
        for thread in threads:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), "a commit hangs"
    for thread in threads:
        if thread.problem is not None:
            raise thread.problem
    assert was_held, f"the first one was never in {held_in}"


def _wait_for(event: threading.Event) -> None:
    assert event.wait(PATIENCE_S), "a thread hangs"


class _Stage:
    """Who may run."""

    def __init__(self) -> None:
        self.baton = threading.Lock()
        self.go = threading.Event()
        self.held = False

    def take_baton(self) -> None:
        assert self.baton.acquire(timeout=PATIENCE_S), "a thread hangs with the baton"

    @contextmanager
    def installed(self, first: _Caller, held_in: str) -> Iterator[None]:
        """Requests of a group take turns by the baton; the first thread is held at the log."""
        real_request, real_call = committer._Request, getattr(LogWriter, held_in)

        def call(log: LogWriter, *arguments: Any) -> None:
            if threading.current_thread() is first and not self.held:
                self.held = True
                first.settled.set()
                self.baton.release()
                _wait_for(self.go)
                self.take_baton()
            real_call(log, *arguments)

        committer._Request = _OrderedRequest  # type: ignore[misc]
        setattr(LogWriter, held_in, call)
        try:
            yield
        finally:
            committer._Request = real_request  # type: ignore[misc]
            setattr(LogWriter, held_in, real_call)


class _Caller(threading.Thread):
    """One of the threads. `settled`: it is held, queued, or done."""

    def __init__(self, driver: Driver, stage: _Stage, asked: Asked) -> None:
        super().__init__(daemon=True)
        self.driver, self.stage, self.asked = driver, stage, asked
        self.settled = threading.Event()
        self.done = threading.Event()
        self.problem: BaseException | None = None

    def run(self) -> None:
        self.stage.take_baton()
        try:
            self._commit()
        except BaseException as error:  # raised again in the thread of the test
            self.problem = error
        finally:
            self.settled.set()
            self.done.set()
            self.stage.baton.release()

    def _commit(self) -> None:
        driver, asked = self.driver, self.asked
        batch = Batch()
        for write in asked.writes:
            driver._add(batch, write)
        batch.expect.update(asked.expect)
        if asked.outcome in (COMMITTED, FAILED):
            driver.disk.issue(Commit(asked.writes, driver.waits(asked.sync)))
            driver.commits += 1
        wanted = driver.commits
        try:
            done = driver.engine.commit(
                batch, sync=asked.sync, idempotency_key=asked.idempotency or None
            )
        except ConflictError:
            assert asked.outcome == CONFLICT, "a conflict that should be none"
            return
        except StoragePoisonedError:
            if asked.outcome == FAILED:
                return
            raise
        assert asked.outcome in (COMMITTED, REPEATED), f"it was to be {asked.outcome}"
        assert asked.outcome == REPEATED or done.seq == wanted, f"{done.seq} instead of {wanted}"
        if driver.waits(asked.sync):
            driver.disk.acknowledge(Promise(done.seq, driver.settings))


class _OrderedRequest(committer._Request):
    """A request of which only the thread that has the baton runs."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        caller = threading.current_thread()
        if isinstance(caller, _Caller):
            self.turn = _Turn(self, caller)  # type: ignore[assignment]


class _Turn:
    """Its lock: whoever waits gives the baton away, and whoever has been told what became of his
    commit runs to his end at once."""

    def __init__(self, request: _OrderedRequest, caller: _Caller) -> None:
        self.request, self.caller, self.stage = request, caller, caller.stage
        self.lock = threading.Lock()
        self.lock.acquire()

    def acquire(self) -> None:
        self.caller.settled.set()
        self.stage.baton.release()
        assert self.lock.acquire(timeout=PATIENCE_S), "a commit is never told what became of it"
        self.stage.take_baton()

    def release(self) -> None:
        self.lock.release()
        if self.request.ended:
            self.stage.baton.release()
            _wait_for(self.caller.done)
            self.stage.take_baton()
