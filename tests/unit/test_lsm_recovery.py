"""Opening after a crash: a torn tail is cut off, what was once synced is never given up."""

from __future__ import annotations

import pytest

from engramdb.errors import CorruptionError, IncompatibleFormatError, InvalidInputError
from engramdb.lsm import StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.log_writer import read_visible
from tests.unit.lsm_support import PATH, contents, core_of, key, open_engine, put, value, vec

VISIBLE = f"{PATH}/VISIBLE"


def written(*, sync: bool = True, count: int = 5) -> tuple[SimulatedDisk, list[int]]:
    """A disk on which some commits stand in the log only; where each of their records ends."""
    disk = SimulatedDisk()
    engine = open_engine(disk, durability="sync" if sync else "os")
    ends = []
    for i in range(count):
        put(engine, i, b"payload%d" % i, vec(i, 1))
        ends.append(log_of(engine).size)
    return disk.crash([-1] * 10_000), ends  # everything arrives: a process that was killed


def log_of(engine: StorageEngine):  # type: ignore[no-untyped-def]
    log = core_of(engine).log
    assert log is not None
    return log


def logs(disk: SimulatedDisk) -> list[str]:
    return [f"{PATH}/wal/{name}" for name in disk.list(f"{PATH}/wal")]


def overwrite(disk: SimulatedDisk, path: str, offset: int, data: bytes) -> None:
    disk.open(path, "w").write_at(offset, data)


def put_unflushed(engine: StorageEngine, i: int, payload: bytes) -> None:
    """Save while the flush of what was recovered is still to come, as with a thread for it."""
    core_of(engine).has_work = lambda: False  # type: ignore[method-assign]
    put(engine, i, payload)


def opened(disk: SimulatedDisk) -> StorageEngine:
    return open_engine(disk)


def test_everything_is_there_after_a_kill() -> None:
    disk, _ = written()
    with opened(disk) as engine:
        assert engine.last_seq == 5 and engine.stats()["truncated_bytes"] == 0
        assert [value(engine.latest(), i) for i in range(5)] == [b"payload%d" % i for i in range(5)]


def test_recovering_again_and_again_changes_nothing() -> None:
    disk, _ = written()
    for _ in range(3):
        engine = opened(disk)
        assert len(contents(engine.latest())) == 5
        disk = disk.crash(())
    with opened(disk) as engine:
        assert len(contents(engine.latest())) == 5


@pytest.mark.parametrize("into", [0, 1, 8, 63, 64, 80, 100])
def test_a_tail_that_was_never_synced_is_cut_off_and_reported(into: int) -> None:
    disk, ends = written(sync=False)
    disk.unlink(VISIBLE)
    (log,) = logs(disk)
    disk.open(log, "w").truncate(ends[3] + into)
    with opened(disk) as engine:
        assert engine.last_seq == 4
        found = engine.stats()["truncated_bytes"]
        assert (found > 0) == (into > 0) and found <= into
        assert put(engine, 9, b"after").seq == 5
    with opened(disk) as engine:
        assert engine.last_seq == 5 and value(engine.latest(), 9) == b"after"


def test_new_records_never_stand_behind_torn_ones() -> None:
    disk, ends = written(sync=False)
    disk.unlink(VISIBLE)
    (log,) = logs(disk)
    overwrite(disk, log, ends[3] + 70, b"torn")
    engine = opened(disk)
    put_unflushed(engine, 9, b"after")
    assert len(logs(disk)) == 2, "never append to a log that has been recovered"
    assert disk.size(log) == ends[3]
    with opened(disk.crash(())) as again:
        assert again.last_seq == 5 and value(again.latest(), 9) == b"after"


def test_a_rotten_record_with_synced_ones_behind_it_is_corruption() -> None:
    disk, ends = written()
    disk.unlink(VISIBLE)  # the later records prove it by themselves
    (log,) = logs(disk)
    overwrite(disk, log, ends[1] + 70, b"rot")
    with pytest.raises(CorruptionError) as caught:
        opened(disk)
    assert (caught.value.file, caught.value.offset) == (log, ends[1])
    assert disk.size(log) >= ends[4], "nothing was truncated"


def test_visible_proves_that_the_last_record_was_synced() -> None:
    disk, ends = written()
    (log,) = logs(disk)
    overwrite(disk, log, ends[3] + 70, b"rot")
    with pytest.raises(CorruptionError, match="once synced"):
        opened(disk)
    disk.unlink(VISIBLE)  # without that proof it is the tail that a power cut may leave
    with opened(disk) as engine:
        assert engine.last_seq == 4


def test_a_damaged_visible_proves_nothing_and_disturbs_nobody() -> None:
    disk, _ = written()
    overwrite(disk, VISIBLE, 20, b"???")
    with opened(disk) as engine:
        assert engine.last_seq == 5
        put(engine, 1, b"x")
        assert read_visible(disk, PATH) is not None


def test_a_later_log_proves_that_this_one_was_whole() -> None:
    disk, ends = written()
    put_unflushed(opened(disk), 9, b"in a second log")
    disk = disk.crash(())
    first, _ = logs(disk)
    disk.open(first, "w").truncate(ends[3])
    with pytest.raises(CorruptionError) as caught:
        opened(disk)
    assert caught.value.file == first


def test_a_missing_first_log_is_noticed() -> None:
    disk, _ = written()
    put_unflushed(opened(disk), 9, b"in a second log")
    disk = disk.crash(())
    first, _ = logs(disk)
    disk.unlink(first)
    disk.unlink(VISIBLE)
    with pytest.raises(CorruptionError, match="before it"):
        opened(disk)


def test_a_missing_last_log_is_noticed() -> None:
    disk, _ = written()
    (log,) = logs(disk)
    disk.unlink(log)
    with pytest.raises(CorruptionError, match="no file") as caught:
        opened(disk)
    assert caught.value.file == log
    with pytest.raises(CorruptionError, match="no file"):
        open_engine(disk, read_only=True)


def test_a_log_of_another_database_is_refused() -> None:
    disk, _ = written()
    other, _ = written()
    (log,) = logs(disk)
    data = other.open(log, "r").read_at(0, 1 << 20)
    # the same bytes, but the uuid that the first 64 repeat
    disk.open(log, "w").write_at(0, data[:16] + bytes(16) + data[32:])
    with pytest.raises((CorruptionError, IncompatibleFormatError)):
        opened(disk)


def test_a_log_that_was_just_being_made_is_no_damage() -> None:
    disk, _ = written()
    disk.open(f"{PATH}/wal/000009.wal", "x").write_at(0, bytes(4096))
    with opened(disk) as engine:
        assert engine.last_seq == 5
        put(engine, 1, b"x")
    with opened(disk) as engine:
        assert engine.last_seq == 6


def test_a_rotten_header_of_a_log_in_use_is_corruption() -> None:
    disk, _ = written()
    (log,) = logs(disk)
    overwrite(disk, log, 20, b"rot")
    for read_only in (False, True):
        with pytest.raises(CorruptionError):
            open_engine(disk, read_only=read_only)


def test_reading_only_leaves_a_torn_log_as_it_is() -> None:
    disk, ends = written(sync=False)
    disk.unlink(VISIBLE)
    (log,) = logs(disk)
    disk.open(log, "w").truncate(ends[3] + 30)
    with open_engine(disk, read_only=True) as engine:
        assert engine.last_seq == 4
    assert disk.size(log) == ends[3] + 30


def test_another_dimension_in_the_options_is_no_damage() -> None:
    disk, _ = written()
    with pytest.raises(InvalidInputError, match="dimension"):
        open_engine(disk, dimension=3)
    with open_engine(disk, dimension=2) as engine:
        assert engine.dimension == 2
    with pytest.raises(InvalidInputError, match="dimension"):
        open_engine(disk, dimension=3)


def test_shared_vectors_and_deaths_come_back_over_several_logs() -> None:
    disk = SimulatedDisk()
    seen = []
    for round_ in range(4):
        engine = opened(disk)
        for i in range(6):
            put(engine, i, b"%d" % round_, vec(i, round_))
        seen.append(contents(engine.latest()))
        disk = disk.crash(())
    engine = opened(disk)
    for round_ in range(4):
        assert contents(engine.at(6 * (round_ + 1))) == seen[round_]
    engine.compact()
    for round_ in range(4):
        assert contents(engine.at(6 * (round_ + 1))) == seen[round_]
    assert key(0) in seen[0]
    assert engine.verify().ok
    engine.close()
