"""How time is taken: single calls, several rounds in turn, medians."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Seconds = npt.NDArray[np.float64]

WARM_UP: Final = 3  # calls at the begin of a round that only bring the data back to the caches
SLOW_S: Final = 0.02  # what takes longer is repeated less often


@dataclass(frozen=True)
class Timing:
    """The durations of single calls, in seconds, round by round."""

    rounds: list[Seconds]

    def per_second(self) -> float:
        """Calls per second: the median round, so that one disturbed round does not count."""
        return float(np.median([len(round_) / round_.sum() for round_ in self.rounds]))

    def percentile(self, share: float) -> float:
        """Seconds within which `share` percent of all calls returned."""
        return float(np.percentile(np.concatenate(self.rounds), share))

    def median(self) -> float:
        """Seconds of the median call."""
        return self.percentile(50)

    def spread(self) -> str:
        """p50 and p99 for the remarks column."""
        return f"p50 {duration(self.percentile(50))}, p99 {duration(self.percentile(99))}"


def seconds_each(call: Callable[[Any], object], arguments: Iterable[Any]) -> Seconds:
    """How long each call took."""
    now = time.perf_counter_ns
    taken: list[int] = []
    note = taken.append
    for argument in arguments:
        start = now()
        call(argument)
        note(now() - start)
    return np.array(taken, np.float64) / 1e9


def in_turn(contestants: dict[str, Callable[[int], Seconds]], rounds: int) -> dict[str, Timing]:
    """Runs `contestant(round)` for each in turn, `rounds` times over: what disturbs the machine
    for a while then disturbs all of them."""
    taken: dict[str, list[Seconds]] = {name: [] for name in contestants}
    for round_ in range(rounds):
        for name, contestant in contestants.items():
            taken[name].append(contestant(round_))
    return {name: Timing(rounds_) for name, rounds_ in taken.items()}


def different(
    call: Callable[[list[int]], Seconds], total: int, rounds: int
) -> Callable[[int], Seconds]:
    """Rounds of calls with different numbers below `total`; fewer of them for who is slow."""
    slow = bool(np.median(call(list(range(WARM_UP)))) > SLOW_S)
    count = max(4, total // rounds // (4 if slow else 1))

    def a_round(number: int) -> Seconds:
        first = number * count
        return call([pick % total for pick in range(first, first + count + WARM_UP)])[WARM_UP:]

    return a_round


def stopwatch(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def duration(seconds: float) -> str:
    """In the unit that suits it."""
    if seconds >= 1:
        return f"{seconds:.2f} s"
    if seconds >= 1e-3:
        return f"{seconds * 1e3:.2f} ms"
    return f"{seconds * 1e6:.1f} us"
