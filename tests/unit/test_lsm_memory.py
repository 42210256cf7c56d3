"""What a merge keeps in memory does not grow with the payloads that it moves."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

from engramdb.lsm import Batch, StorageEngine
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import core_of, key, open_engine

ROWS, PAYLOAD_BYTES = 1600, 2**16  # 100 MiB
PEAK_BYTES_MAX = 64 * 2**20


def save(engine: StorageEngine, first: int, rng: random.Random) -> None:
    batch = Batch()
    for i in range(first, first + 100):
        batch.put(key(i), rng.randbytes(PAYLOAD_BYTES))
    engine.commit(batch, sync=False)


def test_a_merge_of_large_payloads(tmp_path: Path) -> None:
    engine = open_engine(None, str(tmp_path / "db"), fan_in=20)
    rng = random.Random(1)
    for first in range(0, ROWS, 100):
        save(engine, first, rng)
        if first % 400 == 300:
            engine.flush()
    before = engine.stats()["segments"]
    assert before > 1
    tracemalloc.start()
    try:
        engine.compact()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(core_of(engine).state.version.segments) == 1
    assert peak < PEAK_BYTES_MAX, f"{peak:,} bytes for {ROWS * PAYLOAD_BYTES:,}"
    record = engine.latest().get(MEMORY, key(7))
    again = random.Random(1)
    assert record is not None
    assert record.payload == [again.randbytes(PAYLOAD_BYTES) for _ in range(8)][7]
    engine.close()
