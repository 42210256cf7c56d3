"""A large column batch goes around the log, and is one commit like any other."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest

from engramdb.errors import InvalidInputError, StoragePoisonedError
from engramdb.lsm import ColumnBatch, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.limits import PAYLOAD_BYTES_MAX
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import (
    PATH,
    assert_consistent,
    columns,
    contents,
    core_of,
    delete,
    key,
    open_engine,
    put,
    searchable,
    value,
    vec,
)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def engine(disk: SimulatedDisk) -> Iterator[StorageEngine]:
    with open_engine(disk, bulk_bytes_min=1) as engine:
        yield engine


def log_count(disk: SimulatedDisk) -> int:
    return len(disk.list(f"{PATH}/wal"))


def test_it_is_there_at_once_and_after_a_power_cut(
    disk: SimulatedDisk, engine: StorageEngine
) -> None:
    commit = engine.commit_columns(columns(range(100)), sync=False)
    assert log_count(disk) == 0, "it goes around the log"
    held = contents(engine.latest())
    assert len(held) == 100 and held[key(7)] == (b"bulk7", 1, vec(7, 7, 7, 7).tobytes())
    assert commit.seq == 1 and engine.latest().time == commit.time
    assert_consistent(engine)
    with open_engine(disk.crash(())) as again:
        assert contents(again.latest()) == held
        assert_consistent(again)


@pytest.mark.parametrize("dimension", [None, 1, 4, 300])
def test_with_and_without_vectors(engine: StorageEngine, dimension: int | None) -> None:
    engine.commit_columns(columns(range(70), dimension=dimension))
    assert len(searchable(engine.latest())) == (70 if dimension else 0)
    assert engine.dimension == dimension
    assert_consistent(engine)


def test_small_commits_before_and_after(disk: SimulatedDisk, engine: StorageEngine) -> None:
    put(engine, 1, b"old", vec(1, 0, 0, 0))
    put(engine, 2, b"old", vec(2, 0, 0, 0))
    delete(engine, 2)
    put(engine, 500, b"apart", vec(5, 0, 0, 0))
    bulk = engine.commit_columns(columns(range(100)))
    put(engine, 1, b"new", vec(1, 1, 1, 1))
    delete(engine, 3)
    second = engine.commit_columns(columns(range(50, 150), b"more"))
    assert (bulk.seq, second.seq) == (5, 8)
    for at in (engine, None):
        reader = at or open_engine(disk.crash(()))
        latest = reader.latest()
        assert [value(latest, i) for i in (1, 2, 3, 60, 149, 500)] == [
            b"new", b"bulk2", None, b"more60", b"more149", b"apart"
        ]  # fmt: skip
        before = reader.at(4)
        assert [value(before, i) for i in (1, 2, 60, 500)] == [b"old", None, None, b"apart"]
        assert value(reader.at(5), 1) == b"bulk1"
        assert len(searchable(reader.at(5))) == 101
        assert [r.seq for r in latest.history(MEMORY, key(1))] == [1, 5, 6]
        assert_consistent(reader)
        for seq in range(9):
            assert_consistent(reader, reader.at(seq))
        reader.close()


def test_the_order_of_the_batch_does_not_matter(engine: StorageEngine) -> None:
    shuffled = np.random.default_rng(1).permutation(300).tolist()
    engine.commit_columns(columns(shuffled))
    held = contents(engine.latest())
    for i in range(300):
        assert held[key(i)] == (b"bulk%d" % i, 1, vec(i, i, i, i).tobytes())


def test_it_is_compacted_purged_and_reopened_like_the_rest(
    disk: SimulatedDisk, engine: StorageEngine
) -> None:
    for round_ in range(5):
        engine.commit_columns(columns(range(round_ * 10, round_ * 10 + 100), b"r%d-" % round_))
    held = contents(engine.latest())
    engine.compact()
    assert contents(engine.latest()) == held
    assert value(engine.at(2), 10) == b"r1-10"
    report = engine.purge([key(10)])
    assert (report.versions, report.vectors) == (2, 2)
    del held[key(10)]
    assert contents(engine.latest()) == held
    assert_consistent(engine)
    engine.close()
    with open_engine(disk) as again:
        assert contents(again.latest()) == held
        assert_consistent(again)


def test_commits_from_other_threads_meanwhile(engine: StorageEngine) -> None:
    failures: list[BaseException] = []

    def small(thread: int) -> None:
        try:
            for i in range(30):
                put(engine, 1000 + thread * 100 + i, b"small", vec(thread, i, 0, 1))
        except BaseException as error:
            failures.append(error)

    def large(thread: int) -> None:
        try:
            for i in range(4):
                engine.commit_columns(columns(range(i * 20 + thread * 50, i * 20 + 100)))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=small, args=(i,)) for i in range(3)]
    threads += [threading.Thread(target=large, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    changes = engine.changes(0)
    assert [change.seq for change in changes] == list(range(1, 99))
    times = [change.time for change in changes]
    assert times == sorted(set(times))
    assert engine.latest().count(MEMORY) == 160 + 90
    assert_consistent(engine)


# What is refused, and then nothing is written


def refuse(engine: StorageEngine, batch: ColumnBatch, argument: str) -> None:
    before = engine.stats()["manifest"], engine.last_seq
    with pytest.raises(InvalidInputError, match=argument):
        engine.commit_columns(batch)
    assert (engine.stats()["manifest"], engine.last_seq) == before
    environment = core_of(engine).environment
    assert environment.list(f"{PATH}/tmp") == []
    put(engine, 9999, b"still writable")


def test_another_dimension(engine: StorageEngine) -> None:
    engine.commit_columns(columns(range(10), dimension=4))
    refuse(engine, columns(range(10), dimension=5), "dimension 5")


def test_a_dimension_that_cannot_be(engine: StorageEngine) -> None:
    refuse(engine, columns(range(3), dimension=0), "dimension")


def test_an_id_twice(engine: StorageEngine) -> None:
    refuse(engine, columns([1, 2, 1]), "same id")


def test_columns_of_different_lengths(engine: StorageEngine) -> None:
    good = columns(range(3))
    assert good.vectors is not None
    refuse(engine, ColumnBatch(good.keys[:2], good.payloads, good.vectors), "keys")
    refuse(engine, ColumnBatch(good.keys, good.payloads, good.vectors[:2]), "embeddings")
    refuse(engine, ColumnBatch(good.keys, good.payloads, good.vectors[0]), "embeddings")
    refuse(engine, ColumnBatch(good.keys[:0], [], None), "keys")


def test_a_payload_that_is_too_large_is_refused_around_the_log_too(engine: StorageEngine) -> None:
    good = columns(range(2))
    edge = [bytes(PAYLOAD_BYTES_MAX), b"small"]
    engine.commit_columns(ColumnBatch(good.keys, edge, good.vectors))
    assert value(engine.latest(), 0) == edge[0]
    refuse(engine, ColumnBatch(good.keys, [edge[0] + b"!", b""], good.vectors), "attributes")


def test_a_race_for_the_first_dimension_has_one_winner(engine: StorageEngine) -> None:
    # the other one commits between the check and the commit of this one
    core = core_of(engine)
    freeze = core.freeze
    raced: list[bool] = []

    def freeze_late() -> None:
        if not raced:
            raced.append(True)
            core.space = 7
        freeze()

    core.freeze = freeze_late  # type: ignore[method-assign]
    refuse(engine, columns(range(3), dimension=4), "dimension 4")


def test_a_disk_error_poisons_and_a_reopening_finds_all_or_nothing(disk: SimulatedDisk) -> None:
    for nth in range(1, 12):
        disk = SimulatedDisk(seed=nth)
        engine = open_engine(disk, bulk_bytes_min=1)
        put(engine, 1, b"acknowledged")
        disk.fail("write_at", nth)
        try:
            engine.commit_columns(columns(range(100)))
        except StoragePoisonedError:
            with pytest.raises(StoragePoisonedError):
                put(engine, 2, b"never")
        disk.heal()
        engine.close()
        with open_engine(disk) as again:
            assert again.last_seq in (1, 2)
            assert again.latest().count(MEMORY) == (1 if again.last_seq == 1 else 100)
            assert_consistent(again)
