"""What is synced when: counted on the simulated disk, and then the power goes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from engramdb.errors import InvalidInputError
from engramdb.lsm import Batch, Options, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.unit.lsm_support import columns, core_of, key, open_engine, put, value, vec


def started(**options: Any) -> tuple[SimulatedDisk, StorageEngine]:
    """An engine whose log is made: what follows is the cost of a commit."""
    disk = SimulatedDisk()
    engine = open_engine(disk, log_allocate_bytes=2**16, **options)
    put(engine, 0, b"first", vec(1, 2))
    return disk, engine


def calls(disk: SimulatedDisk, before: Counter[str]) -> dict[str, int]:
    found = disk.calls - before
    return {kind: found[kind] for kind in ("write_at", "sync", "sync_data", "sync_directory")}


def survivors(disk: SimulatedDisk) -> int:
    """How many commits a power cut now leaves at least."""
    with open_engine(disk.crash(())) as engine:
        return engine.last_seq


def test_sync_one_write_one_sync_and_visible_for_each_commit() -> None:
    disk, engine = started()
    for i in range(1, 6):
        before = disk.calls.copy()
        put(engine, i, b"x", vec(i, i))
        assert calls(disk, before) == {
            "write_at": 2, "sync": 0, "sync_data": 1, "sync_directory": 0
        }  # fmt: skip
        assert survivors(disk) == i + 1
    engine.close()


def test_sync_can_be_left_out_for_a_commit_and_asked_for_later() -> None:
    disk, engine = started()
    before = disk.calls.copy()
    for i in range(1, 4):
        seq = engine.commit(_batch(i), sync=False).seq
    assert calls(disk, before)["sync_data"] == 0
    assert engine.last_seq == 4 and survivors(disk) == 1
    engine.wait_durable(seq)
    assert calls(disk, before)["sync_data"] == 1 and survivors(disk) == 4
    engine.wait_durable(seq)
    assert calls(disk, before)["sync_data"] == 1, "it was durable already"
    engine.close()


def test_a_synced_commit_takes_the_unsynced_ones_before_it_along() -> None:
    disk, engine = started()
    engine.commit(_batch(1), sync=False)
    engine.commit(_batch(2), sync=True)
    assert survivors(disk) == 3
    engine.close()


def test_os_syncs_nothing_until_it_is_asked_to() -> None:
    disk, engine = started(durability="os")
    before = disk.calls.copy()
    for i in range(1, 6):
        engine.commit(_batch(i))
    found = calls(disk, before)
    assert (found["sync_data"], found["sync"], found["sync_directory"]) == (0, 0, 0)
    assert survivors(disk) == 0
    engine.commit(_batch(9), sync=True)
    assert survivors(disk) == 7
    engine.commit(_batch(10))
    engine.flush()
    assert survivors(disk) == 8
    engine.commit(_batch(11))
    engine.close()
    assert survivors(disk) == 9, "closing is a flush"


def test_interval_syncs_by_itself() -> None:
    disk, engine = started(durability="interval", sync_interval=0.01)
    for i in range(1, 6):
        engine.commit(_batch(i))
    deadline = time.monotonic() + 5
    while survivors(disk) < 6:
        assert time.monotonic() < deadline, "never synced"
        time.sleep(0.01)
    syncs = disk.calls["sync_data"]
    time.sleep(0.05)
    assert disk.calls["sync_data"] == syncs, "nothing new, nothing to sync"
    engine.close()


def test_interval_with_a_long_interval_waits() -> None:
    disk, engine = started(durability="interval", sync_interval=60.0)
    engine.commit(_batch(1))
    assert survivors(disk) == 0
    engine.wait_durable(2)
    assert survivors(disk) == 2
    engine.close()


def test_a_bulk_load_is_durable_whatever_the_level() -> None:
    disk, engine = started(durability="os", bulk_bytes_min=1)
    engine.commit_columns(columns(range(10), dimension=2), sync=False)
    assert survivors(disk) == 2
    engine.close()


@pytest.mark.parametrize("action", ["flush", "compact", "pin", "checkpoint", "purge"])
def test_what_promises_durability_keeps_it(action: str) -> None:
    disk, engine = started(durability="os")
    actions: dict[str, Callable[[], object]] = {
        "flush": engine.flush,
        "compact": engine.compact,
        "pin": lambda: engine.pin("p"),
        "checkpoint": lambda: engine.checkpoint("/copy"),
        "purge": lambda: engine.purge([key(77)]),
    }
    actions[action]()
    after = disk.crash(())
    with open_engine(after) as again:
        assert again.last_seq == 1 and value(again.latest(), 0) == b"first"
        assert set(again.pins()) == ({"p"} if action == "pin" else set())
    if action == "checkpoint":
        with open_engine(after, "/copy") as copy:
            assert copy.last_seq == 1
    engine.close()


def test_a_reader_never_sees_what_a_power_cut_can_take_back() -> None:
    _, engine = started()
    seen = []
    real = core_of(engine).log.sync  # type: ignore[union-attr]

    def sync() -> None:
        seen.append((engine.last_seq, value(engine.latest(), 5)))  # written, not yet synced
        real()

    core_of(engine).log.sync = sync  # type: ignore[union-attr, method-assign]
    put(engine, 5, b"x", vec(5, 5))
    assert seen == [(1, None)] and value(engine.latest(), 5) == b"x"
    engine.close()


def test_a_log_grows_by_zeros_that_are_synced_first() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk, log_allocate_bytes=1024)
    for i in range(40):
        put(engine, i, b"x" * 100, vec(i, i))
        assert survivors(disk) == i + 1
    put(engine, 99, b"y" * 50_000)
    assert survivors(disk) == 41
    engine.close()


@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("durability", "none"), ("sync_interval", 0), ("sync_interval", 3601),
        ("memtable_bytes_max", 1023), ("memtable_bytes_max", 1e6), ("bulk_bytes_min", 0),
        ("cache_blocks", 0), ("log_allocate_bytes", -1), ("fan_in", 1), ("fan_in", True),
        ("dimension", 0), ("dimension", 65_537), ("history", "all"),
    ],
)  # fmt: skip
def test_an_option_that_cannot_be_is_named(name: str, bad: object) -> None:
    with pytest.raises(InvalidInputError, match=name):
        Options(**{name: bad})  # type: ignore[arg-type]


def _batch(i: int) -> Batch:
    batch = Batch()
    batch.put(key(i), b"x", vec(i, i))
    return batch
