"""What is loaded next is read ahead: step by step, without a thread."""

from __future__ import annotations

import random
import threading

import pytest

import engramdb
from engramdb import Database, MemoryNode
from engramdb.access.log import PENDING, AccessLog
from engramdb.lsm.payloads import BLOCK_ROWS
from engramdb.prefetch.prefetcher import AHEAD, BUSY_S
from engramdb.prefetch.trial import LOADS, REST_S
from tests.unit.access_support import key_of
from tests.unit.prefetch_support import (
    Seconds,
    filled,
    is_known,
    learned,
    opened,
    prefetcher_of,
    walked,
    warmth_of,
)

# What is warm, seen from the engine


def test_warm_reads_the_block_and_checks_the_vector_ahead_of_the_load() -> None:
    db = opened()
    ids = filled(db)
    engine = db._engine
    vectors = engine.latest().version.vectors[0]
    before, unchecked = warmth_of(db), len(vectors._chunks.unchecked)
    assert unchecked and before.reads == 0
    after = engine.warm([key_of(ids[0])])
    assert after == before._replace(reads=1) and len(vectors._chunks.unchecked) < unchecked
    assert engine.warm([key_of(ids[0])]) == after, "it is there"
    node = db.load(ids[0])
    assert warmth_of(db) == after._replace(hits=1) and node.embeddings is not None
    db.load(ids[1])
    assert warmth_of(db) == after._replace(hits=1, misses=1)
    db.close()
    with pytest.raises(engramdb.ClosedError):
        engine.warm([key_of(ids[0])])


def test_warm_leaves_alone_what_is_in_memory_or_not_there() -> None:
    db = opened()
    (ids, fresh) = filled(db), db.save(MemoryNode([1.0, 2.0]))
    db.delete(ids[3])
    db._engine.warm([key_of(fresh), bytes(16), key_of(ids[3])])
    assert warmth_of(db).reads == 0
    plain = db.save(MemoryNode())
    db.flush()
    assert db._engine.warm([key_of(plain)]).reads == 1, "one without a vector"
    db.close()


# Learning and reading ahead


def test_a_way_that_was_gone_is_read_ahead() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    way, others = ids[:10], ids[20:90]
    walked(db, prefetcher, way)
    learned(prefetcher, clock)
    walked(db, prefetcher, others)
    before = warmth_of(db)
    walked(db, prefetcher, way)
    after = warmth_of(db)
    assert after.hits - before.hits == 9 and after.misses - before.misses == 1
    learned(prefetcher, clock)
    assert prefetcher.statistics() | {"prefetch_wasted": 0} == {
        "prefetch_on": False,  # no thread
        "prefetch_reads": after.reads,
        "prefetch_hits": 9,
        "prefetch_wasted": 0,
        "prefetch_errors": 0,
        "prefetch_memories": 80,
    }
    db.close()


def test_loads_say_the_same_with_and_without() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    rng = random.Random(7)
    expected = {each: db.get(each).attributes for each in ids}  # type: ignore[union-attr]
    for _ in range(200):
        each = rng.choice(ids[:60])
        if rng.random() < 0.1:
            node = db.load(each)
            node.set_attribute("number", rng.random())
            db.save(node)
            expected[each] = node.attributes
        if rng.random() < 0.02:
            db.compact()
        assert db.load(each).attributes == expected[each]
        prefetcher.step()
        clock.s += rng.random()
    assert prefetcher.errors == 0 and warmth_of(db).reads > 0
    db.close()


def test_each_thread_goes_its_own_way() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    turns = [threading.Semaphore(0) for _ in "ab"]
    done = threading.Semaphore(0)

    def walk(number: int) -> None:
        for each in ids[number * 10 : number * 10 + 10]:
            turns[number].acquire()
            db.load(each)
            done.release()

    threads = [threading.Thread(target=walk, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(10):
        for turn in turns:
            turn.release()
            done.acquire()
    for thread in threads:
        thread.join()
    prefetcher.step()
    learned(prefetcher, clock)
    with prefetcher._entered():
        model = prefetcher._learn()
    for first in (*ids[:9], *ids[10:19]):
        after = [key for key, _ in model.after(key_of(first))]
        assert after == [key_of(ids[ids.index(first) + 1])]
    db.close()


def test_what_is_handed_out_together_is_no_way() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    prefetcher.step()
    db.load(ids[0])
    db.query().with_limit(50).execute()
    db.load(ids[1])
    prefetcher.step()
    learned(prefetcher, clock)
    assert prefetcher.statistics()["prefetch_memories"] == 2
    db.get(ids[2])
    with db.transaction() as tx:
        tx.load(ids[3])
    prefetcher.step()
    learned(prefetcher, clock)
    assert prefetcher.statistics()["prefetch_memories"] == 4, "get and transactions are loads"
    db.close()


def test_the_log_is_followed_past_what_went_into_its_table() -> None:
    db = opened()
    ids = filled(db, 4)
    log = db._access
    assert isinstance(log, AccessLog)
    db.load(ids[0])
    number, keys, threads = log.follow(0)
    assert (number, keys, threads) == (1, [key_of(ids[0])], [threading.get_ident()])
    db.load(ids[1])
    assert db.load(ids[2]).access_history.count == 1  # puts them into the table
    db.load(ids[3])
    number, keys, _ = log.follow(number)
    assert number == 4 and keys == [key_of(each) for each in ids[1:4]]
    assert log.follow(number) == (4, [], [])
    for _ in range(3 * PENDING + 7):
        db.load(ids[0])
    number, keys, _ = log.follow(number)
    assert number == 3 * PENDING + 11 and PENDING <= len(keys) <= 2 * PENDING
    db.close()


def test_who_sleeps_is_called_by_the_next_load_once() -> None:
    db = opened()
    ids = filled(db, 4)
    log, calls = db._access, [0]
    assert log is not None

    def call() -> None:
        calls[0] += 1

    log.call_next(call)
    assert calls == [0]
    db.load(ids[0])
    db.load(ids[1])
    assert calls == [1]
    log.call_next(call, after=3)
    counts = []
    for each in (*ids, *ids):
        db.load(each)
        counts.append(calls[0])
    assert counts[0] == 1 and counts[-1] == 2
    db.close()


def test_connections_are_followed_where_nothing_was_seen_yet() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    hub, strong, stronger, weak = ids[0], ids[1], ids[2], ids[3]
    for target, strength in ((weak, 0.1), (strong, 0.7), (stronger, 0.9)):
        db.connect(hub, target, "leads_to", strength)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, ids[100:140])
    walked(db, prefetcher, [hub])
    assert warmth_of(db).reads == 2
    walked(db, prefetcher, [strong, stronger])
    assert warmth_of(db).hits == 2
    db.flush()
    db.close()


def test_connections_in_files_are_followed_when_somebody_has_followed_them() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    db.connect(ids[0], ids[1])
    db.connect(ids[5], ids[6])
    db.connect(ids[5], ids[5])
    db.flush()
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, [*ids[100:140], ids[0]])
    assert warmth_of(db).reads == 0
    db.get_connections(ids[9])
    walked(db, prefetcher, [ids[5]])
    assert warmth_of(db).reads == 1
    db.load(ids[6])
    assert warmth_of(db).hits == 1
    db.close()


def test_a_hub_says_nothing() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db, 300)
    with db.transaction() as tx:
        for each in ids[1:]:
            tx.connect(ids[0], each)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, [ids[0]])
    db.flush()
    db.get_connections(ids[0])
    before = warmth_of(db).reads
    walked(db, prefetcher, [ids[0]])
    assert warmth_of(db).reads == before == 0
    db.close()


# When it does not pay


def test_random_loads_switch_it_off_and_a_way_switches_it_on_again() -> None:
    db, clock = opened(track_access=True), Seconds()
    ids = filled(db)
    everything = db.list_all()
    prefetcher = prefetcher_of(db, clock)
    rng = random.Random(3)
    walked(db, prefetcher, rng.choices(everything, k=LOADS + 10))
    assert not prefetcher._trial.is_on
    reads = warmth_of(db).reads
    walked(db, prefetcher, ids[:10] * 3)
    assert warmth_of(db).reads == reads, "it rests"
    clock.s += REST_S
    prefetcher.step()  # sees what was loaded while it rested, too
    learned(prefetcher, clock)
    assert prefetcher._trial.is_on and is_known(prefetcher, ids[4])
    for start in range(0, 60, 10):
        walked(db, prefetcher, ids[100 + start : 110 + start])
    hits = warmth_of(db).hits
    walked(db, prefetcher, ids[:10])
    assert warmth_of(db).hits - hits >= 8
    db.close()


def test_who_loads_without_a_pause_is_not_read_ahead_for_until_it_pauses() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, ids[:10])
    learned(prefetcher, clock)
    walked(db, prefetcher, ids[50:120])
    reads = warmth_of(db).reads
    for each in ids[:3]:
        db.load(each)
        clock.s += BUSY_S / 2
        prefetcher.step()
    assert warmth_of(db).reads == reads
    clock.s += 0.001
    prefetcher.step()
    assert warmth_of(db).reads > reads
    hits = warmth_of(db).hits
    db.load(ids[3])
    assert warmth_of(db).hits == hits + 1
    db.close()


def test_at_most_so_many_are_read_ahead() -> None:
    db, clock = opened(cache_size=64), Seconds()
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    for _ in range(8):
        walked(db, prefetcher, ids[:40])
        learned(prefetcher, clock)
    walked(db, prefetcher, ids[100:170])
    before = warmth_of(db).reads
    walked(db, prefetcher, ids[:1])
    assert 4 <= warmth_of(db).reads - before <= AHEAD
    db.close()


# When something is wrong


def test_damage_is_counted_and_never_surfaces_in_other_loads() -> None:
    db, clock = opened(), Seconds()
    ids = filled(db)
    prefetcher = prefetcher_of(db, clock)
    walked(db, prefetcher, ids[:5])
    learned(prefetcher, clock)
    walked(db, prefetcher, ids[50:120])
    segment = db._engine.latest().version.segments[0]
    row, _ = segment.find(0, key_of(ids[1]))
    good = segment._blocks
    sums = good[3].array().tolist()
    sums[row // BLOCK_ROWS] ^= 1
    segment.__dict__["_blocks"] = (*good[:3], sums)
    node = db.load(ids[0])
    clock.s += 0.01
    with pytest.raises(engramdb.CorruptionError):
        prefetcher.step()
    assert node.id == ids[0] and db.load(ids[2]).id == ids[2]
    with pytest.raises(engramdb.CorruptionError):
        db.load(ids[1])
    segment.__dict__["_blocks"] = good
    assert db.load(ids[1]).id == ids[1]
    db.save(MemoryNode([1.0, 2.0]))
    db.close()


def test_a_small_cache_a_switch_memory_and_inline_work_do_without(tmp_path: object) -> None:
    def has_one(db: Database) -> bool:
        with db:
            db.load(db.save(MemoryNode([1.0])))
            stats = db.stats()
            assert db._prefetcher is not None or stats["prefetch_on"] is False
            assert stats["prefetch_hits"] == stats["prefetch_wasted"] == 0
            return db._prefetcher is not None

    def at(name: str, **settings: bool | int) -> Database:
        return Database.file_based(f"{tmp_path}/{name}", **settings)  # type: ignore[arg-type]

    assert has_one(at("a"))
    assert not has_one(at("b", prefetch=False))
    assert not has_one(at("c", background=False))
    assert not has_one(at("d", track_access=False))
    assert not has_one(at("e", cache_size=31))
    assert not has_one(Database.in_memory())
    with pytest.raises(engramdb.InvalidInputError, match="prefetch"):
        engramdb.DatabaseConfig(use_memory_storage=True, prefetch=1)  # type: ignore[arg-type]
