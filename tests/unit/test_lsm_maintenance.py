"""Flush and compaction behind the writers' backs: everything stays right, and space is freed."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from engramdb.errors import StoragePoisonedError, WriteStallError
from engramdb.lsm import (
    Batch,
    KeepAll,
    KeepFor,
    KeepLast,
    StorageEngine,
    committer,
    flush,
    maintenance,
)
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import MEMORY
from tests.unit.lsm_support import (
    assert_consistent,
    columns,
    contents,
    core_of,
    delete,
    key,
    open_engine,
    patch,
    put,
    value,
    vec,
)


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)


def test_under_load_everything_stays_right(tmp_path: Path) -> None:
    path = str(tmp_path)
    engine = open_engine(
        None, path, background=True, memtable_bytes_max=30_000, durability="os", bulk_bytes_min=1
    )
    expected: dict[int, bytes] = {}
    past: dict[int, dict[int, bytes]] = {}
    rng = random.Random(3)
    for i in range(3000):
        which = rng.randrange(200)
        if rng.random() < 0.15:
            delete(engine, which)
            expected.pop(which, None)
        elif which in expected and rng.random() < 0.3:
            patch(engine, which, b"p%d" % i)
            expected[which] = b"p%d" % i
        else:
            put(engine, which, b"v%d" % i, vec(i, which, 1, 2))
            expected[which] = b"v%d" % i
        if i % 500 == 499:
            engine.commit_columns(columns(range(190, 210), b"b%d-" % i))
            expected.update({n: b"b%d-%d" % (i, n) for n in range(190, 210)})
            past[engine.last_seq] = dict(expected)
    wait_until(lambda: engine.stats()["memtables"] == 1)
    wait_until(lambda: engine.stats()["segments"] < 16 and engine.stats()["vector_files"] < 16)
    for at in (engine, None):
        reader = at or open_engine(None, path)
        for seq, state in {**past, reader.last_seq: expected}.items():
            found = {k: p for k, (p, _, _) in contents(reader.at(seq)).items()}
            assert found == {key(n): payload for n, payload in state.items()}
            assert_consistent(reader, reader.at(seq))
        reader.close()


def test_the_work_is_done_without_being_asked_for() -> None:
    with open_engine(
        SimulatedDisk(), background=True, memtable_bytes_max=2000, history=KeepLast(1)
    ) as engine:
        for i in range(400):
            put(engine, i % 5, b"%d" % i, vec(i, 1))
        wait_until(lambda: engine.stats()["memtables"] == 1)
        wait_until(lambda: engine.stats()["segments"] < 5)
        assert engine.stats()["versions"] < 100, "and the policy applied"


def test_inline_it_is_done_when_the_commit_returns() -> None:
    with open_engine(SimulatedDisk(), memtable_bytes_max=2000) as engine:
        for i in range(300):
            put(engine, i, b"x", vec(i, 1))
            stats = engine.stats()
            assert stats["memtables"] == 1 and stats["segments"] < 12


# Stalls


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Flushing waits until this is set."""
    free = threading.Event()
    real = flush.flush_oldest

    def flush_oldest(core):  # type: ignore[no-untyped-def]
        free.wait(20)
        return real(core)

    monkeypatch.setattr(maintenance, "flush_oldest", flush_oldest)
    return free


def fill(engine: StorageEngine) -> int:
    """Write until writes stall; how many were acknowledged."""
    for i in range(1000):
        try:
            put(engine, i, b"x" * 500)
        except WriteStallError:
            return i
    pytest.fail("it never stalled")


def test_a_flush_that_cannot_go_on_stalls_writes_with_a_typed_error(
    stuck: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(committer, "STALL_SECONDS_MAX", 0.05)
    disk = SimulatedDisk()
    engine = open_engine(disk, background=True, memtable_bytes_max=2000)
    done = fill(engine)
    assert engine.stats()["memtables"] == 3, "two wait, one is full"
    with pytest.raises(WriteStallError, match="nothing was written, write again later"):
        put(engine, 9999, b"refused")
    assert engine.last_seq == done and value(engine.latest(), 9999) is None
    assert value(engine.latest(), done - 1) == b"x" * 500, "reading goes on"
    stuck.set()
    monkeypatch.undo()
    assert put(engine, 9999, b"later").seq == done + 1
    assert engine.stats()["stalled_seconds"] > 0
    assert_consistent(engine)
    engine.close()
    with open_engine(disk) as again:
        assert again.latest().count(MEMORY) == done + 1


def test_a_stalled_writer_goes_on_as_soon_as_there_is_room(stuck: threading.Event) -> None:
    engine = open_engine(SimulatedDisk(), background=True, memtable_bytes_max=2000)
    threads = [
        threading.Thread(
            target=lambda t=t: [put(engine, t * 100 + i, b"x" * 500) for i in range(9)]
        )
        for t in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(core_of(engine).state.version.frozen) == 2)
    assert any(thread.is_alive() for thread in threads)
    stuck.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert engine.latest().count(MEMORY) == 27
    assert_consistent(engine)
    engine.close()


def test_a_failed_background_flush_poisons_and_wakes_the_stalled(stuck: threading.Event) -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk, background=True, memtable_bytes_max=2000)
    outcome: list[BaseException] = []
    acknowledged: list[int] = []

    def work() -> None:
        try:
            for i in range(100):
                put(engine, i, b"x" * 500)
                acknowledged.append(i)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    wait_until(lambda: len(core_of(engine).state.version.frozen) == 2)
    disk.fail("rename")
    stuck.set()
    thread.join(20)
    assert not thread.is_alive() and [type(e) for e in outcome] == [StoragePoisonedError]
    engine.close()
    disk.heal()
    with open_engine(disk) as again:
        assert all(value(again.latest(), i) is not None for i in acknowledged)
        assert_consistent(again)


def test_the_log_floor_is_taken_while_no_log_can_be_made() -> None:
    # a commit that opens the log of a new memtable while a flush looks for the first log that is
    # needed: missing it would delete acknowledged commits
    with open_engine(SimulatedDisk()) as engine:
        put(engine, 1, b"x")
        core = core_of(engine)
        real, held = core.log_floor, []

        def log_floor(version):  # type: ignore[no-untyped-def]
            held.append(core.write_lock.locked())
            return real(version)

        core.log_floor = log_floor  # type: ignore[method-assign]
        engine.flush()
        assert held == [True]


# Space


def overwritten(disk: SimulatedDisk) -> StorageEngine:
    engine = open_engine(disk, fan_in=50)
    for round_ in range(10):
        for i in range(20):
            put(engine, i, b"%d" % round_ * 50, vec(*[round_] * 64))
        engine.flush()
    return engine


@pytest.mark.parametrize("policy", [KeepLast(1), KeepFor(timedelta(0))])
def test_set_history_and_compact_free_what_nobody_may_see(policy: KeepLast | KeepFor) -> None:
    disk = SimulatedDisk()
    engine = overwritten(disk)
    before = engine.stats()
    held = contents(engine.latest())
    engine.compact()
    assert engine.stats()["versions"] == 200, "everything is kept until the policy says otherwise"
    assert value(engine.at(20), 3) == b"0" * 50
    engine.set_history(policy)
    assert engine.stats()["versions"] == 200
    engine.compact()
    after = engine.stats()
    assert (after["versions"], after["vectors"], after["segments"]) == (20, 20, 1)
    assert (after["superseded_versions"], after["unreferenced_vectors"]) == (0, 0)
    assert after["disk_bytes"] < before["disk_bytes"] / 5
    assert contents(engine.latest()) == held
    assert_consistent(engine)
    engine.close()
    on_disk = sum(
        disk.size(f"/database/{kind}/{name}")
        for kind in ("seg", "vec", "wal", "tmp")
        for name in disk.list(f"/database/{kind}")
    )
    assert on_disk <= after["disk_bytes"], "and the files are gone"
    with open_engine(disk) as again:
        assert contents(again.latest()) == held and again.history_policy == policy


def test_keep_last_n_keeps_n() -> None:
    with overwritten(SimulatedDisk()) as engine:
        engine.set_history(KeepLast(3))
        engine.compact()
        for i in range(20):
            found = [r.payload[:1] for r in engine.latest().history(MEMORY, key(i))]
            assert found == [b"7", b"8", b"9"]
        assert engine.stats()["vectors"] == 60
        engine.set_history(KeepAll())
        put(engine, 1, b"more")
        engine.compact()
        assert len(engine.latest().history(MEMORY, key(1))) == 4


def test_keep_for_keeps_what_was_current_at_the_start_of_the_window() -> None:
    disk = SimulatedDisk()
    hour = 3_600_000_000
    with open_engine(disk, history=KeepFor(timedelta(hours=2, minutes=30))) as engine:
        commits = []
        for round_ in range(5):
            commits.append(put(engine, 1, b"%d" % round_))
            disk.step_clock(hour)
        engine.compact()
        # five hours have gone: what was current 2.5 hours ago is version 2
        found = [r.payload for r in engine.latest().history(MEMORY, key(1))]
        assert found == [b"2", b"3", b"4"]
        assert value(engine.at(commits[2].seq), 1) == b"2"


def test_a_memory_written_for_ever_takes_bounded_space() -> None:
    with open_engine(
        SimulatedDisk(), memtable_bytes_max=10_000, history=KeepLast(2), durability="os"
    ) as engine:
        for i in range(3000):
            put(engine, i % 3, b"%d" % i * 10, vec(i, 1, 2, 3))
        stats = engine.stats()
        assert stats["versions"] < 500 and stats["vectors"] < 500
        assert sum(run.rows for run in engine.latest().vector_runs()) < 300
        assert_consistent(engine)


def test_vectors_of_the_past_are_not_in_the_way_of_a_search_of_now() -> None:
    with overwritten(SimulatedDisk()) as engine:
        engine.compact()
        latest = engine.latest()
        assert sum(run.rows for run in latest.vector_runs()) == 20
        assert_consistent(engine, engine.at(60))


# Threads


def test_readers_do_not_notice_compaction(fast_switching: None) -> None:
    engine = open_engine(
        SimulatedDisk(), background=True, memtable_bytes_max=4000, durability="os", fan_in=2
    )
    failures: list[BaseException] = []
    stop = threading.Event()

    def write() -> None:
        i = 0
        while not stop.is_set():
            i += 1
            batch = Batch()
            for j in range(4):  # always all four, always alike
                batch.put(key(j), b"%d" % i, vec(i, j))
            engine.commit(batch)

    def read() -> None:
        while not stop.is_set():
            snapshot = engine.snapshot()
            held = contents(snapshot)
            if snapshot.seq:
                assert len(held) == 4 and len({p for p, _, _ in held.values()}) == 1
                vectors = [snapshot.vector(r.vector) for r in  # type: ignore[union-attr]
                           snapshot.history(MEMORY, key(1))[-3:]]  # fmt: skip
                assert all(v[1] == 1 for v in vectors)
                middle = engine.at(max(1, snapshot.seq // 2))
                assert len(contents(middle)) == 4

    def guarded(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                stop.set()

        return run

    threads = [threading.Thread(target=guarded(work)) for work in (write, read, read)]
    for thread in threads:
        thread.start()
    stop.wait(2.5)
    stop.set()
    for thread in threads:
        thread.join(20)
    assert not failures, failures
    assert engine.last_seq > 50
    engine.compact()
    assert_consistent(engine)
    engine.close()


@pytest.fixture
def fast_switching() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("how", ["open and close", "flush", "fork", "checkpoint", "purge"])
def test_files_do_not_add_up_although_no_memtable_is_ever_full(how: str) -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    for i in range(100):
        put(engine, i, b"x", vec(i, 1))
        if how == "open and close":
            engine.close()
            engine = open_engine(disk)
        elif how == "flush":
            engine.flush()
        elif how == "purge":
            engine.purge([key(1000)])
        else:
            getattr(engine, how)(f"/copy-{i}")
        stats = engine.stats()
        assert max(stats["segments"], stats["vector_files"]) <= 8
    assert len(contents(engine.latest())) == 100
    assert_consistent(engine)
    engine.close()


def test_threads_merge_what_openings_have_left() -> None:
    disk = SimulatedDisk()
    for i in range(3 * 4):
        with open_engine(disk, fan_in=100) as engine:
            put(engine, i, b"x", vec(i, 1))
    with open_engine(disk, background=True) as engine:
        wait_until(lambda: engine.stats()["segments"] == engine.stats()["vector_files"] == 1)
        assert_consistent(engine)
