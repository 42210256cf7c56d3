"""The storage engine: versioned records in one log, and everything else a function of a prefix of
it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

from engramdb.errors import ClosedError, EngramError, HistoryUnavailableError, InvalidInputError
from engramdb.lsm import bulk, compaction, copies, planner, purge, statistics, verification
from engramdb.lsm.bulk import ColumnBatch
from engramdb.lsm.committer import Committer
from engramdb.lsm.core import Core
from engramdb.lsm.derived import Derived
from engramdb.lsm.environment import Environment, PosixEnvironment
from engramdb.lsm.flush import flush_oldest
from engramdb.lsm.limits import NAME_BYTES_MAX
from engramdb.lsm.maintenance import Maintenance
from engramdb.lsm.manifest import encode_policy
from engramdb.lsm.opening import load_to_read, open_core
from engramdb.lsm.options import SYNC, Options
from engramdb.lsm.purge import PurgeReport
from engramdb.lsm.records import Batch, Change, Commit
from engramdb.lsm.retention import History, check_history
from engramdb.lsm.snapshot import Snapshot
from engramdb.lsm.verification import VerifyReport
from engramdb.lsm.warming import Warmth

P = ParamSpec("P")
T = TypeVar("T")


def _not_within_itself(
    method: Callable[Concatenate[StorageEngine, P], T],
) -> Callable[Concatenate[StorageEngine, P], T]:
    """For what takes locks. A signal handler runs in the thread that it interrupts, and a guard in
    the one that commits: what they call would wait for the call that waits for them."""

    @wraps(method)
    def guarded(engine: StorageEngine, /, *arguments: P.args, **named: P.kwargs) -> T:
        writing, me = engine._core.writing, threading.get_ident()
        if me in writing:
            raise _within_itself(method.__name__)
        try:
            writing.add(me)
            return method(engine, *arguments, **named)
        finally:
            writing.discard(me)
            engine._core.tell_files()

    return guarded


def _within_itself(name: str) -> EngramError:
    return EngramError(
        f"{name}() was called in the middle of another call of the same thread, by a signal "
        "handler or a guard, and would wait for it for ever; let the handler raise SystemExit or "
        "set a flag, and do it when the other call is done"
    )


class StorageEngine:
    """An open directory of versioned records. Thread-safe; readers take no lock.

    Every method raises ClosedError after close() and in a forked child; every writing one
    ReadOnlyError, and StoragePoisonedError once a write has failed.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._committer = Committer(core)
        self._maintenance = Maintenance(core)
        self.derived = Derived(core)
        """Where those above keep what they have computed: it may vanish at any time."""
        core.wake = self._maintenance.wake
        self._inline = not core.options.background
        self._sync_commits = core.options.durability == SYNC
        if not core.read_only:
            self._maintenance.start_syncing()
            version = core.state.version
            # one that opens, saves and closes flushes each time, and may never fill a memtable
            if version.frozen or planner.is_behind(
                version.segments, version.vectors, core.options.fan_in
            ):
                self._maintenance.wake()
        core.tell_files()

    @classmethod
    def open(
        cls,
        path: str,
        options: Options | None = None,
        *,
        environment: Environment | None = None,
        create: bool = True,
        read_only: bool = False,
    ) -> StorageEngine:
        """Open a directory, recovering what a crash left; make it if `create` is True.

        Raises DatabaseLockedError (another writer), InvalidInputError (no database there),
        CorruptionError, IncompatibleFormatError, StoragePoisonedError (an I/O error).
        """
        environment = PosixEnvironment() if environment is None else environment
        return cls(
            open_core(environment, path, options or Options(), create=create, read_only=read_only)
        )

    # Writing

    def commit(
        self, batch: Batch, *, sync: bool | None = None, idempotency_key: str | None = None
    ) -> Commit:
        """Commit a batch atomically.

        `sync`: return only when it is durable (None: as the durability level says). A commit with
        an idempotency key that was committed before is not done again; the first one is returned.
        Raises ConflictError, GuardFailed, InvalidInputError (nothing was written), WriteStallError.
        """
        writing, me = self._core.writing, threading.get_ident()
        if me in writing:  # as _not_within_itself does it: written out, for it is the hot path
            raise _within_itself("commit")
        try:
            writing.add(me)
            return self._commit(batch, sync, idempotency_key)
        finally:
            writing.discard(me)
            if self._inline:
                self._core.tell_files()

    def _commit(self, batch: Batch, sync: bool | None, idempotency_key: str | None) -> Commit:
        wants = self._sync_commits if sync is None else sync
        commit = self._committer.commit(batch, sync=wants, idempotency_key=idempotency_key)
        if self._inline and self._core.has_work():
            self._maintenance.run_inline()
        return commit

    @_not_within_itself
    def commit_columns(self, batch: ColumnBatch, *, sync: bool | None = None) -> Commit:
        """Commit many memories atomically. A large batch goes around the log and is always synced.

        Raises InvalidInputError (nothing was written).
        """
        core = self._core
        core.check_writable()
        order = bulk.check_columns(batch, core.space)
        if batch.nbytes() < core.options.bulk_bytes_min:
            return self._commit(batch.as_batch(), sync, None)
        commit = bulk.ingest(core, batch, order)
        self._maintenance.run_inline()
        return commit

    @_not_within_itself
    def wait_durable(self, seq: int) -> None:
        """Return when the commit `seq` is durable."""
        self._core.check_writable()
        if seq > self._core.manifest.last_seq:
            self._core.sync_log()

    # Reading

    def latest(self) -> Snapshot:
        """Now, for a quick read."""
        core = self._core
        if core.closed:
            core.check_open()
        state = core.state
        return Snapshot(state.version, state.seq, state.time)

    snapshot = latest

    def at(self, seq: int, *, partial: bool = False) -> Snapshot:
        """The database as of a commit; a seq above the last one means the last one.

        Below the history floor, unless that very seq is pinned: raises HistoryUnavailableError, or
        with `partial` gives a snapshot in which single records can be read that are still there.
        """
        self._core.check_open()
        state = self._core.state
        seq = min(max(seq, 0), state.seq)
        if seq == state.seq:
            return Snapshot(state.version, seq, state.time)
        kept = seq >= state.floor or any(
            pinned == seq for pinned, _ in self._core.manifest.pins.values()
        )
        if not kept and not partial:
            raise HistoryUnavailableError(
                f"commit {seq} lies before commit {state.floor}, from which on the retention "
                "policy has kept everything; tag() the moments that must stay"
            )
        return Snapshot(state.version, seq, partial=not kept)

    def at_time(self, time: int, *, partial: bool = False) -> Snapshot:
        """The database as of a time in microseconds since the epoch; see `at`.

        Where the retention policy has dropped whole commits around that time, nobody can tell
        which was the last one before it: what they may have written is not shown, not even as of
        a pin just before them.
        """
        self._core.check_open()
        state = self._core.state
        latest = Snapshot(state.version, state.seq, state.time)
        first, last = latest.seq_at(time), latest.seq_after(time) - 1
        if first in (last, state.seq) or first >= state.floor:
            return self.at(first, partial=partial)
        if first and Snapshot(state.version, first).time == time:
            return self.at(first, partial=partial)
        if not partial:
            raise HistoryUnavailableError(
                f"that time lies between commits {first} and {last + 1}, and what was between them "
                "was dropped by the retention policy; tag() the moments that must stay"
            )
        return Snapshot(state.version, last, partial=True)

    def seq_at(self, time: int) -> int:
        """The last commit at or before a time in microseconds since the epoch; 0 if none."""
        return self.latest().seq_at(time)

    def warm(self, keys: Sequence[bytes]) -> Warmth:
        """Read what loads of these memories will need from the disk, ahead of them: with no keys,
        nothing. Returns what that has been good for so far. Raises CorruptionError, EngramError.
        """
        self.latest().warm(keys)
        cache = self._core.cache
        return Warmth(cache.ahead_reads, cache.ahead_hits, cache.ahead_wasted, cache.misses)

    def changes(self, since_seq: int, until_seq: int | None = None) -> list[Change]:
        """The commits in (since_seq, until_seq], oldest first.

        Raises HistoryUnavailableError if some of them may have been dropped.
        """
        self._core.check_open()
        state = self._core.state  # once: the floor and the files have to be of one moment
        if since_seq < state.floor:
            raise HistoryUnavailableError(
                f"commits up to {state.floor} are not complete any more: the retention "
                "policy dropped versions of them"
            )
        until = state.seq if until_seq is None else min(until_seq, state.seq)
        return Snapshot(state.version, until).changes(min(since_seq, until))

    # Pins and policy

    @_not_within_itself
    def pin(self, name: str, seq: int | None = None) -> Commit:
        """Keep what is visible at a commit (None: the last one), durably, under this name.

        Raises HistoryUnavailableError if it is not complete any more, InvalidInputError.
        """
        core = self._core
        core.check_writable()
        if not name or len(name.encode()) > NAME_BYTES_MAX:
            raise InvalidInputError("name", f"1 to {NAME_BYTES_MAX} bytes of UTF-8")
        with core.compaction_lock, core.flush_lock, core.manifest_lock:
            snapshot = self.latest() if seq is None else self.at(seq)
            core.sync_log()  # a pin must not be durable before the commit it names
            commit = Commit(snapshot.seq, snapshot.time)
            core.republish(pins={**core.manifest.pins, name: (commit.seq, commit.time)})
        return commit

    @_not_within_itself
    def unpin(self, name: str) -> bool:
        """Forget a name, durably. False if there is none."""
        core = self._core
        core.check_writable()
        with core.manifest_lock:
            if name not in core.manifest.pins:
                return False
            pins = {key: value for key, value in core.manifest.pins.items() if key != name}
            core.republish(pins=pins)
        return True

    def pins(self) -> dict[str, Commit]:
        """All pins, by name."""
        self._core.check_open()
        return {name: Commit(*pin) for name, pin in self._core.manifest.pins.items()}

    @property
    def history_policy(self) -> History:
        """What compaction keeps."""
        return self._core.manifest.policy()

    @_not_within_itself
    def set_history(self, policy: History) -> None:
        """Change, durably, what flush and compaction keep from now on."""
        core = self._core
        core.check_writable()
        check_history(policy)
        with core.manifest_lock:
            core.republish(history=encode_policy(policy))
        core.wake()

    # Care

    @_not_within_itself
    def flush(self) -> None:
        """Write all memtables to files. When it returns everything committed is durable."""
        self._flush()

    def _flush(self) -> None:
        core = self._core
        core.check_writable()
        with core.write_lock:
            core.freeze()
        while flush_oldest(core):
            pass
        core.wake()

    @_not_within_itself
    def compact(self) -> None:
        """Flush, merge everything under the policy, and free what nobody refers to."""
        self._flush()
        compaction.compact_all(self._core)

    @_not_within_itself
    def purge(self, keys: list[bytes]) -> PurgeReport:
        """Erase every version of these memories, and of their edges, from every file.

        Removes all derived data: its owners store it anew.
        """
        with self.derived.erasing():
            report = purge.purge(self._core, keys)
        self._core.wake()
        return report

    @_not_within_itself
    def checkpoint(self, path: str) -> None:
        """A copy of now that can be opened; hard links where they reach."""
        self._core.check_open()
        copies.copy_database(self._core, path, new_identity=False)
        self._core.wake()  # it has flushed

    @_not_within_itself
    def fork(self, path: str) -> None:
        """As checkpoint, with an identity of its own."""
        self._core.check_open()
        copies.copy_database(self._core, path, new_identity=True)
        self._core.wake()

    @_not_within_itself
    def verify(self) -> VerifyReport:
        """Read everything from the disk and check it."""
        self._core.check_open()
        with _typed_errors():
            return replace(verification.verify(self._core), notes=self.derived.check())

    def stats(self) -> dict[str, Any]:
        """Sizes in bytes and counts; see docs/."""
        self._core.check_open()
        with _typed_errors():
            return statistics.collect(self._core) | self.derived.statistics()

    def refresh(self) -> int:
        """Follow the writer, if opened read-only. Returns the visible seq."""
        core = self._core
        core.check_open()
        if core.read_only:
            with _typed_errors():
                manifest, recovered = load_to_read(
                    core.environment, core.directory, core.options, core.cache, core
                )
            if recovered.state.seq >= core.state.seq:  # VISIBLE was unreadable: keep what we have
                core.manifest, core.spaces = manifest, recovered.spaces
                core.state = recovered.state
                core.tell_files()
        return core.state.seq

    # About itself

    @property
    def dimension(self) -> int | None:
        """Of all vectors; None until the first one."""
        return self._core.space

    @property
    def spaces(self) -> dict[str, int]:
        """The dimension of each vector space that has had a vector, by name; "" is the default."""
        return {name: dimension for name, dimension in self._core.spaces.items() if dimension}

    @property
    def has_spaces(self) -> bool:
        """Whether there is any space with a name."""
        return len(self._core.spaces) > 1

    @property
    def last_seq(self) -> int:
        """The last visible commit."""
        return self._core.state.seq

    @property
    def read_only(self) -> bool:
        """Whether it was opened so."""
        return self._core.read_only

    @property
    def is_open(self) -> bool:
        """False after close() and in a forked child."""
        return not self._core.closed

    @property
    def path(self) -> str:
        """The directory."""
        return self._core.directory

    def check_open(self) -> None:
        """Raises ClosedError."""
        self._core.check_open()

    @_not_within_itself
    def close(self) -> None:
        """Flush, stop the threads, let go of the lock. Harmless when repeated.

        Waits for what other threads are doing with the files. After a failed write nothing more is
        written: what was acknowledged is in the log.
        """
        core = self._core
        if core.closed:
            return
        if self._maintenance.is_mine():
            # the collector has run in a thread of ours, which cannot wait for itself
            threading.Thread(target=_close_quietly, args=(self,), name="engramdb_close").start()
            return
        core.closing = True
        try:
            if not core.read_only and core.poison is None:
                self._maintenance.stop()
                with suppress(ClosedError), core.write_lock:  # another thread may be faster
                    core.freeze()
                while flush_oldest(core):
                    pass
        finally:
            # whoever is writing files must not go on in a directory that others may have then
            with (
                core.bulk_lock,
                core.compaction_lock,
                core.flush_lock,
                core.manifest_lock,
                self.derived.lock,
            ):
                core.close("it was closed")
            self._maintenance.stop()

    def __enter__(self) -> StorageEngine:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _close_quietly(engine: StorageEngine) -> None:
    with suppress(EngramError):
        engine.close()


@contextmanager
def _typed_errors() -> Iterator[None]:
    """Around what reads directories and logs beside the open files."""
    try:
        yield
    except OSError as error:
        raise EngramError(f"the directory cannot be read: {error}; try again") from error
