"""Drives an engine on a simulated disk; marks there what it asks for and what it is promised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from engramdb.lsm import Batch, ColumnBatch, Options, Record, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.options import SYNC
from engramdb.lsm.records import EDGE, MEMORY, edge_key, place_of, vector_type
from engramdb.lsm.retention import History
from engramdb.model.attributes import encode_memory
from tests.crash.oracle import (
    Commit,
    Copied,
    Pin,
    Promise,
    Purge,
    Recovered,
    SetHistory,
    Setting,
    Unpin,
    Write,
)

PATH = "/db"
DIMENSION = 3
SMALL = Options(
    background=False, memtable_bytes_max=1 << 20, log_allocate_bytes=0, bulk_bytes_min=1 << 30
)


def key(number: int) -> bytes:
    """A key; they are spread over the key space, and share no prefix."""
    return (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).to_bytes(16, "big")


def vector(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A vector of DIMENSION floats; what is not given is 1."""
    return np.array([*values, 1.0, 1.0, 1.0][:DIMENSION], np.float32)


def put(number: int, payload: bytes, *values: float) -> Write:
    """A memory, with a vector if values are given."""
    return Write(MEMORY, key(number), payload, vector(*values).tobytes() if values else b"")


def memory(number: int, text: str, *values: float) -> Write:
    """A memory as the facade writes it."""
    return put(number, encode_memory(number, None, {"text": text}), *values)


def delete(number: int) -> Write:
    """A tombstone."""
    return Write(MEMORY, key(number), None)


def connect(source: int, target: int, type_: str = "knows", strength: float = 1.0) -> Write:
    """An edge."""
    ends = (key(source), key(target), type_)
    payload = f"{source}-{target}".encode()
    return Write(EDGE, edge_key(*ends), payload, b"", ends, strength)


def disconnect(source: int, target: int, type_: str = "knows") -> Write:
    """The tombstone of an edge."""
    ends = (key(source), key(target), type_)
    return Write(EDGE, edge_key(*ends), None, b"", ends)


def carry(number: int, space: str, slot: int, *values: float) -> Write:
    """A row of a memory's vectors in a named space."""
    ends = (key(number), key(number), vector_type(space, slot))
    return Write(EDGE, edge_key(*ends), b"", np.array(values, np.float32).tobytes(), ends, 1.0)


def drop(number: int, space: str, slot: int) -> Write:
    """The end of such a row."""
    return disconnect(number, number, vector_type(space, slot))


def columns_of(writes: Sequence[Write]) -> ColumnBatch:
    """The same memories as columns."""
    keys = np.frombuffer(b"".join(write.key for write in writes), np.uint8).reshape(-1, 16)
    floats = b"".join(write.vector for write in writes)
    matrix = np.frombuffer(floats, np.float32).reshape(len(writes), -1) if floats else None
    return ColumnBatch(keys, [write.payload or b"" for write in writes], matrix)


class Driver:
    """An engine and what was issued to it. The promises are those of the documentation."""

    def __init__(self, disk: SimulatedDisk, options: Options = SMALL) -> None:
        self.disk, self.options = disk, options
        self.commits = self.settings = 0  # issued
        self.engine = StorageEngine.open(PATH, options, environment=disk)
        self.promise()

    def promise(self) -> None:
        """Everything that was issued is durable."""
        self.disk.acknowledge(Promise(self.commits, self.settings))

    def commit(self, *writes: Write, sync: bool | None = None, idempotency: str = "") -> None:
        """One batch."""
        batch = Batch()
        for write in writes:
            self._add(batch, write)
        waits = self.waits(sync)
        self.disk.issue(Commit(writes, waits))
        self.commits += 1
        mine = self.commits  # others may come before it returns
        self.engine.commit(batch, sync=sync, idempotency_key=idempotency or None)
        if waits:
            self.disk.acknowledge(Promise(mine, self.settings))

    def waits(self, sync: bool | None) -> bool:
        """Whether a commit with this argument returns only when it is durable."""
        return sync or (sync is None and self.options.durability == SYNC)

    def _add(self, batch: Batch, write: Write) -> None:
        if write.ends is not None:
            place = place_of(write.ends[2])
            if place is not None and write.payload is not None:
                batch.put_vector(write.ends[0], *place, np.frombuffer(write.vector, np.float32))
            elif write.payload is None:
                batch.delete_edge(*write.ends)
            else:
                batch.put_edge(*write.ends, write.strength, write.payload)
        elif write.payload is None:
            batch.delete(write.key)
        else:
            floats = np.frombuffer(write.vector, np.float32) if write.vector else None
            batch.put(write.key, write.payload, floats, self._shared(write))

    def _shared(self, write: Write) -> int:
        """As the database does it: a save that leaves the vector as it was shares it."""
        snapshot = self.engine.latest()
        found = snapshot.get(MEMORY, write.key)
        if not write.vector or not isinstance(found, Record) or not found.vector:
            return 0
        same = snapshot.vector(found.vector).tobytes() == write.vector
        return found.vector if same else 0

    def bulk(self, *writes: Write) -> None:
        """Many memories as columns; all have a vector, or none has."""
        columns = columns_of(writes)
        waits = columns.nbytes() >= self.options.bulk_bytes_min or self.waits(None)
        self.disk.issue(Commit(writes, waits))
        self.commits += 1
        self.engine.commit_columns(columns)
        if waits:
            self.promise()

    def _set(self, step: Setting, act: Callable[[], object]) -> None:
        self.disk.issue(step)
        self.settings += 1
        act()

    def pin(self, name: str, seq: int | None = None) -> None:
        """Pin a moment; everything before is synced for it."""
        at = self.engine.last_seq if seq is None else seq
        self._set(Pin(name, at), lambda: self.engine.pin(name, seq))
        self.promise()

    def unpin(self, name: str) -> None:
        """Take a pin away."""
        self._set(Unpin(name), lambda: self.engine.unpin(name))
        self.disk.acknowledge(Promise(0, self.settings))

    def set_history(self, policy: History) -> None:
        """Change the policy."""
        self._set(SetHistory(policy), lambda: self.engine.set_history(policy))
        self.disk.acknowledge(Promise(0, self.settings))

    def purge(self, *numbers: int) -> None:
        """Erase memories."""
        keys = [key(number) for number in numbers]
        step = Purge(tuple(keys), self.engine.last_seq)
        self._set(step, lambda: self.engine.purge(keys))
        self.promise()

    def fork(self, path: str) -> None:
        """Make a database of its own of it."""
        self.engine.fork(path)
        self._copied(path)

    def checkpoint(self, path: str) -> None:
        """Make a copy."""
        self.engine.checkpoint(path)
        self._copied(path)

    def _copied(self, path: str) -> None:
        self.promise()
        self.disk.acknowledge(Copied(path, self.commits, self.settings))

    def flush(self) -> None:
        """Write everything to files."""
        self.engine.flush()
        self.promise()

    def compact(self) -> None:
        """Merge everything."""
        self.engine.compact()
        self.promise()

    def wait_durable(self) -> None:
        """Sync the log."""
        self.engine.wait_durable(self.engine.last_seq)
        self.promise()

    def close(self) -> None:
        """Close the engine; after a failure that promises nothing."""
        core = self.engine._core
        was_sound = core.poison is None and not core.closed
        self.engine.close()
        if was_sound:
            self.promise()

    def reopen(self, **changes: object) -> None:
        """Close it and open it again, maybe with other options."""
        self.close()
        self._open(**changes)

    def kill(self, **changes: object) -> None:
        """The process dies and another one opens the database; the disk goes on."""
        core = self.engine._core
        assert core.file_lock is not None
        core.file_lock.release()
        core.closed = "its process was killed"
        self._open(**changes)

    def _open(self, **changes: object) -> None:
        self.options = replace(self.options, **changes)  # type: ignore[arg-type]
        self.engine = StorageEngine.open(PATH, self.options, environment=self.disk)
        if self.engine.last_seq < self.commits:  # some had failed, and their numbers are free again
            self.commits = self.engine.last_seq
            self.disk.issue(Recovered(self.commits, self.settings))
        self.promise()  # what a recovery has shown must stay
