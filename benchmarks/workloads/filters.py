"""The top 10 by cosine among the rows that a label keeps (50%, 10%, 1% of them), now and then."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, Final

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.corpus import LABELS, Matrix, Rows, label
from benchmarks.figures import Figure, Line, Reach
from benchmarks.recall import recall
from benchmarks.stores import Bare, Engram, LanceIndexed, Store
from benchmarks.worker import Worker

LIMIT: Final = 10
CHECKED: Final = 20  # queries whose answers are compared with numpy's
TARGET: Final = 0.99  # the recall that is promised, unless another is asked for
NOW: Final = "now"
CHANGED_SHARE: Final = 100  # one row of so many is overwritten,
COMMITS: Final = 5  # in so many commits, before the past is searched


def run(bench: Bench) -> Iterator[Line]:
    """Everybody in turn, every query with the next value of the label; then EngramDB's past."""
    rows = bench.corpus.labelled(bench.scale.rows)
    yield from _beside(bench, rows)
    if Engram.name not in bench.absent:
        yield from _then_and_now(bench, rows)


def _what(field: str, count: int) -> str:
    return f"top 10 of {100 // LABELS[field]}% of {count:,}"


def _beside(bench: Bench, rows: Rows) -> Iterator[Line]:
    """Beside the peers; the bare files' numpy is the yardstick."""
    checked = list(range(min(CHECKED, len(bench.queries))))
    ids: dict[str, list[str]] = {}
    workers: dict[str, Worker] = {}
    with ExitStack() as stack:
        for store_class in _contestants(bench):
            bench.say(f"  loading {store_class.name}")
            with bench.attempt(store_class.name):
                loaded = bench.loaded(store_class, len(rows), labelled=True)
                worker = stack.enter_context(bench.worker(store_class.name, loaded.path))
                ids[store_class.name], workers[store_class.name] = loaded.ids, worker
        for field in LABELS:
            recalls: dict[str, float] = {}
            contestants: dict[str, Callable[[int], clock.Seconds]] = {}
            for name, worker in workers.items():
                with bench.attempt(name):
                    found = worker.find_where(bench.queries_file, checked, LIMIT, field)
                    recalls[name] = _recall(rows, ids[name], bench.queries[checked], field, found)
                    contestants[name] = clock.different(
                        _by(worker, bench.queries_file, field),
                        len(bench.queries),
                        bench.scale.rounds,
                    )
            timings = clock.in_turn(contestants, bench.scale.rounds)
            yield from _lines(_what(field, len(rows)), timings, Bare.name, recalls)


def _contestants(bench: Bench) -> Iterator[type[Store]]:
    """Everybody, and LanceDB a second time, with an index on the labels."""
    for store_class in bench.with_floor:
        yield store_class
        if issubclass(LanceIndexed, store_class):
            yield LanceIndexed


def _by(worker: Worker, queries: str, field: str) -> Callable[[list[int]], clock.Seconds]:
    return lambda picks: worker.search_where(queries, picks, LIMIT, field)


def _then_and_now(bench: Bench, rows: Rows) -> Iterator[Line]:
    """EngramDB alone: as of a commit after which one row in a hundred was overwritten."""
    queries = bench.queries
    with bench.scratch() as path:
        store = Engram(path)
        database = store.database
        ids = store.bulk(rows)
        then = database.last_seq
        changed = _overwrite(bench, database, rows, ids)
        with database.as_of(then) as past:
            for field in LABELS:
                recalls: dict[str, float] = {}
                contestants: dict[str, Callable[[int], clock.Seconds]] = {}
                for name, source, held in ((NOW, database, changed), (Engram.name, past, rows)):
                    search = _search(source, queries, field)
                    found = [search(pick) for pick in range(min(CHECKED, len(queries)))]
                    recalls[name] = _recall(held, ids, queries[: len(found)], field, found)
                    contestants[name] = clock.different(
                        _timed(search), len(queries), bench.scale.rounds
                    )
                timings = clock.in_turn(contestants, bench.scale.rounds)
                what = f"{_what(field, len(rows))}, as of {COMMITS} commits ago"
                yield from _lines(what, timings, NOW, recalls, Reach(1.5, "most", NOW))
        store.close()


def _overwrite(bench: Bench, database: Any, rows: Rows, ids: list[str]) -> Rows:
    """Give some memories another vector and other labels; returns all rows as they are then."""
    generator = np.random.default_rng(0)
    count = max(COMMITS, len(rows) // CHANGED_SHARE)
    picks = generator.permutation(len(rows))[:count]
    vectors = rows.vectors.copy()
    vectors[picks] = bench.corpus.rows(count, start=len(rows)).vectors
    columns = {name: list(column) for name, column in rows.columns.items()}
    for part in np.array_split(picks, COMMITS):
        nodes = []
        for row in part.tolist():
            node = database.load(ids[row])
            node.embeddings = vectors[row]
            for name in LABELS:
                columns[name][row] = label(name, int(generator.integers(LABELS[name])))
                node.set_attribute(name, columns[name][row])
            nodes.append(node)
        database.save_many(nodes)
    return replace(rows, vectors=vectors, columns=columns)


def _search(source: Any, queries: Matrix, field: str) -> Callable[[int], list[str]]:
    def search(pick: int) -> list[str]:
        found = source.search_similar(queries[pick], LIMIT, -1.0, where={field: label(field, pick)})
        return [row_id for row_id, _ in found]

    return search


def _timed(search: Callable[[int], list[str]]) -> Callable[[list[int]], clock.Seconds]:
    return lambda picks: clock.seconds_each(search, picks)


def _recall(
    rows: Rows, ids: list[str], queries: Matrix, field: str, found: list[list[str]]
) -> float:
    """Beside numpy on the rows that match; query n asks for the label of number n."""
    values = np.array(rows.columns[field])
    each = []
    for pick, hits in enumerate(found):
        matching = np.flatnonzero(values == label(field, pick))
        names = [ids[row] for row in matching.tolist()]
        query = queries[pick : pick + 1]
        each.append(recall(rows.vectors[matching], query, names, [hits], LIMIT))
    return float(np.mean(each))


def _lines(
    what: str,
    timings: dict[str, clock.Timing],
    yardstick: str,
    recalls: dict[str, float],
    reach: Reach | None = None,
) -> Iterator[Line]:
    beside = {yardstick: timings[yardstick].median() * 1e3} if yardstick in timings else {}
    for name, timing in timings.items():
        yield Figure(
            "filter",
            what,
            name,
            timing.median() * 1e3,
            "ms",
            {} if name == yardstick else beside,
            reach if name == Engram.name else None,
            f"p99 {clock.duration(timing.percentile(99))}; recall@10 {recalls[name]:.4f}",
        )
    if Engram.name in recalls:
        share = recalls[Engram.name]
        reach = Reach(TARGET, "least")
        yield Figure("filter", f"recall@10, {what}", Engram.name, share, "", {}, reach)
