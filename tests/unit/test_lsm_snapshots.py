"""A snapshot answers the same for ever, whatever is written, flushed or merged meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engramdb.errors import ClosedError, HistoryUnavailableError
from engramdb.lsm import Batch, KeepLast, Snapshot, StorageEngine
from engramdb.lsm.columns import Column
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import EDGE, MEMORY, NEVER, PATCH, PUT, TOMBSTONE
from tests.unit.lsm_support import (
    PATH,
    assert_consistent,
    columns,
    connect,
    contents,
    core_of,
    delete,
    disconnect,
    edge_set,
    key,
    open_engine,
    patch,
    put,
    searchable,
    value,
    vec,
)


@pytest.fixture
def engine() -> Iterator[StorageEngine]:
    with open_engine(SimulatedDisk(), dimension=4, bulk_bytes_min=10_000) as engine:
        yield engine


def fill(engine: StorageEngine) -> None:
    """Ten memories in all states a version can be in, and edges."""
    for i in range(10):
        put(engine, i, b"first%d" % i, vec(i, 1, 2, 3) if i % 3 else None)
    put(engine, 1, b"second", vec(9, 9, 9, 9))
    patch(engine, 2, b"patched")
    delete(engine, 4)
    delete(engine, 5)
    put(engine, 5, b"back", vec(5, 5, 5, 5))
    connect(engine, 1, 2)
    connect(engine, 1, 2, "Causation", 0.5)
    connect(engine, 2, 1)
    disconnect(engine, 2, 1)


def everything(snapshot: Snapshot) -> tuple[Any, ...]:
    """All that a snapshot can be asked."""
    histories = [
        [tuple(r)[:6] for r in snapshot.history(MEMORY, key(i))] for i in range(12)
    ]  # without `superseded`, which is of the future
    adjacent = [
        ([e[:9] for e in snapshot.edges_from(key(i))], [e[:9] for e in snapshot.edges_to(key(i))])
        for i in range(12)
    ]
    return (
        contents(snapshot),
        edge_set(snapshot),
        searchable(snapshot),
        [value(snapshot, i) for i in range(12)],
        [snapshot.count(c) for c in (MEMORY, EDGE)],
        histories,
        adjacent,
        snapshot.changes(0),
        sorted(snapshot.touched(MEMORY, 3)),
        snapshot.seq,
        snapshot.time,
        snapshot.seq_at(snapshot.time),
    )


def churn(engine: StorageEngine) -> None:
    for i in range(12):
        put(engine, i, b"later", vec(7, 7, 7, i))
    delete(engine, 3)
    connect(engine, 3, 1)
    disconnect(engine, 1, 2)


def test_it_does_not_move_while_everything_else_does(engine: StorageEngine) -> None:
    fill(engine)
    snapshot = engine.snapshot()
    before = everything(snapshot)
    churn(engine)
    assert everything(snapshot) == before
    engine.flush()
    assert everything(snapshot) == before
    churn(engine)
    engine.commit_columns(columns(range(200), dimension=4))
    assert everything(snapshot) == before
    engine.set_history(KeepLast(1))
    engine.compact()
    assert everything(snapshot) == before
    engine.purge([key(1), key(2)])
    assert everything(snapshot) == before
    assert_consistent(engine)
    engine.close()
    assert everything(snapshot) == before


def test_each_past_moment_is_what_it_was(engine: StorageEngine) -> None:
    seen: list[tuple[Any, ...]] = [everything(engine.snapshot())]

    def look() -> None:
        while len(seen) <= engine.last_seq:
            seen.append(everything(engine.at(len(seen))))

    for step in (
        fill,
        StorageEngine.flush,
        churn,
        StorageEngine.flush,
        churn,
        StorageEngine.compact,
    ):
        step(engine)
        look()
    for seq, expected in enumerate(seen):
        assert everything(engine.at(seq)) == expected, f"at commit {seq}"


def test_it_opens_as_it_closed() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk, dimension=4)
    fill(engine)
    engine.flush()
    churn(engine)
    seen = [everything(engine.at(seq)) for seq in range(1, engine.last_seq + 1)]
    engine.close()
    with open_engine(disk) as again:
        found = [everything(again.at(seq)) for seq in range(1, again.last_seq + 1)]
        assert found == seen


def test_it_opens_from_the_log_as_it_was(engine: StorageEngine) -> None:
    disk = core_of(engine).environment
    assert isinstance(disk, SimulatedDisk)
    fill(engine)
    engine.flush()
    churn(engine)
    seen = [everything(engine.at(seq)) for seq in range(1, engine.last_seq + 1)]
    with open_engine(disk.crash(())) as again:  # a power cut: nothing unsynced survives
        found = [everything(again.at(seq)) for seq in range(1, again.last_seq + 1)]
        assert found == seen


def test_kinds_and_vectors_of_a_history(engine: StorageEngine) -> None:
    put(engine, 1, b"a", vec(1, 2, 3, 4))
    patch(engine, 1, b"b")
    engine.flush()
    patch(engine, 1, b"c")
    delete(engine, 1)
    put(engine, 1, b"d", vec(4, 3, 2, 1))
    versions = engine.latest().history(MEMORY, key(1))
    assert [v.kind for v in versions] == [PUT, PATCH, PATCH, TOMBSTONE, PUT]
    assert [v.superseded for v in versions] == [2, 3, 4, 5, NEVER]
    numbers = [v.vector for v in versions]  # type: ignore[union-attr]
    assert numbers == [1, 1, 1, 0, 2]
    assert engine.latest().vector(1).tolist() == [1, 2, 3, 4]
    with pytest.raises(ValueError):
        engine.latest().vector(1)[0] = 5


def test_a_shared_vector_is_written_again_when_somebody_saved_in_between(
    engine: StorageEngine,
) -> None:
    put(engine, 1, b"a", vec(1, 2, 3, 4))
    stale = Batch()
    stale.put(key(1), b"mine", vec(1, 2, 3, 4), shares=1)
    put(engine, 1, b"theirs", vec(0, 0, 0, 1))
    engine.commit(stale)
    newest = engine.latest().history(MEMORY, key(1))[-1]
    assert (newest.kind, newest.vector) == (PUT, 3)  # type: ignore[union-attr]
    assert_consistent(engine)


def test_the_same_answers_from_memtable_and_segment(engine: StorageEngine) -> None:
    fill(engine)
    before = everything(engine.latest())
    engine.flush()
    assert everything(engine.latest()) == before
    engine.compact()
    assert everything(engine.latest()) == before


def test_an_empty_database() -> None:
    with open_engine(SimulatedDisk()) as engine:
        snapshot = engine.latest()
        assert (snapshot.seq, snapshot.time, engine.last_seq, engine.dimension) == (0, 0, 0, None)
        assert everything(snapshot)[:3] == ({}, set(), {})
        assert snapshot.get(MEMORY, key(1)) is None and snapshot.seq_at(2**62) == 0
        engine.flush()
        engine.compact()
        assert engine.purge([]).versions == 0 and engine.verify().ok


def test_time_is_strictly_monotone_although_the_clock_steps_back() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        times = []
        for i in range(6):
            times.append(put(engine, i, b"x").time)
            disk.step_clock(-3_600_000_000)
        assert times == sorted(set(times))
        for seq, time in enumerate(times, 1):
            assert engine.seq_at(time) == seq
            assert engine.seq_at(time - 1) == seq - 1
            assert engine.at(seq).time == time
    with open_engine(disk) as again:
        assert put(again, 9, b"x").time > times[-1]


def test_now_is_the_last_commit_although_all_its_versions_are_gone() -> None:
    with open_engine(SimulatedDisk(), history=KeepLast(1)) as engine:
        put(engine, 1, b"x")
        last = delete(engine, 1)
        engine.compact()
        assert engine.stats()["versions"] == 0
        assert engine.seq_at(last.time) == engine.seq_at(2**62) == last.seq
        assert value(engine.at(engine.seq_at(2**62)), 1) is None


def test_below_the_history_floor_is_an_error_never_a_lie(engine: StorageEngine) -> None:
    put(engine, 1, b"one", vec(1, 1, 1, 1))
    put(engine, 2, b"kept", vec(2, 2, 2, 2))
    pin = engine.pin("tag")
    put(engine, 1, b"two", vec(1, 1, 1, 2))
    put(engine, 1, b"three", vec(1, 1, 1, 3))
    put(engine, 3, b"other")
    engine.set_history(KeepLast(1))
    engine.compact()
    assert engine.stats()["history_floor"] == 4
    with pytest.raises(HistoryUnavailableError):
        engine.at(3)
    with pytest.raises(HistoryUnavailableError):
        engine.at(1)
    with pytest.raises(HistoryUnavailableError):
        engine.changes(3)
    assert value(engine.at(4), 1) == b"three"
    pinned = engine.at(pin.seq)
    assert value(pinned, 1) == b"one" and searchable(pinned)[key(1)] == vec(1, 1, 1, 1).tobytes()
    partial = engine.at(3, partial=True)
    with pytest.raises(HistoryUnavailableError):
        value(partial, 1)
    with pytest.raises(HistoryUnavailableError):
        value(partial, 3)
    assert value(partial, 2) == b"kept"
    for read in (partial.vector_runs, lambda: partial.count(MEMORY), lambda: list(partial.scan(0))):
        with pytest.raises(HistoryUnavailableError):
            read()
    with pytest.raises(HistoryUnavailableError):
        partial.edges_from(key(1))


def test_a_pin_outlives_reopening_and_lets_go_when_it_is_taken_away() -> None:
    disk = SimulatedDisk()
    with open_engine(disk, history=KeepLast(1)) as engine:
        put(engine, 1, b"one")
        pin = engine.pin("moment")
        put(engine, 1, b"two")
    with open_engine(disk) as engine:
        assert engine.history_policy == KeepLast(1)
        engine.compact()
        assert engine.pins() == {"moment": pin}
        assert value(engine.at(pin.seq), 1) == b"one"
        assert engine.unpin("moment") and not engine.unpin("moment")
        engine.compact()
        with pytest.raises(HistoryUnavailableError):
            engine.at(pin.seq)
        assert engine.stats()["versions"] == 1


def test_a_closed_snapshot_says_so(engine: StorageEngine) -> None:
    put(engine, 1, b"x")
    with engine.snapshot() as snapshot:
        assert value(snapshot, 1) == b"x"
    with pytest.raises(ClosedError, match="snapshot"):
        value(snapshot, 1)
    snapshot.close()


def test_a_scan_in_progress_is_not_disturbed(engine: StorageEngine) -> None:
    engine.commit_columns(columns(range(20_000), dimension=None))
    scan = engine.latest().scan(MEMORY)
    first = next(scan)
    engine.purge([key(i) for i in range(0, 20_000, 3)])
    rest = list(scan)
    assert len(first) + sum(map(len, rest)) == 20_000
    payloads = [p for rows in (first, *rest) for p in rows.payloads()]
    assert len(set(payloads)) == 20_000


def test_a_wide_scan_comes_in_batches_with_everything_in_step(engine: StorageEngine) -> None:
    engine.commit_columns(columns(range(40_000), dimension=4))
    total = 0
    for rows in engine.latest().scan(MEMORY):
        total += len(rows)
        payloads = rows.payloads()
        for i in (0, len(rows) // 2, len(rows) - 1):
            number = int(payloads[i][4:])
            assert rows.keys[i].tobytes() == key(number)
            assert engine.latest().vector(int(rows.vectors[i])).tolist() == [number] * 4
        assert np.unique(rows.seqs).tolist() == [1]
    assert total == 40_000
    assert core_of(engine).path("seg", 1).startswith(PATH)


def test_a_memory_with_very_many_versions_is_read_in_few_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads = 0

    def count(column: Column, row: int) -> int:
        nonlocal reads
        reads += 1
        return get(column, row)

    get = Column.__getitem__
    with open_engine(SimulatedDisk(), durability="os") as engine:
        for n in range(4):
            for seq in range(1, 2001):
                put(engine, 1, b"%d" % (2000 * n + seq))
            put(engine, 2, b"x") if n < 3 else None
            engine.flush()
        engine.compact()
        monkeypatch.setattr(Column, "__getitem__", count)
        for seq in (1, 2, 777, 1999, 2000, 4444, 8002):
            reads = 0
            record = engine.at(seq).get(MEMORY, key(1))
            assert record is not None and record.seq == seq
            assert reads < 60
        assert engine.at(2001).get(MEMORY, key(1)).seq == 2000  # type: ignore[union-attr]
        assert engine.at(0).get(MEMORY, key(1)) is None
        assert engine.at(2000).get(MEMORY, key(2)) is None


def test_the_time_of_a_moment_is_told_without_listing_its_commit(
    engine: StorageEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(engine)
    times = {0: 0} | {change.seq: change.time for change in engine.changes(0)}
    monkeypatch.setattr(Snapshot, "changes", None)
    assert {seq: engine.at(seq).time for seq in range(engine.last_seq + 1)} == times
    engine.flush()
    assert {seq: engine.at(seq).time for seq in range(engine.last_seq + 1)} == times
    engine.compact()
    assert {seq: engine.at(seq).time for seq in range(engine.last_seq + 1)} == times


@pytest.mark.parametrize("steps", ["", "f", "c", "fwf", "fwfw", "fwc", "fwcw", "k", "fwkw"])
def test_exist_says_of_many_keys_what_get_says_of_each(engine: StorageEngine, steps: str) -> None:
    if "k" in steps:
        engine.set_history(KeepLast(1))
    fill(engine)
    for step in steps:
        if step == "w":  # over what is in files already
            put(engine, 0, b"over")
            delete(engine, 7)
            put(engine, 4, b"again")
            delete(engine, 4)
            put(engine, 20, b"new")
        elif step == "f":
            engine.flush()
        else:
            engine.compact()
    keys = [key(i) for i in (3, 99, *range(12), 20, 3)]
    matrix = np.frombuffer(b"".join(keys), np.uint8).reshape(-1, 16)
    floor = 0 if "k" not in steps else engine.last_seq
    outcomes = set()
    for seq in range(floor, engine.last_seq + 1):
        snapshot = engine.at(seq)
        expected = [snapshot.get(MEMORY, each) is not None for each in keys]
        assert snapshot.exist(MEMORY, matrix).tolist() == expected, seq
        outcomes.update(expected)
    assert outcomes == {True, False}
    assert engine.latest().exist(MEMORY, matrix[:0]).tolist() == []
    assert not engine.latest().exist(EDGE, matrix).any()
