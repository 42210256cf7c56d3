"""The ten nearest now, five commits ago and half-way; without approximation; a hundred at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.corpus import Matrix
from benchmarks.figures import Figure, Line, Reach
from benchmarks.recall import Truth
from benchmarks.stores import Engram
from benchmarks.stores.bare import top
from benchmarks.stores.engram import build_index

WORKLOAD: Final = "moments"
LIMIT: Final = 10
BATCH: Final = 100
PARTS: Final = 10  # commits that the rows are loaded in
COMMITS: Final = 5
CHANGED_SHARE: Final = 100  # one row of so many gets another vector in these commits
NOW: Final = "now"
TARGET: Final = 0.99
PRODUCT: Final = "bare product"
TOGETHER: Final = "numpy, one product and top 10"

Found = list[list[str]]


@dataclass
class Past:
    """A database with a past, and the vectors that it held at each moment."""

    database: Any
    ids: list[str]
    matrix: Matrix  # as it is now
    seqs: dict[str, int] = field(default_factory=dict)
    matrices: dict[str, Matrix] = field(default_factory=dict)  # moment -> rows, in order of ids


def run(bench: Bench) -> Iterator[Line]:
    """EngramDB alone, beside numpy; with a million rows where that is asked for."""
    if Engram.name in bench.absent:
        return
    for count in bench.sizes[1:]:
        with bench.scratch() as path:
            store = Engram(path)
            past = _lived(bench, store.database, count)
            build_index(store.database)
            queries = bench.corpus.questions(bench.scale.asked)
            yield from _one_by_one(bench, past, queries)
            yield from _together(bench, past, queries)
            store.close()


def _lived(bench: Bench, database: Any, count: int) -> Past:
    """Loaded in parts, then some rows are overwritten in a few commits."""
    matrix = bench.corpus.vectors(count)
    past = Past(database, [], matrix.copy())
    for part in np.array_split(np.arange(count), PARTS):
        if part[0] >= count // 2 and "half-way" not in past.seqs:
            past.seqs["half-way"] = database.last_seq
            past.matrices["half-way"] = matrix[: part[0]]
        past.ids += database.save_columns(embeddings=matrix[part[0] : part[-1] + 1])
    ago = f"{COMMITS} commits ago"
    past.seqs[ago], past.matrices[ago] = database.last_seq, matrix
    picks = np.random.default_rng(0).permutation(count)[: max(COMMITS, count // CHANGED_SHARE)]
    past.matrix[picks] = bench.corpus.rows(len(picks), start=count).vectors
    for part in np.array_split(picks, COMMITS):
        nodes = []
        for row in part.tolist():
            node = database.load(past.ids[row])
            node.embeddings = past.matrix[row]
            nodes.append(node)
        database.save_many(nodes)
    return past


def _one_by_one(bench: Bench, past: Past, queries: Matrix) -> Iterator[Line]:
    rounds = bench.scale.rounds
    truth = Truth(past.matrix, queries, LIMIT)
    searches = {NOW: past.database.search_similar}
    truths = {NOW: truth}
    searches["now, exact=True"] = partial(past.database.search_similar, exact=True)
    truths["now, exact=True"] = truth
    with ExitStack() as stack:
        for moment, seq in past.seqs.items():
            searches[moment] = stack.enter_context(past.database.as_of(seq)).search_similar
            truths[moment] = Truth(past.matrices[moment], queries, LIMIT)
        contestants: dict[str, Callable[[int], clock.Seconds]] = {
            PRODUCT: clock.different(_products(past.matrix, queries), len(queries), rounds)
        }
        recalls = {}
        for moment, search in searches.items():
            found = [_ids(search(query, LIMIT, -1.0)) for query in queries]
            recalls[moment] = truths[moment].recall(past.ids, found)
            contestants[moment] = clock.different(_timed(search, queries), len(queries), rounds)
        timings = clock.in_turn(contestants, rounds)
    beside = {name: timings[name].median() * 1e3 for name in (PRODUCT, NOW)}
    for moment, timing in timings.items():
        bare = moment == PRODUCT
        detail = f"p99 {clock.duration(timing.percentile(99))}"
        yield Figure(
            WORKLOAD,
            f"top {LIMIT} of {len(past.ids):,}" + ("" if bare else f", {moment}"),
            PRODUCT if bare else Engram.name,
            timing.median() * 1e3,
            "ms",
            {name: ms for name, ms in beside.items() if name != moment and not bare},
            Reach(1.5, "most", NOW) if moment in past.seqs else None,
            detail if bare else f"{detail}; recall@{LIMIT} {recalls[moment]:.4f}",
        )
    for moment, share in recalls.items():
        least = 1 if "exact" in moment else TARGET
        what = f"recall@{LIMIT} of {len(past.ids):,}, {moment}"
        yield Figure(WORKLOAD, what, Engram.name, share, "", {}, Reach(least, "least"))


def _together(bench: Bench, past: Past, queries: Matrix) -> Iterator[Line]:
    """Batches in one call, the same queries one by one, and numpy's one product for all of them."""
    batch = min(BATCH, len(queries))
    batches = [queries[at : at + batch] for at in range(0, len(queries) - batch + 1, batch)]
    database = past.database

    def numpy(asked: Matrix) -> list[list[int]]:
        return [top(scores, LIMIT) for scores in asked @ past.matrix.T]

    def many(asked: Matrix) -> Found:
        return [_ids(hits) for hits in database.search_many(asked, LIMIT, -1.0)]

    def each(asked: Matrix) -> Found:
        return [_ids(database.search_similar(query, LIMIT, -1.0)) for query in asked]

    found = [hits for asked in batches for hits in many(asked)]
    share = Truth(past.matrix, np.concatenate(batches), LIMIT).recall(past.ids, found)
    timings = clock.in_turn(
        {
            name: partial(_round, call, batches)
            for name, call in ((TOGETHER, numpy), ("one by one", each), ("one call", many))
        },
        bench.scale.rounds,
    )
    rates = {name: batch / timing.median() for name, timing in timings.items()}
    for name, rate in rates.items():
        ours = name != TOGETHER
        yield Figure(
            WORKLOAD,
            f"{batch} queries, top {LIMIT} of {len(past.ids):,}" + (f", {name}" if ours else ""),
            Engram.name if ours else name,
            rate,
            "queries/s",
            {other: rates[other] for other in (TOGETHER, "one by one") if other != name and ours},
            Reach(1, "least", "one by one") if name == "one call" else None,
            f"{clock.duration(timings[name].median())} a batch"
            + (f"; recall@{LIMIT} {share:.4f}" if name == "one call" else ""),
        )
    what = f"recall@{LIMIT} of {len(past.ids):,}, {batch} queries in one call"
    yield Figure(WORKLOAD, what, Engram.name, share, "", {}, Reach(TARGET, "least"))


def _round(call: Callable[[Matrix], object], batches: list[Matrix], _: int) -> clock.Seconds:
    return clock.seconds_each(call, batches)


def _products(matrix: Matrix, queries: Matrix) -> Callable[[list[int]], clock.Seconds]:
    return lambda picks: clock.seconds_each(lambda pick: matrix @ queries[pick], picks)


def _timed(search: Callable[..., Any], queries: Matrix) -> Callable[[list[int]], clock.Seconds]:
    return lambda picks: clock.seconds_each(lambda pick: search(queries[pick], LIMIT, -1.0), picks)


def _ids(hits: Any) -> list[str]:
    return [row_id for row_id, _ in hits]
