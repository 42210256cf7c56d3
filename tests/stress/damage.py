"""Every bit of every file of a database, of its fork and of its checkpoint flipped; each sector
swapped with each other one, each length, and everything else that `damage` knows.

A part of the same runs in `make test` (tests/crash/test_damage.py).
"""

from __future__ import annotations

import random
import time
from collections import Counter

from tests.crash.damage import Damage, damages, flips
from tests.crash.damage_check import DamageCheck
from tests.crash.databases import MAKERS
from tests.stress.outcome import Outcome

FAILURES_MAX = 20
FLIPPED = ("full_database", "crashed_database", "power_cut_database")

Task = tuple[DamageCheck, Damage, int | None]  # and in how many ways it is looked at, if not in all


def campaign(seconds: float, seed: int) -> Outcome:
    """First what `make test` tries of everything but the flips, then each bit, then each length and
    each swap; in a random order, until the time is over or all is done (some hours)."""
    deadline = time.monotonic() + seconds
    rng = random.Random(seed)
    checks = {name: DamageCheck(name) for name in MAKERS}
    # the bits that no reader touches flip together: no answer is a function of them
    unread = sum(check.check_untouched() for check in checks.values())
    rounds = [_usual(checks), _flips(checks), _thorough(checks)]
    failures: list[str] = []
    tried = [0, 0, 0]
    for number, tasks in enumerate(rounds):
        rng.shuffle(tasks)
        for check, damage, looks in tasks:
            if time.monotonic() > deadline or len(failures) >= FAILURES_MAX:
                break
            tried[number] += 1
            try:
                check(damage, looks=looks)
            except AssertionError as error:
                failures.append(str(error).splitlines()[0])
    figures: dict[str, int | float | str] = {
        "databases": len(checks),
        "bits flipped, one at a time": f"{tried[1]:,} of {len(rounds[1]):,}",
        "bits nobody reads, together": unread,
        "other damages": f"{tried[0] + tried[2]:,} of {len(rounds[0]) + len(rounds[2]):,}",
    }
    done: Counter[str] = Counter()
    for check in checks.values():
        done.update({f"damage: {kind}": count for kind, count in check.kinds.items()})
        done.update({f"opened: {what}": count for what, count in check.outcomes.items()})
    return Outcome({**figures, **dict(sorted(done.items()))}, failures)


def _usual(checks: dict[str, DamageCheck]) -> list[Task]:
    return [(check, damage, None) for name, check in checks.items() for damage in damages(name)]


def _flips(checks: dict[str, DamageCheck]) -> list[Task]:
    return [
        (checks[name], flip, 2)
        for name in FLIPPED
        for flip in flips(name)
        if checks[name].matters(flip)
    ]


def _thorough(checks: dict[str, DamageCheck]) -> list[Task]:
    return [
        (check, damage, 2)
        for name, check in checks.items()
        for damage in damages(name, thorough=True)
    ]
