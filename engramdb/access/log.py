"""AccessLog: when each memory was loaded. Beside the log of the database, and never part of it.

An access is put into a list, which costs some 0.2 us, and goes from there into a table, thousands
at a time. The table is kept in the store for derived data, which is read at the first need and
written when the database is flushed or closed, and once a minute while it is used; see
docs/decisions/0016-access-history.md.
"""

from __future__ import annotations

import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from threading import get_ident
from typing import Final

import numpy as np

from engramdb.access.table import NO_ACCESS, Accesses, AccessTable
from engramdb.errors import ClosedError, EngramError
from engramdb.lsm import StorageEngine
from engramdb.lsm.keys import KeyMatrix, to_list
from engramdb.lsm.records import MEMORY
from engramdb.model.access_history import AccessHistory
from engramdb.model.moments import DAY_US, from_microseconds

NAME: Final = "access"
"""In the store for derived data."""
PENDING: Final = 4096
"""Accesses that are put into the table at a time."""
PENDING_MAX: Final = 16 * PENDING
"""Accesses that wait at most; further ones are not counted."""
INTERVAL_NS: Final = 60 * 10**9
"""Between two times that the table is stored while the database is used."""
_REST: Final = 100
"""A store that takes long is followed by so many times as long without one."""

_ACCESS: Final = struct.Struct("<16sqQ")
_ROW: Final = np.dtype([("key", "V16"), ("time_ns", "<i8"), ("thread", "<u8")])
_TOGETHER: Final = 0  # instead of a thread: handed out with others, in no order of time
assert _ROW.itemsize == _ACCESS.size


class AccessLog:
    """Of one open database. Thread-safe."""

    def __init__(self, engine: StorageEngine, clock_ns: Callable[[], int] = time.time_ns) -> None:
        """Opens and reads nothing yet. `clock_ns`: nanoseconds since the epoch."""
        self._engine = engine
        self._clock_ns = clock_ns
        self._pending: list[bytes] = []
        self._due_ns = clock_ns() + INTERVAL_NS
        self._lock = threading.RLock()
        self._inside = 0  # the thread that holds the lock: a signal handler must not go on in it
        self._table: AccessTable | None = None  # None: not read yet
        self._is_stored = True
        self._called_at = PENDING  # so many that wait are looked after
        self._call: Callable[[], None] | None = None
        self._drained = 0
        self._latest: deque[bytes] | None = None  # of those in the table, for who follows

    # Taking accesses

    def record(self, key: bytes) -> None:
        """A memory was handed to a caller, now. Never waits for anybody."""
        now_ns = self._clock_ns()
        pending = self._pending
        pending.append(_ACCESS.pack(key, now_ns, get_ident()))
        if len(pending) >= self._called_at or now_ns >= self._due_ns:
            self._settle(now_ns)

    def record_all(self, keys: list[bytes]) -> None:
        """Each of these memories was handed to a caller, now."""
        now_ns = self._clock_ns()
        self._pending += [_ACCESS.pack(key, now_ns, _TOGETHER) for key in keys]
        if len(self._pending) >= self._called_at or now_ns >= self._due_ns:
            self._settle(now_ns)

    def _settle(self, now_ns: int) -> None:
        """Put what is waiting into the table, and store it if it is time; unless another thread,
        or this one before a signal came, is in here already."""
        call = self._call
        if call is not None:
            self._call, self._called_at = None, PENDING
            call()
            if len(self._pending) < PENDING and now_ns < self._due_ns:
                return
        if self._lock.acquire(blocking=False):
            try:
                if self._inside != threading.get_ident():
                    with self._entered():
                        self._drain()
                        if now_ns >= self._due_ns:
                            self._store()
                    return
            finally:
                self._lock.release()
        if len(self._pending) > PENDING_MAX:
            del self._pending[PENDING_MAX:]

    @contextmanager
    def _entered(self) -> Iterator[None]:
        me = threading.get_ident()
        if self._inside == me:
            raise EngramError(
                "the access history was asked for in the middle of another call of the same "
                "thread, by a signal handler; ask when that call is done"
            )
        with self._lock:
            self._inside = me
            try:
                yield
            finally:
                self._inside = 0

    def _drain(self) -> AccessTable:
        """The table, with everything that was recorded until now."""
        table = self._table
        if table is None:
            values = self._engine.derived.load(NAME)
            table = AccessTable() if values is None else AccessTable.of_values(values)
            if table is None:
                self._engine.derived.refuse()
                table = AccessTable()
            self._table = table
        count = len(self._pending)  # others may append meanwhile
        if count:
            drained = self._pending[:count]
            data = b"".join(drained)
            del self._pending[:count]
            self._drained += count
            if self._latest is not None:
                self._latest.extend(drained)
            rows = np.frombuffer(data, _ROW)
            self._is_stored = False
            table.add(rows["key"].tolist(), rows["time_ns"] // 1000)
        return table

    # Following

    def call_next(self, call: Callable[[], None], *, after: int = 0) -> None:
        """Call this once, within the next access, or some after it (more, if a table is filled
        meanwhile): it has to be quick, and must not raise."""
        self._call = call
        self._called_at = min(len(self._pending) + after, PENDING) if after else 0

    def follow(self, since: int) -> tuple[int, list[bytes], list[int]]:
        """What was loaded one by one since access number `since`, and by which threads; of what is
        in the table already the latest only, from the first call on. Returns the number that the
        next access will have, the keys, and the threads."""
        with self._entered():
            if self._latest is None:
                self._latest = deque(maxlen=PENDING)
            count = len(self._pending)  # others may append meanwhile
            number = self._drained + count
            fresh = number - since
            found = self._pending[max(0, count - fresh) : count] if fresh > 0 else []
            if fresh > count:
                found = [*self._latest, *found][-fresh:]
        if not found:
            return number, [], []
        rows = np.frombuffer(b"".join(found), _ROW)
        rows = rows[rows["thread"] != _TOGETHER]
        return number, rows["key"].tolist(), rows["thread"].tolist()

    # Asking

    def history(self, key: bytes) -> AccessHistory:
        """When a memory was loaded, until now. Raises ClosedError."""
        self._engine.check_open()
        with self._entered():
            found = self._drain().take([key])
        count = int(found.counts[0])
        if not count:
            return AccessHistory()
        first_us = int(found.first_us[0])
        recent = [from_microseconds(each) for each in found.recent_us[0].tolist() if each >= 0]
        age_us = self._clock_ns() // 1000 - first_us
        return AccessHistory(
            count,
            from_microseconds(first_us),
            recent[0],
            tuple(recent),
            count * DAY_US / max(age_us, DAY_US),
        )

    def columns_of(self, keys: KeyMatrix, *, until_us: int | None = None) -> Accesses:
        """The accesses of these memories, (n, 16) uint8: counts (n,) uint64, first_us (n,) int64
        and recent_us (n, 10) int64, newest first; NO_ACCESS where there is none.

        `until_us`: only those until that moment, in microseconds since the epoch; how far that is
        known, Accesses.until() tells. Raises ClosedError.
        """
        self._engine.check_open()
        listed = to_list(keys)
        with self._entered():
            found = self._drain().take(listed)
        return found if until_us is None else found.until(until_us)

    # Keeping

    def prepare_erasure(self) -> None:
        """Read what is stored: an erasure removes it. Raises ClosedError."""
        self._engine.check_open()
        with self._entered():
            self._drain()

    def forget(self, keys: list[bytes]) -> None:
        """Forget these memories, and store the others again: they have been erased."""
        with self._entered():
            self._table = self._drain().without(keys)
            if self._latest is not None:
                self._latest.clear()
            self._is_stored = not len(self._table)
            self._store()

    def store(self) -> bool:
        """Store what has changed, without the memories that were deleted. False if there was
        nothing to store or it could not be: it is kept and tried again later."""
        engine, me = self._engine, threading.get_ident()
        if not engine.is_open or self._inside == me:
            return False
        with self._entered():
            if self._table is None and not self._pending:
                return False
            with suppress(ClosedError):  # by another thread, meanwhile
                self._drain()
                return self._store()
            return False

    def _store(self) -> bool:
        table = self._table
        started_ns = self._clock_ns()
        stored = self._is_stored
        if not stored and table is not None and not self._engine.read_only:
            stored = self._is_stored = self._try_to_store(table)
        ended_ns = self._clock_ns()
        pause_ns = max(INTERVAL_NS, _REST * (ended_ns - started_ns))
        self._due_ns = ended_ns + pause_ns
        return stored

    def _try_to_store(self, table: AccessTable) -> bool:
        derived = self._engine.derived
        erasures = derived.erasures  # before anybody looks what is there
        try:
            is_there = self._engine.latest().exist(MEMORY, table.keys())
            if not bool(is_there.all()):
                self._table = table = table.where(is_there)
            return derived.store(NAME, table.values(), erasures=erasures)
        except EngramError:
            return False  # closed meanwhile, or a damaged segment: no reason for a load to fail


__all__ = ["NO_ACCESS", "AccessLog", "Accesses"]
