"""Reading ahead: a replayed trace of an agent on a cold cache, with and without; and what it costs
where it cannot help."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np

from benchmarks import clock, host
from benchmarks.bench import Bench
from benchmarks.corpus import SEED
from benchmarks.figures import VALUE, Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.base import module

EPISODE: Final = (
    12  # memories that belong together, from anywhere in the database, linked in a chain
)
EPISODES_EACH: Final = 200  # of so many memories one episode
JUMP: Final = 0.1  # of the loads are of something else
THINKING_S: Final = 0.002  # between two loads: what an agent does at the very least
CACHE_BLOCKS: Final = 256  # the default; 100,000 memories have some 1,600
WITHOUT: Final = "without"
BLOCK: Final = 500  # loads in a row, where both take turns


@dataclass(frozen=True)
class Replay:
    """What one replay of a trace came to."""

    seconds: clock.Seconds
    stats: dict[str, Any]

    def hit_rate(self) -> float:
        """Of the blocks that were not in the cache of their own accord, those read ahead."""
        hits = self.stats["prefetch_hits"]
        return float(hits / max(1, hits + self.stats["cache_misses"]))

    def us(self, share: float) -> float:
        """Microseconds within which `share` percent of the loads returned."""
        return float(np.percentile(self.seconds, share)) * 1e6


def run(bench: Bench) -> Iterator[Line]:
    """Sessions along links, then loads at random."""
    if Engram.name in bench.absent:
        return
    loads = bench.scale.queries * 10
    with bench.scratch() as path:
        store = Engram(path)
        rows = bench.rows
        ids = store.bulk(rows)
        episodes = _episodes(ids)
        with store.database.transaction() as tx:
            for episode in episodes:
                for source, target in pairwise(episode):
                    tx.connect(source, target, "then")
        store.database.compact()
        store.close()
        host.sync_below(path)
        yield from _sessions(bench, path, ids, episodes, loads)
        yield from _at_random(bench, path, ids)


def _episodes(ids: list[str]) -> list[list[str]]:
    generator = np.random.default_rng([SEED, 21])
    count = max(4, len(ids) // EPISODES_EACH)
    return [
        [ids[row] for row in generator.choice(len(ids), EPISODE, replace=False)]
        for _ in range(count)
    ]


def _trace(ids: list[str], episodes: list[list[str]], loads: int, seed: int) -> list[str]:
    """Episodes, the popular ones often (Zipf), with jumps in between."""
    generator = np.random.default_rng([SEED, 22, seed])
    weights = 1 / np.arange(1, len(episodes) + 1)
    picks = generator.choice(len(episodes), loads, p=weights / weights.sum())
    found: list[str] = []
    for pick in picks.tolist():
        for each in episodes[pick]:
            if generator.random() < JUMP:
                found.append(ids[int(generator.integers(len(ids)))])
            found.append(each)
        if len(found) >= loads:
            break
    return found[:loads]


def _sessions(
    bench: Bench, path: str, ids: list[str], episodes: list[list[str]], loads: int
) -> Iterator[Line]:
    found: dict[bool, list[Replay]] = {False: [], True: []}
    for round_ in range(min(2, bench.scale.rounds)):
        for ahead in (False, True):
            bench.say(f"  sessions {'with' if ahead else WITHOUT}, round {round_ + 1}")
            if not round_:  # an earlier day, from which it may have learned
                _replay(path, _trace(ids, episodes, loads, 0), prefetch=ahead)
            cold = _drop_pages(path)
            trace = _trace(ids, episodes, loads, 1 + round_)
            found[ahead].append(_replay(path, trace, prefetch=ahead))
    state = "nothing in memory" if cold else "page cache warm"
    both = {
        ahead: np.concatenate([replay.seconds for replay in replays]) * 1e6
        for ahead, replays in found.items()
    }
    for share, name in ((50, "median"), (90, "p90"), (99, "p99")):
        without = float(np.percentile(both[False], share))
        reach = Reach(0.75, "most", WITHOUT) if share == 50 else None
        what = f"load in a session along links, {name}"
        yield Figure("prefetch", what, WITHOUT, without, "us", detail=state)
        value = float(np.percentile(both[True], share))
        yield Figure("prefetch", what, Engram.name, value, "us", {WITHOUT: without}, reach, state)
    rate = float(np.mean([replay.hit_rate() for replay in found[True]])) * 100
    stats = found[True][-1].stats
    yield Figure(
        "prefetch",
        "blocks read ahead of those not in memory",
        Engram.name,
        rate,
        "%",
        {},
        Reach(50, "least", VALUE),
        f"{stats['prefetch_reads']:,} read ahead, {stats['prefetch_hits']:,} used, "
        f"{stats['prefetch_wasted']:,} for nothing; {stats['cache_misses']:,} waited for",
    )


def _replay(path: str, trace: list[str], *, prefetch: bool) -> Replay:
    """An agent loads a memory, looks where its links lead, thinks, and goes on."""
    store = Engram(path, prefetch=prefetch, cache_size=CACHE_BLOCKS)
    database, taken = store.database, []
    for each in trace:
        start = time.perf_counter_ns()
        database.load(each)
        taken.append(time.perf_counter_ns() - start)
        database.get_connections(each)
        time.sleep(THINKING_S)
    stats = database.stats()
    store.close()
    return Replay(np.array(taken, np.float64) / 1e9, stats)


def _drop_pages(path: str) -> bool:
    """Ask the system to forget the pages of all files: nobody has them open, and they are synced.
    Whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    for name in host.files_below(path):
        descriptor = os.open(name, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)
    return True


def _at_random(bench: Bench, path: str, ids: list[str]) -> Iterator[Line]:
    """No load says anything of the next one. Two readers of the same files take turns."""
    database = module("engramdb").Database
    generator = np.random.default_rng([SEED, 23])
    readers = {
        name: database.open(path, read_only=True, prefetch=name != WITHOUT)
        for name in (WITHOUT, Engram.name)
    }

    def some(count: int) -> list[str]:
        return [ids[row] for row in generator.integers(len(ids), size=count).tolist()]

    for each in some(bench.scale.unsynced_saves // 4):
        for reader in readers.values():
            reader.load(each)
    time.sleep(0.1)  # the thread that reads ahead looks at the rest of them
    taken: dict[str, list[clock.Seconds]] = {name: [] for name in readers}
    for turn in range(max(2, bench.scale.unsynced_saves // BLOCK)):
        trace = some(BLOCK)
        for name in list(readers)[:: 1 if turn % 2 else -1]:
            taken[name].append(clock.seconds_each(readers[name].load, trace))
    stats = readers[Engram.name].stats()
    for reader in readers.values():
        reader.close()
    for share, name in ((50, "median"), (99, "p99")):
        us = {
            each: float(np.percentile(np.concatenate(t), share)) * 1e6 for each, t in taken.items()
        }
        what = f"load of any at random, {name}"
        reach = Reach(1.03, "most", WITHOUT) if share == 50 else None
        yield Figure("prefetch", what, WITHOUT, us[WITHOUT], "us", detail="page cache warm")
        yield Figure(
            "prefetch",
            what,
            Engram.name,
            us[Engram.name],
            "us",
            {WITHOUT: us[WITHOUT]},
            reach,
            f"{'on' if stats['prefetch_on'] else 'off'}; {stats['prefetch_reads']:,} read ahead",
        )
