"""Small real databases, as bytes by path: what is forged. And the disk on which it is opened.

Between them they have every kind of file and section: logs of single saves and of batches, merged,
flushed and bulk-loaded segments, edges, tombstones, shared vectors, marks, tags, idempotency keys.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import cache
from typing import Any

import numpy as np

from engramdb.lsm import Batch, ColumnBatch, Options, Record, StorageEngine
from engramdb.lsm.environment import Environment, File, MemoryEnvironment
from engramdb.lsm.environment.base import Mode
from engramdb.lsm.environment.memory import MemoryFile
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.manifest import name_of, numbers_in
from engramdb.lsm.records import MEMORY
from engramdb.lsm.retention import KeepLast
from engramdb.model.attributes import encode_edge, encode_memory
from engramdb.model.shredding import shred

Files = dict[str, bytes]
"""The content of each file of a database, by its path inside the directory."""

PATH = "/db"
DIMENSION = 3
IDEMPOTENCY_KEY = "once"
_DIRECTORIES = ("wal", "seg", "vec", "tmp")
_CREATED_US = 1_700_000_000_000_000
_OPTIONS: dict[str, Any] = {
    "background": False,
    "log_allocate_bytes": 0,
    "memtable_bytes_max": 2**16,
    "columns_of": shred,
}


class StrictFile(MemoryFile):
    """Refuses to read more than there is: an operating system would allocate it all first."""

    def read_at(self, offset: int, length: int) -> bytes:
        if length > self.size() + 64 or offset >= 2**63:
            raise AssertionError(f"{length} bytes at offset {offset} were asked of {self.path}")
        return super().read_at(offset, length)


class FuzzDisk(MemoryEnvironment):
    """A disk in memory that has VISIBLE, and strict files."""

    is_persistent = True

    def open(self, path: str, mode: Mode) -> File:
        file = super().open(path, mode)
        assert isinstance(file, MemoryFile)
        return StrictFile(path, file._open_inode(), mode != "r")


def disk_of(files: Files) -> FuzzDisk:
    """A disk that holds these files."""
    disk = FuzzDisk()
    for name in _DIRECTORIES:
        disk.make_directory(f"{PATH}/{name}")
    for name, data in files.items():
        file = disk.open(f"{PATH}/{name}", "x")
        file.write_at(0, data)
        file.close()
    return disk


def files_of(disk: Environment) -> Files:
    """The files of a database, LOCK and the manifests that have a successor apart."""
    found: Files = {}
    latest = numbers_in(disk.list(PATH))[-1]
    for folder in ("", "wal/", "seg/", "vec/"):
        for name in disk.list(f"{PATH}/{folder}"):
            is_old = name.startswith("MANIFEST-") and name != name_of(latest)
            if name not in (*_DIRECTORIES, "LOCK") and not is_old:
                file = disk.open(f"{PATH}/{folder}{name}", "r")
                found[folder + name] = file.read_at(0, file.size())
                file.close()
    return found


def key(number: int) -> bytes:
    """A key; they are spread over the key space."""
    return (number * 0x9E3779B97F4A7C15F39CC0605CEDC835 % 2**128).to_bytes(16, "big")


def memory(number: int) -> bytes:
    """The payload of a memory, with a value of every type."""
    moment = datetime(2026, 3, 22, 9, 30, tzinfo=timezone(timedelta(hours=2)))
    values: list[dict[str, Any]] = [
        {"n": number, "text": f"memory {number}"},
        {"tags": ["a", None, True, -2, b"\0"], "score": 0.5},
        {"when": moment, "deep": {"er": [{"and": {"on": [1, [2, [3]]]}}]}},
        {"list": list(range(20)), "zone": datetime(2020, 1, 1, tzinfo=UTC), "ü": "ü" * 9},
    ]
    return encode_memory(_CREATED_US + number, None if number % 2 else "why", values[number % 4])


def vector(number: int, dimension: int = DIMENSION) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """A vector."""
    return np.array([number + 1, *range(1, dimension)], np.float32)


class _Builder:
    """Writes one database on a disk whose bytes depend on nothing but the calls."""

    def __init__(self, seed: int, **options: Any) -> None:
        self.disk = SimulatedDisk(seed)
        self.engine = StorageEngine.open(
            PATH, Options(**{**_OPTIONS, **options}), environment=self.disk
        )

    def commit(self, *steps: tuple[Any, ...], idempotency_key: str | None = None) -> None:
        """("put", n), ("bare", n), ("share", n), ("delete", n), ("edge" or "cut", a, b, type)"""
        batch = Batch()
        for what, number, *rest in steps:
            if what == "put":
                batch.put(key(number), memory(number), vector(number))
            elif what == "bare":
                batch.put(key(number), memory(number))
            elif what == "share":
                found = self.engine.latest().get(MEMORY, key(number))
                assert isinstance(found, Record)
                batch.put(key(number), memory(number + 1), vector(number), found.vector)
            elif what == "delete":
                batch.delete(key(number))
            elif what == "edge":
                payload = encode_edge(_CREATED_US, {"since": number})
                batch.put_edge(key(number), key(rest[0]), rest[1], 0.5, payload)
            else:
                batch.delete_edge(key(number), key(rest[0]), rest[1])
        self.engine.commit(batch, idempotency_key=idempotency_key)

    def killed(self) -> Files:
        """The files as they are now, without closing."""
        return files_of(self.disk)


def _mixed() -> Files:
    """Two flushed segments, marks on the first and on its vectors, a tag, and a log of every kind
    of record."""
    made = _Builder(1)
    made.commit(*(("put", i) for i in range(6)), ("edge", 1, 2, "Knows"), ("edge", 2, 3, "Likes"))
    made.commit(("bare", 7), ("edge", 3, 1, "Knows"), idempotency_key=IDEMPOTENCY_KEY)
    made.engine.flush()
    made.commit(("share", 1), ("delete", 2), ("cut", 1, 2, "Knows"))
    made.commit(("put", 3))
    made.engine.flush()
    made.engine.pin("here")
    made.commit(("put", 8), ("bare", 9), ("edge", 8, 1, "Knows"), ("share", 3))
    made.commit(("put", 4))
    made.commit(("bare", 5), idempotency_key="twice")
    made.commit(("delete", 0))
    made.commit(("bare", 10))
    made.commit(("put", 11))
    made.commit(("put", 8))
    return made.killed()


def _columns() -> Files:
    """Bulk loads of consecutive and of spread keys, a history policy, a merge, more blocks than
    one, a log."""
    made = _Builder(2, bulk_bytes_min=1, history=KeepLast(2))
    listed = [key(i) for i in range(90)]
    for keys in (listed, [(2**100 + i).to_bytes(16, "big") for i in range(70)]):
        made.engine.commit_columns(
            ColumnBatch(
                np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16),
                [memory(i) for i in range(len(keys))],
                np.stack([vector(i) for i in range(len(keys))]),
            )
        )
    made.commit(*(("put", i) for i in range(20)))
    made.engine.flush()
    made.commit(*(("delete", i) for i in range(5)))
    made.engine.compact()
    made.commit(("put", 1), ("edge", 1, 2, "Knows"))
    made.engine.flush()
    made.commit(("put", 2))
    return made.killed()


def _bulk() -> Files:
    """A bulk load, whose commit only the manifest knows, with marks, and a log."""
    made = _Builder(5, bulk_bytes_min=1)
    keys = [(2**100 + i).to_bytes(16, "big") for i in range(70)]
    made.engine.commit_columns(
        ColumnBatch(
            np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16),
            [memory(i) for i in range(len(keys))],
            np.stack([vector(i) for i in range(len(keys))]),
        )
    )
    batch = Batch()
    for owner in keys[:3]:
        batch.delete(owner)
    made.engine.commit(batch)
    made.engine.flush()
    made.commit(("put", 1))
    return made.killed()


def _bare() -> Files:
    """No vectors, no log: one segment of memories and edges."""
    made = _Builder(3)
    made.commit(("bare", 1), ("bare", 2), ("edge", 1, 2, "Knows"), ("edge", 2, 1, "Knows"))
    made.commit(("delete", 1))
    made.engine.close()
    return files_of(made.disk)


def _logs() -> Files:
    """No manifest but the first: everything stands in one log."""
    made = _Builder(4)
    for i in range(4):
        made.commit(("put", i))
    made.commit(("put", 5), ("edge", 5, 1, "Knows"), ("edge", 1, 5, "K" * 9), ("delete", 0))
    made.commit(("share", 1), ("bare", 3))
    return made.killed()


_MAKERS: dict[str, Callable[[], Files]] = {
    "mixed": _mixed,
    "columns": _columns,
    "bulk": _bulk,
    "bare": _bare,
    "logs": _logs,
}
NAMES = tuple(_MAKERS)


@cache
def _made(name: str) -> Files:
    return _MAKERS[name]()


def sample(name: str) -> Files:
    """A copy of the files of one sample."""
    return dict(_made(name))
