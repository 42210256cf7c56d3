"""Many writers at once: nothing lost, seqs dense, and of racing expectations exactly one holds."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engramdb.errors import ConflictError, InvalidInputError
from engramdb.lsm import Batch, Commit, GuardFailed, Snapshot, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import EDGE, MEMORY, edge_key
from tests.unit.lsm_support import (
    assert_consistent,
    contents,
    core_of,
    delete,
    key,
    open_engine,
    put,
    value,
    vec,
)

THREADS = 16


@pytest.fixture
def engine() -> Iterator[StorageEngine]:
    with open_engine(SimulatedDisk()) as engine:
        yield engine


def in_threads(work: Callable[[int], object], count: int = THREADS) -> list[object]:
    """What each of many threads, let go at one moment, returned or raised."""
    found: list[object] = [None] * count
    start = threading.Barrier(count)

    def run(i: int) -> None:
        start.wait()
        try:
            found[i] = work(i)
        except Exception as error:
            found[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_sixteen_threads_lose_nothing(tmp_path: Path) -> None:
    path = str(tmp_path / "db")
    engine = open_engine(None, path)
    commits: list[list[Commit]] = [[] for _ in range(THREADS)]

    def work(thread: int) -> None:
        for i in range(40):
            commits[thread].append(put(engine, thread * 100 + i, b"%d" % i, vec(thread, i)))
            assert value(engine.latest(), thread * 100 + i) == b"%d" % i, "it reads its own write"

    assert in_threads(work) == [None] * THREADS
    seqs = [commit.seq for listed in commits for commit in listed]
    assert sorted(seqs) == list(range(1, 40 * THREADS + 1))
    for listed in commits:
        assert listed == sorted(listed), "a thread's own commits are in its order"
    times = dict(commit for listed in commits for commit in listed)
    assert sorted(times.values()) == [times[seq] for seq in sorted(times)]
    held = contents(engine.latest())
    assert len(held) == 40 * THREADS
    assert_consistent(engine)
    engine.close()
    with open_engine(None, path) as again:
        assert contents(again.latest()) == held


def in_one_group(engine: StorageEngine, works: list[Callable[[], object]]) -> list[object]:
    """Run them so that all but the first, which leads a group of its own, are one group."""
    found: list[object] = [None] * len(works)

    def run(i: int) -> None:
        try:
            found[i] = works[i]()
        except Exception as error:
            found[i] = error

    queue = engine._committer
    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(works))]
    with core_of(engine).write_lock:  # as while another sync runs
        threads[0].start()
        while queue._leader is None or queue._queue:
            pass
        for i, thread in enumerate(threads[1:], 1):
            thread.start()
            while len(queue._queue) < i:
                pass
    for thread in threads:
        thread.join()
    return found


def test_commits_that_arrive_together_share_a_sync(engine: StorageEngine) -> None:
    disk = core_of(engine).environment
    assert isinstance(disk, SimulatedDisk)
    put(engine, 99, b"the log is made")
    before = disk.calls["sync_data"]
    found = in_one_group(engine, [lambda i=i: put(engine, i, b"x") for i in range(9)])  # type: ignore[misc]
    assert [commit.seq for commit in found if isinstance(commit, Commit)] == list(range(2, 11))
    assert disk.calls["sync_data"] - before == 2, "one for the leader, one for the eight"


def test_expectations_see_what_is_sequenced_but_not_yet_visible(engine: StorageEngine) -> None:
    # two of one group that expect the same version must not both pass
    put(engine, 1, b"base")

    def work(i: int) -> Commit:
        batch = Batch()
        batch.put(key(1), b"winner%d" % i)
        batch.expect[MEMORY, key(1)] = 1
        return engine.commit(batch)

    works: list[Callable[[], object]] = [lambda: put(engine, 50, b"leads")]
    works += [lambda i=i: work(i) for i in range(1, 6)]  # type: ignore[misc]
    found = in_one_group(engine, works)
    assert [type(outcome) for outcome in found] == [Commit, Commit, *[ConflictError] * 4]
    assert value(engine.latest(), 1) == b"winner1" and engine.last_seq == 3


def test_of_many_that_expect_one_version_exactly_one_wins(engine: StorageEngine) -> None:
    for round_ in range(10):
        seq = put(engine, 1, b"base").seq

        def work(i: int, seq: int = seq) -> Commit:
            batch = Batch()
            batch.put(key(1), b"winner%d" % i)
            batch.put(key(100 + i), b"round%d" % seq)
            batch.expect[MEMORY, key(1)] = seq
            return engine.commit(batch)

        found = in_threads(work)
        won = [i for i, outcome in enumerate(found) if isinstance(outcome, Commit)]
        assert len(won) == 1, f"round {round_}: {found}"
        assert all(isinstance(o, ConflictError) for i, o in enumerate(found) if i not in won)
        assert value(engine.latest(), 1) == b"winner%d" % won[0]
        marked = [i for i in range(THREADS) if value(engine.latest(), 100 + i) == b"round%d" % seq]
        assert marked == won, "of the others nothing is written, the rest of the batch included"
    assert engine.last_seq == 20


def test_of_many_that_expect_nothing_exactly_one_wins(engine: StorageEngine) -> None:
    def work(i: int) -> Commit:
        batch = Batch()
        batch.put(key(1), b"x")
        batch.expect[MEMORY, key(1)] = 0
        return engine.commit(batch)

    assert sum(isinstance(outcome, Commit) for outcome in in_threads(work)) == 1
    delete(engine, 1)
    assert isinstance(work(0), Commit), "a tombstone counts as none"


def test_expectations_see_what_was_flushed(engine: StorageEngine) -> None:
    seq = put(engine, 1, b"x").seq
    engine.flush()
    batch = Batch()
    batch.put(key(1), b"y")
    batch.expect[MEMORY, key(1)] = seq
    engine.commit(batch)
    with pytest.raises(ConflictError, match="at commit 2, expected 1"):
        engine.commit(batch)


def test_an_edge_can_be_expected(engine: StorageEngine) -> None:
    edge = edge_key(key(1), key(2), "Association")
    batch = Batch()
    batch.put_edge(key(1), key(2), "Association", 1.0, b"")
    batch.expect[EDGE, edge] = 0
    engine.commit(batch)
    with pytest.raises(ConflictError, match="edge"):
        engine.commit(batch)


def test_guards_keep_a_counter_exact(engine: StorageEngine) -> None:
    put(engine, 1, b"0")

    def work(i: int) -> int:
        tries = 0
        while True:
            tries += 1
            before = engine.latest()
            counted = value(before, 1)
            assert counted is not None

            def unchanged(now: Snapshot, counted: bytes = counted) -> bool:
                return value(now, 1) == counted

            batch = Batch()
            batch.put(key(1), b"%d" % (int(counted) + 1))
            batch.guards.append(unchanged)
            try:
                engine.commit(batch)
                return tries
            except GuardFailed:
                continue

    found = in_threads(work)
    assert all(isinstance(outcome, int) for outcome in found), found
    assert value(engine.latest(), 1) == b"%d" % THREADS
    assert engine.last_seq == THREADS + 1, "what was refused took no seq"


def test_one_bad_batch_does_not_harm_its_group(engine: StorageEngine) -> None:
    put(engine, 0, b"x", vec(1, 2))

    def work(i: int) -> Commit:
        vector = vec(1, 2, 3) if i % 4 == 0 else vec(i, 2)
        return put(engine, i, b"x", vector)

    found = in_threads(work)
    for i, outcome in enumerate(found):
        assert isinstance(outcome, InvalidInputError if i % 4 == 0 else Commit)
    assert engine.last_seq == 13
    assert_consistent(engine)


def test_of_many_first_dimensions_one_wins_and_the_others_are_told(engine: StorageEngine) -> None:
    found = in_threads(lambda i: put(engine, i, b"x", vec(*range(1 + i % 4))))
    won = {i % 4 for i, outcome in enumerate(found) if isinstance(outcome, Commit)}
    assert len(won) == 1
    assert engine.dimension == won.pop() + 1
    assert engine.last_seq == 4
    assert_consistent(engine)


def test_an_empty_batch_is_refused(engine: StorageEngine) -> None:
    with pytest.raises(InvalidInputError, match="no operation"):
        engine.commit(Batch())
    assert engine.last_seq == 0


def test_of_one_group_with_one_idempotency_key_one_is_done(engine: StorageEngine) -> None:
    put(engine, 1, b"base")

    def work(i: int) -> Commit:
        batch = Batch()
        batch.put(key(1), b"%d" % i)
        return engine.commit(batch, sync=i == 4, idempotency_key="k")

    works: list[Callable[[], object]] = [lambda: put(engine, 50, b"leads")]
    works += [lambda i=i: work(i) for i in range(1, 5)]  # type: ignore[misc]
    found = in_one_group(engine, works)
    assert len(set(found[1:])) == 1 and engine.last_seq == 3
    assert value(engine.latest(), 1) == b"1"
    disk = core_of(engine).environment
    assert isinstance(disk, SimulatedDisk)
    with open_engine(disk.crash(())) as again:
        assert again.last_seq == 3, "one of them wanted it durable"
