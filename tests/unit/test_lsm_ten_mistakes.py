"""The ten mistakes of toy LSM engines (docs of the design), each made impossible by a test here."""

from __future__ import annotations

import errno
from datetime import timedelta

import pytest

from engramdb.errors import CorruptionError, StoragePoisonedError
from engramdb.lsm import Batch, KeepFor, KeepLast
from engramdb.lsm.compaction import merge_segments
from engramdb.lsm.core import number_of
from engramdb.lsm.environment.simulated import SimulatedDisk, crash_image
from engramdb.lsm.environment.trace import NamesChanged, Sync, SyncDirectory
from engramdb.lsm.records import EDGE, MEMORY
from tests.unit.lsm_support import (
    PATH,
    assert_consistent,
    columns,
    connect,
    contents,
    core_of,
    delete,
    disconnect,
    key,
    open_engine,
    put,
    searchable,
    value,
    vec,
)


def test_1_a_tombstone_does_not_fall_through_to_an_older_run() -> None:
    disk = SimulatedDisk()
    with open_engine(disk, fan_in=50) as engine:
        put(engine, 1, b"x", vec(1, 1))
        connect(engine, 1, 2)
        engine.flush()
        delete(engine, 1)
        disconnect(engine, 1, 2)
        for step in (lambda: None, engine.flush, lambda: put(engine, 9, b"other"), engine.flush):
            step()
            assert value(engine.latest(), 1) is None and searchable(engine.latest()) == {}
            assert engine.latest().count(EDGE) == 0 and engine.latest().edges_to(key(2)) == []
        # a merge of the newer runs only must keep the tombstone: what it hides lies below
        merge_segments(core_of(engine), core_of(engine).state.version.segments[1:])
        assert value(engine.latest(), 1) is None and engine.latest().count(EDGE) == 0
        assert [r.kind for r in engine.latest().history(MEMORY, key(1))] == [0, 2]
        assert_consistent(engine)
    with open_engine(disk) as engine:
        assert value(engine.latest(), 1) is None and engine.latest().count(EDGE) == 0


def test_2_the_newest_wins_whatever_its_value() -> None:
    with open_engine(SimulatedDisk(), fan_in=50) as engine:
        for payload in (b"m", b"z", b"a", b"\xff", b""):
            put(engine, 1, payload)
            engine.flush()
            assert value(engine.latest(), 1) == payload
        core = core_of(engine)
        merge_segments(core, core.state.version.segments[1:3])
        assert value(engine.latest(), 1) == b""
        engine.compact()
        assert value(engine.latest(), 1) == b""
        found = [r.payload for r in engine.latest().history(MEMORY, key(1))]
        assert found == [b"m", b"z", b"a", b"\xff", b""]


def test_3_the_log_goes_only_when_its_segment_is_synced_and_published() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"x", vec(1, 1))
    start = len(disk.trace.events)
    engine.flush()
    events = disk.trace.events[start:]
    names = [e.operation for e in events if isinstance(e, NamesChanged)]
    gone = max(i for i, e in enumerate(events) if isinstance(e, NamesChanged))
    published = next(
        i for i, e in enumerate(events) if isinstance(e, NamesChanged) and e.operation == "link"
    )
    assert names[-1] == "unlink" and published < gone
    assert any(isinstance(e, SyncDirectory) for e in events[published:gone])
    assert sum(isinstance(e, Sync) for e in events[:published]) >= 3, "segment, vectors, manifest"
    # and wherever the power goes, it is there
    for point in range(start, len(disk.trace.events) + 1):
        with open_engine(crash_image(disk.trace, point)) as again:
            assert value(again.latest(), 1) == b"x", f"power cut at {point}"
    engine.close()


def test_4_durable_means_synced_data_and_synced_names() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    for i in range(4):
        put(engine, i, b"x")
        with open_engine(disk.crash(())) as again:  # all that was not synced is lost
            assert again.last_seq == i + 1
        if i % 2:
            engine.flush()
            with open_engine(disk.crash(())) as again:
                assert again.last_seq == i + 1
    engine.close()


def test_5_a_torn_tail_neither_stops_the_opening_nor_is_written_behind() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"acknowledged")
    batch = Batch()
    batch.put(key(2), b"x", vec(2, 2))
    engine.commit(batch, sync=False)
    for tear in range(1, 2**4):
        after = disk.crash([tear] * 10)
        with open_engine(after) as again:
            assert value(again.latest(), 1) == b"acknowledged"
            put(again, 3, b"later")
            with open_engine(after.crash(())) as third:
                assert value(third.latest(), 3) == b"later"
                assert third.last_seq == again.last_seq
    engine.close()


def test_6_a_bad_record_is_not_the_end_of_the_log() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    for i in range(5):
        put(engine, i, b"x")
    disk = disk.crash(())
    path = f"{PATH}/wal/{disk.list(f'{PATH}/wal')[0]}"
    disk.rot(path, 8 * 150)
    for _ in range(2):
        with pytest.raises(CorruptionError, match="wal"):
            open_engine(disk)
    disk.rot(path, 8 * 150)
    with open_engine(disk) as again:
        assert again.last_seq == 5, "refusing has changed nothing"


def test_7_file_numbers_come_from_one_counter_and_never_again() -> None:
    disk = SimulatedDisk()
    seen: set[str] = set()
    for round_ in range(5):
        disk.step_clock(-10_000_000_000)
        with open_engine(disk, bulk_bytes_min=1, history=KeepLast(1)) as engine:
            real = disk.rename

            def rename(source: str, destination: str, real=real) -> None:  # type: ignore[no-untyped-def]
                assert destination not in seen, f"{destination} was used before"
                seen.add(destination)
                real(source, destination)

            disk.rename = rename  # type: ignore[method-assign]
            for i in range(5):
                put(engine, i, b"%d" % round_, vec(i, 1, 2, 3))
            engine.commit_columns(columns(range(10)))
            engine.compact()
            engine.purge([key(7)])
            disk.rename = real  # type: ignore[method-assign]
    numbers = [number_of(name.rpartition("/")[2]) for name in seen]
    assert len(numbers) == len(set(numbers)) >= 20


def test_8_files_live_because_the_manifest_says_so() -> None:
    disk = SimulatedDisk()
    with open_engine(disk) as engine:
        put(engine, 1, b"kept")
        engine.flush()
        engine.fork("/old")  # links that outlive what comes
        engine.purge([key(1)])
        put(engine, 2, b"newer")
    name = disk.list("/old/seg")[0]
    disk.link(f"/old/seg/{name}", f"{PATH}/seg/000077.seg")  # a file nobody refers to
    disk.link(f"/old/seg/{name}", f"{PATH}/tmp/000078.seg")
    with open_engine(disk) as engine:
        assert value(engine.latest(), 1) is None and value(engine.latest(), 2) == b"newer"
        assert f"{PATH}/seg/000077.seg" not in engine.stats() and engine.verify().ok
        assert "000077.seg" not in disk.list(f"{PATH}/seg") and disk.list(f"{PATH}/tmp") == []
        put(engine, 3, b"x")
        engine.flush()
        found = [number_of(entry) for entry in disk.list(f"{PATH}/seg")]
        assert max(found) > 78, "its number is not given again"


@pytest.mark.parametrize("policy", [KeepLast(1), KeepFor(timedelta(0))])
def test_9_nothing_that_somebody_can_still_see_is_dropped(policy: object) -> None:
    disk = SimulatedDisk()
    with open_engine(disk, history=policy) as engine:
        put(engine, 1, b"one", vec(1, 1))
        put(engine, 2, b"two", vec(2, 2))
        engine.flush()
        held = engine.snapshot()
        before = contents(held), searchable(held)
        pin = engine.pin("tag")
        delete(engine, 1)
        put(engine, 2, b"two again", vec(3, 3))
        engine.compact()
        assert (contents(held), searchable(held)) == before, "a live snapshot"
        pinned = engine.at(pin.seq)
        assert (contents(pinned), searchable(pinned)) == before, "a pin"
        assert value(engine.latest(), 1) is None, "the tombstone still hides what the pin keeps"
        engine.unpin("tag")
        engine.compact()
        assert (contents(held), searchable(held)) == before
        assert engine.stats()["versions"] == 1 and value(engine.latest(), 1) is None
        assert_consistent(engine)


def test_9_what_only_the_log_supersedes_is_not_dropped() -> None:
    # or a power cut that takes the log takes both versions
    disk = SimulatedDisk()
    engine = open_engine(disk, history=KeepLast(1), durability="os")
    put(engine, 1, b"flushed", vec(1, 1))
    engine.flush()
    put(engine, 1, b"not synced", vec(2, 2))
    core = core_of(engine)
    merge_segments(core, core.state.version.segments)
    assert value(engine.latest(), 1) == b"not synced"
    with open_engine(disk.crash(())) as again:
        assert value(again.latest(), 1) == b"flushed"
        put(again, 7, b"takes the seq that was lost")
        put(again, 8, b"another")
        assert value(again.latest(), 1) == b"flushed" and key(1) in searchable(again.latest())
        assert_consistent(again)
    engine.close()


def test_10_a_length_is_not_trusted_before_its_checksum() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    put(engine, 1, b"x")
    disk = disk.crash(())
    path = f"{PATH}/wal/{disk.list(f'{PATH}/wal')[0]}"
    assert not disk.exists(f"{PATH}/VISIBLE"), "it is never synced"
    disk.open(path, "w").write_at(68, b"\xf8\xff\xff\xff")  # four gigabytes, it says
    asked: list[int] = []
    real = disk.open

    def opened(name: str, mode):  # type: ignore[no-untyped-def]
        file = real(name, mode)
        asked.append(file.size())
        return file

    disk.open = opened  # type: ignore[method-assign, assignment]
    with open_engine(disk) as again:
        assert again.last_seq == 0
    assert max(asked) < 2**20
    engine.close()


def test_10_files_under_an_open_iterator_stay_readable() -> None:
    disk = SimulatedDisk()
    with open_engine(disk, bulk_bytes_min=1, history=KeepLast(1)) as engine:
        engine.commit_columns(columns(range(50)))
        scan, runs = engine.latest().scan(MEMORY), engine.latest().vector_runs()
        engine.commit_columns(columns(range(50), b"new"))
        engine.compact()
        engine.purge([key(1)])
        assert sum(map(len, scan)) == 50
        assert {float(row[0]) for row in runs[0].matrix} == set(map(float, range(50)))


def test_10_a_failed_sync_is_not_swallowed() -> None:
    for kind in ("sync", "sync_data", "sync_directory"):
        disk = SimulatedDisk()
        engine = open_engine(disk)
        put(engine, 1, b"x")
        disk.fail(kind, error=errno.EIO, sticky=True)
        with pytest.raises(StoragePoisonedError):
            put(engine, 2, b"y")
            engine.flush()
        disk.heal()
        with pytest.raises(StoragePoisonedError):
            put(engine, 3, b"z")
        engine.close()
