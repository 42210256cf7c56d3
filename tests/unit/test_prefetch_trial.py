"""Reading ahead is judged by what it was good for; and so are guesses along connections."""

from __future__ import annotations

from engramdb.lsm.block_cache import BlockCache
from engramdb.lsm.warming import Warmth
from engramdb.prefetch.guesses import Guesses
from engramdb.prefetch.trial import LOADS, READS, REST_S, REST_S_MAX, Trial


def warmth(reads: int, hits: int) -> Warmth:
    return Warmth(reads, hits, 0, 0)


def test_it_goes_on_while_a_quarter_is_used() -> None:
    trial, reads = Trial(), 0
    for _ in range(10):
        reads += READS
        assert trial.judge(warmth(reads, reads // 4), 10, 0.0)
    assert not trial.judge(warmth(reads + READS, reads // 4), 10, 0.0)


def test_it_stops_when_there_is_nothing_to_win() -> None:
    trial = Trial()
    assert trial.judge(warmth(0, 0), LOADS - 1, 0.0)
    assert not trial.judge(warmth(0, 0), 1, 5.0)
    assert trial.until_s == 5.0 + REST_S and not trial.judge(warmth(99, 99), 1, 6.0)
    trial = Trial()
    assert trial.judge(warmth(20, 18), LOADS, 0.0)


def test_it_rests_longer_after_each_waste_until_it_pays() -> None:
    trial, now_s, reads, rests = Trial(), 0.0, 0, []
    for _ in range(9):
        reads += READS
        assert not trial.judge(warmth(reads, 0), 10, now_s)
        rests.append(trial.until_s - now_s)
        now_s = trial.until_s
        trial.resume(warmth(reads, 0))
        assert trial.is_on
    assert rests[:3] == [REST_S, 2 * REST_S, 4 * REST_S] and rests[-1] == REST_S_MAX
    assert not trial.judge(warmth(reads, 0), LOADS, now_s)
    assert trial.until_s == now_s + REST_S, "it has cost nothing"
    trial.resume(warmth(reads, 0))
    assert trial.judge(warmth(reads + READS, READS), 1, now_s)
    assert not trial.judge(warmth(reads + 2 * READS, READS), 1, now_s)
    assert trial.until_s == now_s + REST_S


def test_guesses_that_do_not_come_true_are_not_made_for_a_while() -> None:
    guesses = Guesses()
    numbers = iter(range(10**6))

    def guess() -> bytes:
        key = next(numbers).to_bytes(16, "big")
        guesses.add([key])
        return key

    for _ in range(300):
        assert guesses.are_trusted()
        guesses.check([guess()])
    tried = 0
    while guesses.are_trusted():
        guess()
        tried += 1
        assert tried < 10_000
    assert tried > 64
    refused = 0
    while not guesses.are_trusted():
        refused += 1
        assert refused < 10_000
    assert refused > 100
    assert len(guesses._open) <= 256


def block(size: int = 8) -> tuple[bytes, list[int], list[int]]:
    return bytes(size), [0], [size]


def test_the_cache_counts_what_was_read_ahead() -> None:
    cache = BlockCache(3)

    def counts() -> tuple[int, int, int, int]:
        return cache.ahead_reads, cache.ahead_hits, cache.ahead_wasted, cache.misses

    cache.put_ahead((1, 0), block())
    assert (1, 0) in cache and counts() == (1, 0, 0, 0)
    assert cache.get((1, 0)) is not None and cache.get((1, 0)) is not None
    assert counts() == (1, 1, 0, 0), "a block is used for the first time once"
    cache.put_ahead((1, 1), block())
    for number in range(2, 5):
        assert cache.get((1, number)) is None
        cache.put((1, number), block())
    assert counts() == (2, 1, 1, 3) and (1, 1) not in cache
    cache.put_ahead((1, 4), block())
    assert counts() == (3, 1, 2, 3), "it came too late"
    cache.put_ahead((1, 5), block())
    cache.put((1, 5), block())
    assert counts() == (4, 1, 3, 3), "it came too late, just so"
    assert cache.get((1, 5)) is not None and counts() == (4, 1, 3, 3)
    cache.put_ahead((2, 0), block())
    cache.drop(2)
    assert counts() == (5, 1, 3, 3) and not cache._ahead
    cache.put_ahead((3, 0), block(10**9))
    assert counts() == (6, 1, 4, 3) and not cache._ahead and (3, 0) not in cache
    assert cache._bytes == sum(len(each[0]) for each in cache._blocks.values())
