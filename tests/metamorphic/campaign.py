"""Lists and settings as long as time lasts."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field

from tests.metamorphic.run import Comparison

SETTINGS = 20  # for each list; the first is the plainest


@dataclass
class Tally:
    """What was done."""

    lists: int = 0
    settings: int = 0
    operations: int = 0
    failures: list[str] = field(default_factory=list)


def settings_for(seed: int) -> list[int]:
    """The seeds of the settings under which the list of a seed is run."""
    return [0, *random.Random(f"settings {seed}").sample(range(1, 10**6), SETTINGS - 1)]


def compare_list(seed: int, length: int, tally: Tally) -> None:
    """Run one list under all its settings."""
    comparison = Comparison(seed, length)
    tally.lists += 1
    for setting in settings_for(seed):
        difference = comparison.add(setting)
        tally.settings += 1
        tally.operations += len(comparison.operations.operations)
        if difference is not None:
            tally.failures.append(difference)
            return


def compare_until(deadline_s: float, seed: int, length: int) -> Tally:
    """New lists until time.monotonic() reaches the deadline."""
    tally = Tally()
    number = seed * 1_000_000
    while time.monotonic() < deadline_s:
        compare_list(number, length, tally)
        number += 1
    return tally
