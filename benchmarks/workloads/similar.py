"""The ten nearest at equal recall: rows with clusters and without, queries like them and unlike.

Recall is counted against double precision on all queries, before the timed rounds and after them:
an index may learn from what it is asked. Who lets its user trade recall for time is told to search
as hard as it takes to reach the recall that EngramDB promises, on these very queries.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Final

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.corpus import SHAPES, Matrix
from benchmarks.figures import Absence, Figure, Line, Reach
from benchmarks.recall import Truth, worst_score
from benchmarks.stores import Engram, EngramNumpy, Store, Zvec, ZvecGraph
from benchmarks.worker import Worker

WORKLOAD: Final = "similar"
LIMIT: Final = 10
TARGET: Final = 0.99  # the recall that is promised, unless another is asked for
PRODUCT: Final = "bare product"
SCORE_ERROR: Final = 1e-9  # a score that is further off than this is wrong


@dataclass(frozen=True)
class Asked:
    """Queries of one kind, where other processes find them, and what is right."""

    kind: str
    queries: Matrix
    file: str
    truth: Truth


@dataclass(frozen=True)
class Entrant:
    """A store, loaded and open."""

    worker: Worker
    ids: list[str]
    store_class: type[Store]


def run(bench: Bench) -> Iterator[Line]:
    """Both shapes, every size, both kinds of queries."""
    for store_class in entrants(bench):
        missing = store_class.missing()
        if missing:
            yield Absence(WORKLOAD, store_class.name, missing)
    for shape in SHAPES:
        for count in bench.sizes:
            yield from _at(bench, shape, count)


def entrants(bench: Bench) -> list[type[Store]]:
    """EngramDB as it is and with numpy only, and the peer whose search is a graph."""
    ours: list[type[Store]] = [] if Engram.name in bench.absent else [Engram, EngramNumpy]
    return [*ours, ZvecGraph] if Zvec.name in bench.peers else ours


def _at(bench: Bench, shape: str, count: int) -> Iterator[Line]:
    corpus = bench.shaped(shape)
    matrix = corpus.vectors(count)
    asked = []
    for kind, queries in (
        ("held-out rows", corpus.held_out(bench.scale.asked)),
        ("questions", corpus.questions(bench.scale.asked)),
    ):
        asked.append(Asked(kind, queries, bench.kept(queries), Truth(matrix, queries, LIMIT)))
    present: dict[str, Entrant] = {}
    with ExitStack() as stack:
        for store_class in entrants(bench):
            if store_class.missing():
                continue
            bench.say(f"  {count:,} rows, {shape}: {store_class.name}")
            with bench.attempt(store_class.name):
                loaded = bench.loaded(store_class, count, shape=shape)
                worker = stack.enter_context(bench.worker(store_class.name, loaded.path))
                present[store_class.name] = Entrant(worker, loaded.ids, store_class)
        for each in asked:
            yield from _ask(bench, f"{count:,}, {shape}, {each.kind}", matrix, each, present)
    for store_class in entrants(bench):
        if shape != bench.corpus.shape:
            bench.unload(store_class, count, shape=shape)


def _ask(
    bench: Bench, what: str, matrix: Matrix, asked: Asked, present: dict[str, Entrant]
) -> Iterator[Line]:
    """One kind of queries, everybody in turn."""
    queries, rounds = asked.queries, bench.scale.rounds
    contestants = {
        PRODUCT: clock.different(
            lambda picks: clock.seconds_each(lambda pick: matrix @ queries[pick], picks),
            len(queries),
            rounds,
        )
    }
    recalls: dict[str, list[float]] = {}
    remarks: dict[str, str] = {}
    for name, entrant in present.items():
        with bench.attempt(name):
            recalls[name], remarks[name] = _first(matrix, asked, entrant)
            contestants[name] = clock.different(
                _by(entrant.worker, asked.file), len(queries), rounds
            )
    timings = clock.in_turn(contestants, rounds)
    for name, entrant in present.items():
        with bench.attempt(name):
            recalls[name].append(asked.truth.recall(entrant.ids, _found(entrant, asked)))
            said = entrant.worker.index()
            if said:
                bench.say(f"  {what}: {name}: {json.dumps(said)}")
    yield from _lines(what, timings, recalls, remarks)


def _found(entrant: Entrant, asked: Asked) -> list[list[str]]:
    return entrant.worker.find(asked.file, list(range(len(asked.queries))), LIMIT)


def _first(matrix: Matrix, asked: Asked, entrant: Entrant) -> tuple[list[float], str]:
    """The recall before anything was timed, and what there is to say of it."""
    if entrant.store_class.efforts:
        return _tuned(asked, entrant)
    picks = list(range(len(asked.queries)))
    scored = entrant.worker.scored(asked.file, picks, LIMIT)
    worst = worst_score(matrix, asked.queries, entrant.ids, scored)
    if worst > SCORE_ERROR:
        raise RuntimeError(f"a score is off by {worst:.1e}")
    found = [[row_id for row_id, _ in hits] for hits in scored]
    return [asked.truth.recall(entrant.ids, found)], f"scores off by {worst:.0e} at most"


def _tuned(asked: Asked, entrant: Entrant) -> tuple[list[float], str]:
    """The least effort that reaches the target, or the most there is."""
    share, effort = 0.0, 0
    for effort in entrant.store_class.efforts:
        entrant.worker.tune(effort)
        share = asked.truth.recall(entrant.ids, _found(entrant, asked))
        if share >= TARGET:
            break
    return [share], f"{entrant.store_class.effort_name} {effort}"


def _lines(
    what: str,
    timings: dict[str, clock.Timing],
    recalls: dict[str, list[float]],
    remarks: dict[str, str],
) -> Iterator[Line]:
    yardsticks = {
        name: timings[name].median() * 1e3 for name in (PRODUCT, ZvecGraph.name) if name in timings
    }
    for name, timing in timings.items():
        detail = f"p99 {clock.duration(timing.percentile(99))}"
        if name in recalls:
            detail += f"; recall@{LIMIT} {said(recalls[name])}; {remarks[name]}"
        yield Figure(
            WORKLOAD,
            f"top {LIMIT} of {what}",
            name,
            timing.median() * 1e3,
            "ms",
            {yardstick: ms for yardstick, ms in yardsticks.items() if yardstick != name},
            Reach(1, "most", ZvecGraph.name) if name == Engram.name else None,
            detail,
        )
    for name, shares in recalls.items():
        if not name.startswith(Engram.name):
            continue
        least = float(np.min(shares))
        yield Figure(
            WORKLOAD, f"recall@{LIMIT}, {what}", name, least, "", {}, Reach(TARGET, "least")
        )


def said(shares: list[float]) -> str:
    """The recall before and after, once if it is the same."""
    return ", then ".join(dict.fromkeys(f"{share:.4f}" for share in shares))


def _by(worker: Worker, file: str) -> Callable[[list[int]], clock.Seconds]:
    return lambda picks: worker.search(file, picks, LIMIT)
