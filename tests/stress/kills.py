"""kill -9 of a real writer process at random moments, with readers in other processes following.

A process crash, not a power cut: what was written is still in the page cache. See
tests/processes/directory.py.
"""

from __future__ import annotations

import time

from tests.processes.directory import lives
from tests.stress.outcome import Outcome


def campaign(seconds: float, seed: int) -> Outcome:
    """As many kills as fit."""
    end = time.monotonic() + seconds
    tally, failures = lives(seed, lambda tally: time.monotonic() > end)
    figures: dict[str, int | float | str] = {
        "kills": tally.kills,
        "of them while it opened": tally.kills_opening,
        "of them while it closed": tally.kills_closing,
        "clean closes": tally.closed,
        "directories": tally.directories,
        "recoveries": tally.recoveries,
        "acknowledged commits": tally.acknowledged,
        "states seen by readers": tally.seen_by_readers,
        "past moments looked at": tally.moments,
        "violations": len(failures),
    }
    return Outcome(figures, failures)
