"""New lists of operations, each under 20 option sets, as long as time lasts."""

from __future__ import annotations

import time

from tests.metamorphic.campaign import compare_until
from tests.stress.outcome import Outcome

LENGTH = 150


def campaign(seconds: float, seed: int) -> Outcome:
    """Every transcript of a list is compared with all others of it."""
    tally = compare_until(time.monotonic() + seconds, seed, LENGTH)
    figures: dict[str, int | float | str] = {
        "operation lists": tally.lists,
        "option sets": tally.settings,
        "operations": tally.operations,
        "transcripts compared": tally.settings - tally.lists,
        "differences": len(tally.failures),
    }
    return Outcome(figures, tally.failures)
