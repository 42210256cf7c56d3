"""Does it gain from knowing what is asked? Queries about few topics that change once; and uniform.

Both patterns begin with the same database, as it was loaded. After each quarter of the queries the
index gets the time that it may want in the background, which is not part of the figures. The topics
change half-way. Nothing is to be gained where all rows are equally likely to be asked for.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.corpus import Matrix
from benchmarks.figures import Absence, Figure, Line, Reach
from benchmarks.recall import Truth
from benchmarks.stores import Engram, EngramFixed
from benchmarks.worker import Worker

WORKLOAD: Final = "adaptive"
LIMIT: Final = 10
TARGET: Final = 0.99
CHECKED: Final = 100  # queries of each quarter whose answers are judged
QUARTERS: Final = ("at first", "later", "after the change", "later again")
ALIKE: Final = ("first quarter", "second quarter", "third quarter", "last quarter")


@dataclass(frozen=True)
class Pattern:
    """What is asked, in this order, and what its quarters are called."""

    name: str
    queries: Matrix
    quarters: tuple[str, ...]


def run(bench: Bench) -> Iterator[Line]:
    """Adaptive and not, in turn, with the same queries in the same order."""
    if Engram.name in bench.absent:
        return
    classes: list[type[Engram]] = [Engram]
    missing = EngramFixed.missing()
    if missing:
        yield Absence(WORKLOAD, EngramFixed.name, missing)
    else:
        classes.append(EngramFixed)
    matrix = bench.corpus.vectors(bench.scale.rows)
    for pattern in _patterns(bench):
        yield from _ask(bench, pattern, classes, matrix)
    bench.unload(EngramFixed, bench.scale.rows)


def _patterns(bench: Bench) -> Iterator[Pattern]:
    scale, corpus = bench.scale, bench.corpus
    half = scale.skewed // 2
    name = f"Zipf over {scale.topics} topics"
    about = [corpus.topical(half, scale.topics, number) for number in range(2)]
    yield Pattern(name, np.concatenate(about), QUARTERS)
    yield Pattern("uniform", corpus.held_out(2 * half), ALIKE)


def _ask(
    bench: Bench, pattern: Pattern, classes: list[type[Engram]], matrix: Matrix
) -> Iterator[Line]:
    file = bench.kept(pattern.queries)
    quarters = np.array_split(np.arange(len(pattern.queries)), len(pattern.quarters))
    with ExitStack() as stack:
        workers: dict[str, tuple[Worker, list[str]]] = {}
        for store_class in classes:
            loaded = bench.loaded(store_class, bench.scale.rows)
            path = stack.enter_context(bench.scratch())
            shutil.copytree(loaded.path, path, dirs_exist_ok=True)
            worker = stack.enter_context(bench.worker(store_class.name, path))
            workers[store_class.name] = worker, loaded.ids
        for quarter, picks in zip(pattern.quarters, quarters, strict=True):
            timings = clock.in_turn(
                {
                    name: partial(_round, worker, file, np.array_split(picks, bench.scale.rounds))
                    for name, (worker, _) in workers.items()
                },
                bench.scale.rounds,
            )
            checked = picks[-CHECKED:]
            truth = Truth(matrix, pattern.queries[checked], LIMIT)
            recalls = {
                name: truth.recall(ids, worker.find(file, checked.tolist(), LIMIT))
                for name, (worker, ids) in workers.items()
            }
            yield from _lines(f"{pattern.name}, {quarter}", timings, recalls)
            for worker, _ in workers.values():
                worker.settle()


def _round(worker: Worker, file: str, parts: list[np.ndarray], number: int) -> clock.Seconds:
    """No query is asked twice, not even to warm up: who adapts would have seen it."""
    return worker.search(file, parts[number].tolist(), LIMIT)


def _lines(
    what: str, timings: dict[str, clock.Timing], recalls: dict[str, float]
) -> Iterator[Line]:
    for name, timing in timings.items():
        fixed = timings.get(EngramFixed.name)
        beside = {EngramFixed.name: fixed.median() * 1e3} if fixed is not None else {}
        yield Figure(
            WORKLOAD,
            f"top {LIMIT}, {what}",
            name,
            timing.median() * 1e3,
            "ms",
            {} if name == EngramFixed.name else beside,
            None,
            f"p99 {clock.duration(timing.percentile(99))}; recall@{LIMIT} {recalls[name]:.4f}",
        )
        share, reach = recalls[name], Reach(TARGET, "least")
        yield Figure(WORKLOAD, f"recall@{LIMIT}, {what}", name, share, "", {}, reach)
