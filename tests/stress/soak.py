"""Millions of versions, gigabytes, thousands of openings; nothing grows that should not."""

from __future__ import annotations

from tests.soak.run import PARTS, run_part
from tests.stress.outcome import Outcome

FULL_S = 600.0  # what all parts take together at their full size


def campaign(seconds: float, seed: int) -> Outcome:
    """Each part once, at its full size or, if there is less time, the share of it that fits."""
    outcome = Outcome()
    share = min(1.0, seconds / FULL_S)
    for name, (_, full, least) in PARTS.items():
        figures, failure = run_part(name, max(least, int(full * share)), seed)
        outcome.figures |= figures
        if failure is not None:
            outcome.failures.append(failure)
    return outcome
