"""An idempotency key makes a commit happen once, however often it is asked for."""

from __future__ import annotations

import threading

from engramdb.lsm import Batch, Commit, StorageEngine
from engramdb.lsm.environment.simulated import SimulatedDisk
from engramdb.lsm.records import META
from tests.unit.lsm_support import key, open_engine, put, value


def save(engine: StorageEngine, name: str | None, payload: bytes, sync: bool = True) -> Commit:
    batch = Batch()
    batch.put(key(1), payload)
    return engine.commit(batch, sync=sync, idempotency_key=name)


def test_the_second_time_nothing_is_written_and_the_first_commit_returned() -> None:
    with open_engine(SimulatedDisk()) as engine:
        first = save(engine, "k", b"first")
        assert save(engine, "k", b"second") == first
        assert value(engine.latest(), 1) == b"first" and engine.last_seq == 1
        assert save(engine, "other", b"second").seq == 2
        assert save(engine, None, b"third").seq == 3
        assert save(engine, "k", b"fourth") == first
        assert value(engine.latest(), 1) == b"third"


def test_it_is_remembered_across_power_cuts_flushes_and_compactions() -> None:
    disk = SimulatedDisk()
    first = save(open_engine(disk), "k", b"first")
    disk = disk.crash(())
    with open_engine(disk) as engine:
        assert save(engine, "k", b"again") == first
    for _ in range(3):
        with open_engine(disk) as engine:
            assert save(engine, "k", b"again") == first
            put(engine, 2, b"x")
            engine.flush()
            assert save(engine, "k", b"again") == first
            engine.compact()
            assert save(engine, "k", b"again") == first
            assert engine.latest().count(META) == 1
            assert value(engine.latest(), 1) == b"first"


def test_of_many_at_once_one_is_done_and_all_are_told_the_same() -> None:
    with open_engine(SimulatedDisk()) as engine:
        found: list[Commit] = []
        barrier = threading.Barrier(12)

        def work(i: int) -> None:
            barrier.wait()
            found.append(save(engine, "k", b"%d" % i))

        threads = [threading.Thread(target=work, args=(i,)) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(found) == 12 and len(set(found)) == 1 and engine.last_seq == 1


def test_a_repetition_that_wants_it_durable_makes_it_durable() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    first = save(engine, "k", b"first", sync=False)
    assert save(engine, "k", b"again", sync=True) == first
    with open_engine(disk.crash(())) as again:
        assert value(again.latest(), 1) == b"first"
    engine.close()


def test_what_a_power_cut_took_can_be_done_again() -> None:
    disk = SimulatedDisk()
    engine = open_engine(disk)
    save(engine, "k", b"lost", sync=False)
    with open_engine(disk.crash(())) as again:
        assert again.last_seq == 0
        assert save(again, "k", b"again").seq == 1
        assert value(again.latest(), 1) == b"again"
    engine.close()
