"""Histories of concurrent operations, checked for linearizability; see tests/threads/histories.py.

The last histories were as long as the first: what is sought is a rare interleaving.
"""

from __future__ import annotations

import random
import time

from tests.stress.outcome import Outcome
from tests.threads.histories import trial


def campaign(seconds: float, seed: int) -> Outcome:
    """As many histories as fit."""
    end, rng = time.monotonic() + seconds, random.Random(seed)
    outcome = Outcome()
    histories = operations = looks = 0
    while time.monotonic() < end and len(outcome.failures) < 10:
        history, problems = trial(rng.randrange(1 << 30))
        outcome.failures += problems
        histories += 1
        operations += len(history.operations)
        looks += len(history.looked_back)
    outcome.figures = {
        "histories": histories,
        "operations": operations,
        "looks at the past": looks,
        "violations": len(outcome.failures),
    }
    return outcome
