"""Random lives of a memory, each ended by an erasure, with power cuts at every moment of it."""

from __future__ import annotations

import random
import time

from tests.erasure.crashes import OPTIONS, check_crashes, make
from tests.stress.outcome import Outcome


def check_life(number: int) -> tuple[int, list[str]]:
    """One life, drawn from its number. How many crash states there were, and what was wrong."""
    disk, secret = make(number, None, number % len(OPTIONS))
    found = check_crashes(disk, secret, random.Random(number), random_ones=3)
    secret.db.close()
    return found


def campaign(seconds: float, seed: int) -> Outcome:
    """Byte scans of all files after each crash."""
    end = time.monotonic() + seconds
    lives = states = 0
    failures: list[str] = []
    number = seed * 1_000_000
    while time.monotonic() < end:
        number += 1
        count, problems = check_life(number)
        lives, states = lives + 1, states + count
        command = f'python -c "from tests.stress.erasure import *; print(check_life({number}))"'
        failures += [f"{command}  # {problem}" for problem in problems[:1]]
    figures: dict[str, int | float | str] = {
        "lives ended by a purge": lives,
        "crash states scanned": states,
        "with a trace left": len(failures),
    }
    return Outcome(figures, failures)
