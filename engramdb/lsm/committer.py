"""Group commit: one write and one sync for all commits that arrive while the last sync runs.

The first thread to come leads: it takes what is queued, gives seqs, writes, syncs, publishes, wakes
the others, and hands the lead to the first that came meanwhile. Bodies are encoded before, outside
all locks. A commit is applied to the memtable when it gets its seq, but readers see it only when it
is published, after its sync: no reader sees what a crash can undo.

Ctrl-C raises KeyboardInterrupt in the main thread after any call, and a user may press it twice. So
who leads and what the group is stands in attributes, each step can be done again, and a thread that
was interrupted goes on (`_leave`) until nobody waits for it any more.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Final

import xxhash

from engramdb.errors import (
    ConflictError,
    CorruptionError,
    EngramError,
    InvalidInputError,
    StoragePoisonedError,
    WriteStallError,
)
from engramdb.lsm import planner
from engramdb.lsm.core import Core
from engramdb.lsm.limits import (
    FROZEN_STALL,
    PAYLOAD_BYTES_MAX,
    RUNS_STALL,
    STALL_SECONDS_MAX,
    TYPE_BYTES_MAX,
)
from engramdb.lsm.log_format import body_sum, encode_body, record_header
from engramdb.lsm.records import (
    DEFAULT_SPACE,
    EDGE,
    MEMORY,
    META,
    NO_VECTOR,
    PATCH,
    PUT,
    TOMBSTONE,
    Batch,
    Commit,
    GuardFailed,
    Operation,
    is_connection,
)
from engramdb.lsm.snapshot import Snapshot
from engramdb.lsm.spaces import Table, with_vector_of
from engramdb.lsm.supersede import kill_vector, newest_vector, supersede
from engramdb.lsm.version import State, Version

_COMMIT_BYTES: Final = 16  # seq and time, as an idempotency key remembers them


class _Request:
    """A commit on its way. `turn` is released when it has ended, or leads."""

    __slots__ = (
        "batch",
        "body",
        "commit",
        "ended",
        "error",
        "key",
        "number",
        "operations",
        "sync",
        "turn",
    )

    def __init__(self, batch: Batch, key: bytes | None, sync: bool) -> None:
        self.batch = batch
        self.key = key
        self.sync = sync
        self.operations: list[Operation] = []
        self.body = b""
        self.commit: Commit | None = None
        self.error: BaseException | None = None
        self.number: Commit | None = None  # as which it is being written
        self.ended = False
        self.turn = threading.Lock()
        self.turn.acquire()


class Committer:
    """Sequences batches and makes them durable."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._queue: list[_Request] = []
        self._queue_lock = threading.Lock()
        self._leader: _Request | None = None  # whose thread writes; set under the queue lock
        self._group: list[_Request] = []  # what the leader has taken from the queue

    def commit(self, batch: Batch, *, sync: bool, idempotency_key: str | None = None) -> Commit:
        """Commit one batch. Raises what StorageEngine.commit documents."""
        core = self._core
        core.check_writable()
        key = None
        if idempotency_key is not None:
            key = xxhash.xxh3_128_digest(b"idempotency" + idempotency_key.encode())
            done = _committed(core.snapshot(), key)
            if done is not None:
                if sync and done.seq > core.manifest.last_seq:
                    core.sync_log()  # the first time it may not have been asked for
                return done
        _check(batch, core.spaces)
        request = _Request(batch, key, sync)
        version = core.state.version
        request.operations = _resolved(batch, version)
        if key is None:
            request.body = encode_body(request.operations)
        try:
            with self._queue_lock:
                self._queue.append(request)
                if self._leader is None:
                    self._leader = request
            while not request.ended and self._leader is not request:
                request.turn.acquire()
            if self._leader is request:
                self._lead(request)
        except BaseException:
            try:
                self._leave(request)
            except BaseException:  # interrupted again before it had begun
                self._leave(request)
            raise
        if request.error is not None:
            raise request.error
        assert request.commit is not None
        return request.commit

    def _lead(self, mine: _Request) -> None:
        with self._queue_lock:
            self._group, self._queue = self._queue, []
        try:
            self._commit_group(self._group)
        finally:
            self._hand_on(mine)

    def _hand_on(self, mine: _Request) -> None:
        """Tell the group what has become of it, and give the lead to the next. Done again from the
        start if it was interrupted."""
        poison = self._core.poison
        for request in self._group:
            if request.commit is None and request.error is None:  # this thread is interrupted
                request.error = WriteStallError(
                    "the thread that was to write it was interrupted; nothing was written, "
                    "write again"
                )
                if poison is not None:
                    request.error = StoragePoisonedError(poison)
            request.ended = True
            if request is not mine:
                _wake(request)
        self._group = []
        with self._queue_lock:
            self._leader = successor = self._queue[0] if self._queue else None
        if successor is not None:
            _wake(successor)

    def _leave(self, mine: _Request) -> None:
        """After an interruption, wherever it was: let nobody wait for this thread, however often it
        is interrupted again. The request itself is ended too, as if nothing had happened."""
        while True:
            try:
                with self._queue_lock:
                    if self._leader is None and mine in self._queue:
                        self._leader = mine
                    waits = mine in self._queue or mine in self._group
                if self._leader is mine:
                    if self._group or mine.ended:
                        self._hand_on(mine)
                    else:
                        self._lead(mine)
                elif waits and not mine.ended:
                    mine.turn.acquire()
                else:
                    if self._leader is not None:
                        _wake(self._leader)  # maybe it was not told
                    return
            except BaseException:
                continue

    def _commit_group(self, group: list[_Request]) -> None:
        core = self._core
        with core.write_lock:
            try:
                core.check_writable()
                self._make_room()
            except (EngramError, OSError) as error:
                failure = core.fail(error) if isinstance(error, OSError) else error
                for request in group:
                    request.error = failure
                return
            records: list[bytes] = []
            sequenced: list[tuple[_Request, Commit]] = []
            synced = False
            try:
                log = core.open_log()
                for request in group:
                    commit = self._committed_before(request)
                    if commit is None and request.error is None:
                        commit, record = self._sequence(request, log.seed, log.synced)
                        records.append(record)
                    if commit is not None:
                        sequenced.append((request, commit))
                        synced |= request.sync
                if records:
                    log.append(b"".join(records))
                if synced:
                    log.sync()
                state = core.state
                core.state = State(state.version, core.last_seq, core.last_time, state.floor)
                core.show()
                for request, commit in sequenced:
                    request.commit = commit
            except BaseException as error:
                # what was applied is not published: only reopening tells what reached the disk
                if core.poison is None:
                    core.poison = error  # before any call: a second interruption could prevent it
                failure = core.fail(error)
                for request in group:
                    if request.error is None:
                        request.error = failure
                if not isinstance(error, OSError | EngramError):
                    raise

    def _make_room(self) -> None:
        core = self._core
        if not core.state.version.active.is_full():
            return
        if core.options.background:
            started = core.environment.monotonic()
            while (
                len(core.state.version.frozen) >= FROZEN_STALL
                or planner.backlog(core.state.version.segments, core.options.fan_in) >= RUNS_STALL
            ):
                waited = core.environment.monotonic() - started
                if waited > STALL_SECONDS_MAX:
                    raise WriteStallError(
                        f"flush and compaction are {waited:.0f} s behind; nothing was written, "
                        "write again later"
                    )
                core.wake()
                core.room.wait(timeout=1.0)
                core.check_writable()
            core.stalled_seconds += core.environment.monotonic() - started
        core.freeze()
        core.wake()

    def _committed_before(self, request: _Request) -> Commit | None:
        """Check it against everything sequenced before, number it and encode it. Nothing is applied
        yet, so whatever it raises is `request.error` and concerns nobody else. Returns a commit if
        there is nothing left to write."""
        try:
            return self._prepare(request)
        except OSError:
            raise  # the disk fails: that concerns everybody
        except Exception as error:
            request.error = error
            return None

    def _prepare(self, request: _Request) -> Commit | None:
        core, batch = self._core, request.batch
        if batch.knows_no_spaces and len(core.spaces) > 1:
            raise GuardFailed
        if batch.expect or batch.guards or request.key is not None:
            sequenced = core.sequenced()
            if request.key is not None:
                done = _committed(sequenced, request.key)
                if done is not None:
                    return done
            _check_expectations(batch, sequenced)
            if not all(guard(sequenced) for guard in batch.guards):
                if batch.rebuild is None:
                    raise GuardFailed
                batch.rebuild(sequenced)
                request.operations, request.body = _resolved(batch, core.state.version), b""
                if not request.operations:
                    return Commit(core.last_seq, core.last_time)
        if any(operation.shares for operation in batch.operations.values()):
            # the encoded guess may be out of date: somebody may have saved in between
            operations = _resolved(batch, core.state.version)
            if [o.shares for o in operations] != [o.shares for o in request.operations]:
                request.operations, request.body = operations, b""
        spaces = core.spaces
        usual = spaces[DEFAULT_SPACE] or -1
        for operation in request.operations:
            vector = operation.vector
            if vector is not None and (len(vector) != usual or operation.record_class == EDGE):
                # maybe the first of its space, or in a race for being the first
                spaces = with_vector_of(spaces, operation)
        request.number = Commit(core.last_seq + 1, core.next_time())
        if request.key is not None:
            stamp = b"".join(part.to_bytes(8, "little") for part in request.number)
            request.operations = [*request.operations, Operation(META, request.key, PUT, stamp)]
            request.body = b""
        request.body = request.body or encode_body(request.operations)
        core.spaces = spaces
        return None

    def _sequence(self, request: _Request, seed: int, synced: int) -> tuple[Commit, bytes]:
        """Apply it under its number. Returns that and its log record."""
        core = self._core
        version = core.state.version
        assert request.number is not None
        seq, time = request.number
        operations, body = request.operations, request.body
        first_vector = core.next_vector
        for operation in operations:
            self._apply(version, operation, seq, time)
        core.last_seq, core.last_time = seq, time
        header = record_header(
            body=body,
            body_sum=body_sum(body, seed),
            seq=seq,
            time=time,
            synced=synced,
            first_vector=first_vector,
            operations=len(operations),
            seed=seed,
        )
        return request.number, header + body

    def _apply(self, version: Version, operation: Operation, seq: int, time: int) -> None:
        core, active = self._core, version.active
        key, record_class = operation.key, operation.record_class
        number = operation.shares
        previous = active.newest[record_class].get(key)
        if previous is not None:
            before = active.vector[previous]
        else:
            before = supersede(version, record_class, key, seq)
        if operation.vector is not None:
            number = core.next_vector
            core.next_vector = number + 1
            if record_class == EDGE:
                owner, space = operation.owner, operation.space
                active.append_vector(operation.vector, number, owner, seq, space)
            else:
                active.append_vector(operation.vector, number, key, seq)
        active.append(operation, seq, time, number)
        if before != NO_VECTOR and before != number:
            kill_vector(version, before, seq)


def _wake(request: _Request) -> None:
    with suppress(RuntimeError):  # it was woken already
        request.turn.release()


def _committed(snapshot: Snapshot, key: bytes) -> Commit | None:
    found = snapshot.find(META, key)
    if found is None:
        return None
    stamp = found.payload
    if len(stamp) != _COMMIT_BYTES:
        raise CorruptionError(
            "the record of an idempotency key", 0, f"{_COMMIT_BYTES} bytes", len(stamp)
        )
    return Commit(int.from_bytes(stamp[:8], "little"), int.from_bytes(stamp[8:], "little"))


def _check(batch: Batch, spaces: Table) -> None:
    if not batch.operations:
        raise InvalidInputError("batch", "it holds no operation")
    usual = spaces[DEFAULT_SPACE] or -1
    for operation in batch.operations.values():
        if len(operation.key) != 16:
            raise InvalidInputError("key", f"16 bytes, not {len(operation.key)}")
        if len(operation.payload) > PAYLOAD_BYTES_MAX:
            raise InvalidInputError(
                "attributes",
                f"{len(operation.payload):,} bytes encoded, at most {PAYLOAD_BYTES_MAX:,}",
            )
        vector = operation.vector
        if vector is not None and (len(vector) != usual or operation.record_class == EDGE):
            spaces = with_vector_of(spaces, operation)
        if operation.record_class == EDGE:
            _check_edge(operation)


def _check_edge(operation: Operation) -> None:
    if len(operation.type.encode()) > TYPE_BYTES_MAX:
        raise InvalidInputError("relationship_type", f"at most {TYPE_BYTES_MAX} bytes")
    if is_connection(operation.type):
        if operation.vector is not None:
            raise InvalidInputError("relationship_type", "an edge of this type carries no vector")
    elif operation.source != operation.target or operation.shares != NO_VECTOR:
        raise InvalidInputError("relationship_type", "a memory's vector is an edge to itself")
    elif (operation.vector is None) != (operation.kind == TOMBSTONE):
        raise InvalidInputError("relationship_type", "it is reserved for edges that carry a vector")


def _check_expectations(batch: Batch, snapshot: Snapshot) -> None:
    for (record_class, key), wanted in batch.expect.items():
        found = snapshot.newest_seq(record_class, key)
        if found != wanted:
            raise ConflictError(
                f"{'edge' if record_class == EDGE else 'memory'} {key.hex()} is at commit {found}, "
                f"expected {wanted}: load it again and retry"
            )


def _resolved(batch: Batch, version: Version) -> list[Operation]:
    """The operations as they are written: a vector that can be shared is not written again."""
    resolved = []
    for operation in batch.operations.values():
        shares = operation.shares
        if operation.record_class == MEMORY and shares != NO_VECTOR:
            if newest_vector(version, MEMORY, operation.key) == shares:
                operation = Operation(MEMORY, operation.key, PATCH, operation.payload, None, shares)
            else:
                operation = Operation(
                    MEMORY, operation.key, PUT, operation.payload, operation.vector
                )
        resolved.append(operation)
    return resolved
