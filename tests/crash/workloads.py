"""Small deterministic workloads: each does one thing that can go wrong when the power goes.

Concurrent commits are in `group_workloads`, random ones in `random_workloads`, and all short
sequences of operations in `small_sequences`.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.options import INTERVAL, OS
from engramdb.lsm.retention import KeepAll, KeepFor, KeepLast
from engramdb.model.shredding import shred
from tests.crash import failing_workloads, group_workloads, meanwhile  # noqa: F401  (they list their own)
from tests.crash.driver import (
    PATH,
    SMALL,
    Driver,
    carry,
    connect,
    delete,
    disconnect,
    drop,
    memory,
    put,
)
from tests.crash.named import ALLOCATED, BULK, TINY, WORKLOADS, Run, workload
from tests.crash.random_workloads import seeded


@workload
def single_puts(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    for i in range(5):
        driver.commit(put(i, b"payload %d" % i, i, 2))
    driver.close()


@workload
def allocated_log(disk: SimulatedDisk) -> None:
    driver = Driver(disk, ALLOCATED)
    for i in range(6):
        driver.commit(put(i % 4, bytes([i]) * (40 + 150 * i), i))
    driver.close()


@workload
def large_records(disk: SimulatedDisk) -> None:
    driver = Driver(disk, ALLOCATED)
    for i in range(3):
        driver.commit(put(i, bytes([65 + i]) * 1400, i), put(9, b"again %d" % i))
    driver.kill(log_allocate_bytes=0)
    driver.commit(put(4, b"z" * 1300, 1, 1))


@workload
def mixed_syncs(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"a", 1), sync=False)
    driver.commit(put(2, b"b" * 500, 2), sync=False)
    driver.commit(put(3, b"c", 3))
    driver.commit(put(1, b"d" * 700, 1), sync=False)
    driver.commit(put(2, b"e"), sync=False)
    driver.wait_durable()
    driver.commit(delete(3), sync=False)
    driver.commit(put(5, b"g", 4), sync=False)
    driver.close()


@workload
def mixed_syncs_allocated(disk: SimulatedDisk) -> None:
    driver = Driver(disk, ALLOCATED)
    for i in range(3):
        driver.commit(put(i, b"first", i), sync=False)
        driver.commit(put(7, bytes([i]) * 300, 2), sync=i == 1)
    driver.commit(put(8, b"last"), sync=False)


@workload
def left_to_the_system(disk: SimulatedDisk) -> None:
    driver = Driver(disk, replace(ALLOCATED, durability=OS))
    for i in range(3):
        driver.commit(put(i, b"x" * 200 * i, i), put(5, b"%d" % i, 1))
    driver.commit(delete(1), sync=True)
    driver.commit(put(1, b"back", 3))
    driver.commit(put(2, b"more"))
    driver.flush()
    driver.commit(put(3, b"unsynced", 3))


@workload
def synced_at_an_interval(disk: SimulatedDisk) -> None:
    driver = Driver(disk, replace(ALLOCATED, durability=INTERVAL, sync_interval=3600.0))
    driver.commit(put(1, b"a", 1))
    driver.commit(put(2, b"b", 2))
    driver.wait_durable()
    driver.commit(put(1, b"c", 2))
    driver.commit(put(3, b"d" * 600, 2))
    driver.close()


@workload
def batches(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(*(put(i, b"%d" % i * 90, i) for i in range(5)))
    driver.commit(*(put(i, b"new", 5 - i) for i in range(3)), delete(4), connect(1, 2))
    driver.commit(put(7, b""), put(3, b"third", 9), disconnect(1, 2), connect(2, 3, "ü", 0.25))
    driver.close()


@workload
def patches(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1, 2), put(2, b"two", 3))
    driver.commit(put(1, b"one, patched", 1, 2))
    driver.flush()
    driver.commit(put(1, b"one, patched again", 1, 2))
    driver.commit(put(2, b"two, another vector", 4))
    driver.flush()
    driver.commit(put(2, b"two, patched", 4))
    driver.commit(put(1, b"one, no vector"))
    driver.compact()
    driver.commit(put(2, b"two, patched twice", 4))
    driver.close()


@workload
def deletes(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1), put(2, b"two", 2))
    driver.commit(delete(1))
    driver.commit(delete(3))
    driver.flush()
    driver.commit(put(1, b"back", 4), delete(2))
    driver.flush()
    driver.commit(delete(1), sync=False)
    driver.commit(put(2, b"back too", 2))
    driver.compact()


@workload
def edges(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"1", 1), put(2, b"2", 2), connect(1, 2), connect(1, 2, "likes", 0.5))
    driver.commit(connect(2, 1), connect(1, 1, "self"))
    driver.flush()
    driver.commit(disconnect(1, 2), connect(1, 2, "likes", 0.75))
    driver.commit(delete(2), disconnect(2, 1), disconnect(1, 2, "likes"))
    driver.flush()
    driver.commit(connect(1, 2))
    driver.compact()


@workload
def flushes(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    for i in range(3):
        driver.commit(put(1, b"same key %d" % i, i), put(10 + i, b"other", i, i))
        driver.flush()
    driver.commit(put(1, b"in the log", 8))
    driver.close()


@workload
def mixed_flushes(disk: SimulatedDisk) -> None:
    """Manifests are published while the log supersedes what lies in files."""
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1), put(2, b"two", 2), connect(1, 2))
    driver.flush()
    driver.commit(put(1, b"unsynced", 3), disconnect(1, 2), sync=False)
    driver.set_history(KeepLast(9))
    driver.commit(delete(2), sync=False)
    driver.set_history(KeepAll())
    driver.unpin("none")
    driver.commit(put(2, b"synced", 5))
    driver.compact()


@workload
def rotation(disk: SimulatedDisk) -> None:
    driver = Driver(disk, TINY)
    for i in range(7):
        driver.commit(put(i % 3, bytes([97 + i]) * 400, i % 2), sync=i % 3 != 1)
    driver.close()


@workload
def rotation_left_to_the_system(disk: SimulatedDisk) -> None:
    driver = Driver(disk, replace(TINY, durability=OS))
    for i in range(7):
        driver.commit(put(i % 3, bytes([97 + i]) * 400, i % 2), delete(5 + i % 2))


@workload
def compactions(disk: SimulatedDisk) -> None:
    driver = Driver(disk, replace(TINY, fan_in=2))
    for i in range(6):
        driver.commit(put(i % 3, bytes([97 + i]) * 500, i % 2), put(20 + i, b"x" * 400, i))
    driver.commit(delete(1), delete(2))
    driver.compact()
    driver.close()


@workload
def keep_last(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    for i in range(3):
        driver.commit(put(1, b"%d" % i, i), put(2, b"%d" % i, 5))
    driver.flush()
    driver.commit(delete(2))
    driver.set_history(KeepLast(1))
    driver.commit(put(3, b"three", 3))
    driver.compact()
    driver.commit(put(1, b"once more", 1))
    driver.flush()
    driver.set_history(KeepAll())
    driver.commit(put(1, b"and more", 2))
    driver.compact()


@workload
def keep_last_in_flushes(disk: SimulatedDisk) -> None:
    driver = Driver(disk, TINY)
    driver.set_history(KeepLast(2))
    for i in range(6):
        driver.commit(put(1, b"%d" % i * 300, i), delete(2) if i % 2 else put(2, b"x", i))
    driver.close()


@workload
def keep_for(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.set_history(KeepFor(timedelta(days=1)))
    driver.commit(put(1, b"a", 1), put(2, b"b", 1))
    driver.commit(put(1, b"c", 2), delete(2))
    driver.compact()
    driver.set_history(KeepFor(timedelta(0)))
    driver.commit(put(1, b"d", 3))
    driver.compact()
    driver.commit(put(1, b"e", 3))


@workload
def pins_and_retention(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.set_history(KeepLast(1))
    driver.commit(put(1, b"a", 1), put(2, b"b", 2))
    driver.commit(put(1, b"c", 3), sync=False)
    driver.pin("here")
    driver.commit(delete(1), put(2, b"d", 2))
    driver.commit(put(1, b"e", 4))
    driver.flush()
    driver.pin("there")
    driver.commit(put(1, b"f", 4), put(2, b"g", 2))
    driver.compact()
    driver.unpin("here")
    driver.compact()
    driver.commit(put(2, b"h", 2))


@workload
def pins(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"a", 1), sync=False)
    driver.pin("one")
    driver.commit(put(1, b"b", 2), sync=False)
    driver.pin("past", 1)
    driver.pin("one")
    driver.unpin("past")
    driver.commit(put(1, b"c", 2), sync=False)
    driver.unpin("one")
    driver.close()


@workload
def bulk(disk: SimulatedDisk) -> None:
    driver = Driver(disk, BULK)
    driver.commit(put(1, b"before", 1), put(7, b"stays", 2), sync=False)
    driver.bulk(*(put(i, b"bulk %d" % i, i) for i in range(4)))
    driver.commit(put(2, b"after", 2), put(3, b"bulk 3, patched", 3))
    driver.bulk(*(put(i, b"no vector") for i in (2, 8)))
    driver.commit(delete(1))
    driver.close()


@workload
def bulk_and_compaction(disk: SimulatedDisk) -> None:
    driver = Driver(disk, replace(BULK, fan_in=2))
    driver.set_history(KeepLast(1))
    for i in range(3):
        driver.bulk(*(put(j, b"%d" % i, i + j) for j in range(i, i + 3)))
    driver.commit(delete(3))
    driver.compact()


@workload
def purges(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"secret", 1), put(2, b"two", 2), connect(1, 2), connect(2, 3))
    driver.flush()
    driver.commit(put(1, b"secret too", 2), put(3, b"three", 3))
    driver.purge(1)
    driver.commit(put(1, b"harmless", 3), connect(1, 3))
    driver.commit(put(2, b"two again", 2))
    driver.purge(2, 3)
    driver.commit(put(2, b"new", 2))


@workload
def forks(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1), sync=False)
    driver.fork("/fork")
    driver.commit(put(1, b"two", 2), put(2, b"b", 2))
    driver.checkpoint("/checkpoint")
    driver.commit(put(1, b"three", 1))
    driver.compact()


@workload
def reopenings(disk: SimulatedDisk) -> None:
    driver = Driver(disk, ALLOCATED)
    driver.commit(put(1, b"one", 1))
    driver.reopen()
    driver.commit(put(1, b"two", 2), sync=False)
    driver.commit(delete(2))
    driver.reopen(log_allocate_bytes=0)
    driver.commit(put(2, b"three", 3))
    driver.close()


@workload
def kills(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1))
    driver.commit(put(2, b"lost in the page cache?" * 30, 1), sync=False)
    driver.kill()
    driver.commit(put(1, b"two", 2), sync=False)
    driver.kill(log_allocate_bytes=512)
    driver.kill()
    driver.commit(put(3, b"three", 3))
    driver.kill()
    driver.flush()
    driver.kill()


@workload
def kills_between_files(disk: SimulatedDisk) -> None:
    driver = Driver(disk, replace(TINY, durability=OS))
    for i in range(4):
        driver.commit(put(i % 2, bytes([97 + i]) * 600, i))
        driver.commit(put(5, b"%d" % i, 2))
        driver.kill()


@workload
def idempotency_keys(disk: SimulatedDisk) -> None:
    driver = Driver(disk)
    driver.commit(put(1, b"one", 1), idempotency="a")
    driver.commit(put(1, b"two", 1), idempotency="b")
    driver.flush()
    driver.commit(put(1, b"three", 1), idempotency="c")
    driver.compact()


@workload
def memories(disk: SimulatedDisk) -> None:
    """With payloads that the facade can read: what recovers is looked at through it too."""
    driver = Driver(disk)
    driver.commit(memory(1, "tea", 1, 2), memory(2, "coffee", -3))
    driver.commit(memory(1, "green tea", 1, 2), sync=False)
    driver.flush()
    driver.pin("drinks")
    driver.commit(delete(2), memory(3, "water", 0, 0))
    driver.compact()
    driver.commit(memory(2, "milk"), memory(1, "black tea", 5))


@workload
def spaces(disk: SimulatedDisk) -> None:
    """Vectors in two named spaces, in one of them several of a memory."""
    driver = Driver(disk, replace(SMALL, fan_in=2))
    tokens = [carry(1, "tokens", slot, slot, 1, 2, 3, 4) for slot in range(3)]
    driver.commit(put(1, b"one", 1, 2), carry(1, "title", 0, 1, 2), *tokens)
    driver.commit(put(2, b"two"), carry(2, "title", 0, -1, 2), connect(1, 2), sync=False)
    driver.flush()
    driver.commit(put(1, b"one, patched", 1, 2))
    driver.commit(put(1, b"retitled", 1, 2), carry(1, "title", 0, 3, 3), drop(1, "tokens", 2))
    driver.commit(put(3, b"three"), carry(3, "tokens", 0, 9, 9, 9, 9, 9))
    driver.flush()
    driver.compact()
    gone = [drop(1, "title", 0), drop(1, "tokens", 0), drop(1, "tokens", 1), disconnect(1, 2)]
    driver.commit(delete(1), *gone)
    driver.kill()
    driver.purge(2)
    driver.commit(put(1, b"back", 4), carry(1, "tokens", 0, 5, 5, 5, 5, 5), sync=False)
    driver.close()


@workload
def spaces_in_many_files(disk: SimulatedDisk) -> None:
    """Small memtables, retention, a bulk load and a copy, with vectors in spaces that appear at
    different times, and attribute columns, which only the second writer makes."""
    driver = Driver(disk, replace(TINY, fan_in=2, bulk_bytes_min=1))
    driver.commit(memory(1, "tea" * 300), carry(1, "title", 0, 1, 2), sync=False)
    driver.commit(memory(2, "coffee" * 150, 2), carry(2, "words", 0, 1), carry(2, "words", 1, 2))
    driver.pin("drinks")
    driver.kill(columns_of=shred)
    driver.bulk(memory(3, "water", 3), memory(4, "milk", 4))
    driver.set_history(KeepLast(1))
    driver.commit(memory(1, "green tea" * 120), carry(1, "title", 0, 3, 3), carry(1, "late", 0, 7))
    driver.commit(memory(2, "black"), drop(2, "words", 0), drop(2, "words", 1), sync=False)
    driver.compact()
    driver.unpin("drinks")
    driver.commit(memory(5, "juice" * 250), carry(5, "words", 0, 4), sync=False)
    driver.commit(memory(1, "tea again"), drop(1, "late", 0), connect(1, 3))
    driver.fork("/fork")
    driver.purge(1)
    driver.kill(columns_of=None)
    driver.compact()


for _seed in range(12):
    WORKLOADS[f"random_{_seed}"] = seeded(_seed)

__all__ = ["PATH", "WORKLOADS", "Run"]
