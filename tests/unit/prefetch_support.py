"""For the tests of prefetching: a database of many blocks, and a prefetcher without a thread."""

from __future__ import annotations

from typing import Any, Final

import numpy as np

import engramdb
from engramdb import Database
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.payloads import BLOCK_ROWS
from engramdb.lsm.warming import Warmth
from engramdb.prefetch.prefetcher import Prefetcher
from tests.unit.access_support import key_of

FILE: Final = "/database/derived/prefetch.drv"
BLOCKS: Final = 200


class Seconds:
    """A clock that stands still unless it is moved."""

    def __init__(self) -> None:
        self.s = 1000.0

    def __call__(self) -> float:
        return self.s


def opened(disk: SimulatedDisk | None = None, **more: Any) -> Database:
    settings = {"background": False, "cache_size": 32} | more
    return Database(
        engramdb.DatabaseConfig(storage_dir="/database", **settings), disk or SimulatedDisk()
    )


def filled(db: Database, blocks: int = BLOCKS) -> list[str]:
    """One memory of each block of one file, in no order of the blocks."""
    count = blocks * BLOCK_ROWS
    numbers = np.arange(count, dtype=np.float32)
    vectors = np.stack([numbers + 1, np.ones_like(numbers)], axis=1)
    ids = db.save_columns(embeddings=vectors, attributes={"number": numbers.astype(np.int64)})
    db.compact()
    order = np.random.default_rng(1).permutation(blocks)
    return [ids[block * BLOCK_ROWS + 5] for block in order.tolist()]


def prefetcher_of(db: Database, clock: Seconds | None = None) -> Prefetcher:
    """It steps when it is told to."""
    assert db._access is not None and db._prefetcher is None
    return Prefetcher(db._engine, db._access, clock or Seconds())


def walked(db: Database, prefetcher: Prefetcher, ids: list[str]) -> None:
    """Load one after the other, with a pause and a step after each."""
    clock = prefetcher._clock_s
    assert isinstance(clock, Seconds)
    for each in ids:
        db.load(each)
        clock.s += 0.01
        prefetcher.step()


def learned(prefetcher: Prefetcher, clock: Seconds) -> None:
    """Nothing is loaded for a while."""
    clock.s += 0.5
    prefetcher.step()


def warmth_of(db: Database) -> Warmth:
    return db._engine.warm(())


def is_known(prefetcher: Prefetcher, memory_id: str) -> bool:
    with prefetcher._entered():
        return key_of(memory_id) in prefetcher._learn()._id_of
