"""AccessHistory: when a memory was loaded."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class AccessHistory:
    """When a memory was handed to a caller. Moments are in UTC.

    count       how often
    first       the first time, or None
    last        the last time, or None
    recent      the last ten times, newest first
    frequency   accesses a day: `count` over the days from the first access to the moment at which
                this was asked for, which count as one day at least; 0.0 if there is none
    """

    count: int = 0
    first: datetime | None = None
    last: datetime | None = None
    recent: tuple[datetime, ...] = ()
    frequency: float = 0.0
