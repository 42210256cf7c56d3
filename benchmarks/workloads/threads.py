"""Durable saves from many threads: a group of them shares one sync."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np

from benchmarks import clock
from benchmarks.bench import Bench
from benchmarks.figures import Figure, Line, Reach
from benchmarks.stores import Engram
from benchmarks.stores.engram import nodes


def run(bench: Bench) -> Iterator[Line]:
    """EngramDB with one thread and with several, in turn."""
    scale = bench.scale
    if Engram.name in bench.absent:
        return
    many = scale.threads * scale.saves // 2
    with bench.scratch() as directory:
        store = Engram(directory)
        save = store.database.save
        prepared = nodes(bench.corpus.rows((many + scale.saves) * scale.rounds))

        def take(count: int) -> list[Any]:
            taken = prepared[:count]
            del prepared[:count]
            return taken

        latencies: list[clock.Seconds] = []
        timings = clock.in_turn(
            {
                "1": lambda _: clock.seconds_each(save, take(scale.saves)),
                "n": lambda _: _together(save, take(many), scale.threads, latencies),
            },
            scale.rounds,
        )
        store.close()
    one, together = timings["1"].per_second(), timings["n"].per_second()
    spread = clock.Timing(latencies).spread()
    yield Figure("threads", "1 thread", Engram.name, one, "saves/s", detail=timings["1"].spread())
    yield Figure(
        "threads",
        f"{scale.threads} threads",
        Engram.name,
        together,
        "saves/s",
        {"1 thread": one},
        Reach(15_000, "least"),
        f"{spread} of each save",
    )


def _together(
    save: Any, prepared: list[Any], threads: int, latencies: list[clock.Seconds]
) -> clock.Seconds:
    """Seconds per save of all threads together, as equal parts of the time that they took."""
    barrier = threading.Barrier(threads + 1)
    errors: list[BaseException] = []

    def work(part: list[Any]) -> None:
        barrier.wait()
        try:
            latencies.append(clock.seconds_each(save, part))
        except BaseException as error:
            errors.append(error)

    workers = [
        threading.Thread(target=work, args=(prepared[number::threads],))
        for number in range(threads)
    ]
    for worker in workers:
        worker.start()

    def all_of_it() -> None:
        barrier.wait()
        for worker in workers:
            worker.join()

    taken = clock.stopwatch(all_of_it)
    if errors:
        raise errors[0]
    return np.full(len(prepared), taken / len(prepared))
