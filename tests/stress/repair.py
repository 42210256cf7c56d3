"""Repairs after every planted fault: flipped bits, and everything else that happens to files."""

from __future__ import annotations

import random
import time

from tests.crash.damage import damages, flips
from tests.crash.databases import MAKERS
from tests.crash.repair_check import is_of_ours
from tests.crash.test_repair import try_repair
from tests.stress.outcome import Outcome

FAILURES_MAX = 20


def campaign(seconds: float, seed: int) -> Outcome:
    """All damages but the flips, then flips, in a random order, as far as the time goes."""
    deadline = time.monotonic() + seconds
    rng = random.Random(seed)
    failures: list[str] = []
    tried, complete, all_ = [0, 0], [0, 0], [0, 0]
    turns = [(kind, name) for kind in (0, 1) for name in rng.sample([*MAKERS], len(MAKERS))]
    for turn, (kind, name) in enumerate(turns):
        tasks = [damage for damage in (damages, flips)[kind](name) if is_of_ours(damage)]
        rng.shuffle(tasks)
        all_[kind] += len(tasks)
        end = time.monotonic() + (deadline - time.monotonic()) / (len(turns) - turn)
        for damage in tasks:
            if time.monotonic() > end or len(failures) >= FAILURES_MAX:
                break
            tried[kind] += 1
            try:
                complete[kind] += try_repair(name, damage)
            except AssertionError as error:
                failures.append(str(error).splitlines()[0])
    return Outcome(
        {
            "flipped bits repaired": tried[1],
            "without loss": complete[1],
            "bits there are": all_[1],
            "other damages repaired": tried[0],
            "without any loss": complete[0],
            "other damages there are": all_[0],
            "violations": len(failures),
        },
        failures,
    )
