"""What the tests of the access history share: a clock, a database, and what it has counted."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import engramdb
from engramdb import Database, MemoryNode
from engramdb.access.log import AccessLog
from engramdb.lsm.environment.simulated import SimulatedDisk

FILE: Final = "/database/derived/access.drv"


class Clock:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.ns = 1_700_000_000 * 10**9

    def __call__(self) -> int:
        return self.ns

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.ns // 10**9, UTC) + timedelta(
            microseconds=self.ns % 10**9 // 1000
        )


def opened(disk: SimulatedDisk | None = None, clock: Clock | None = None, **more: Any) -> Database:
    config = engramdb.DatabaseConfig(storage_dir="/database", background=False, **more)
    db = Database(config, disk or SimulatedDisk())
    if clock is not None:
        db._access = AccessLog(db._engine, clock)
        db._record_access = db._access.record
        db._finalizer.detach()
    return db


def saved(db: Database, count: int = 1) -> list[str]:
    return db.save_many([MemoryNode([float(i), 1.0]) for i in range(count)])


def saved_apart(db: Database) -> tuple[str, str]:
    """Two memories whose ids have nothing in common, as a scan for traces needs it."""
    rng = random.Random("apart")
    one, other = (MemoryNode([1.0, 2.0], id=str(uuid.UUID(bytes=rng.randbytes(16)))) for _ in "ab")
    db.save_many([one, other])
    return one.id, other.id


def key_of(memory_id: str) -> bytes:
    return bytes.fromhex(memory_id.replace("-", ""))


def count_of(db: Database, memory_id: str) -> int:
    return db._access_history(key_of(memory_id)).count
