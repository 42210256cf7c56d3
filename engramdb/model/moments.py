"""Moments: aware datetimes outside, whole microseconds since the epoch (UTC) inside. Exact both
ways, without a float in between."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final

from engramdb.errors import InvalidInputError

DAY_US: Final = 86_400_000_000
SECOND_US: Final = 1_000_000

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_WITHOUT_ZONE: Final = datetime(1970, 1, 1)


ticks_ns: Final = time.perf_counter_ns
"""Nanoseconds since some moment: for durations."""


def now_us() -> int:
    """The wall clock, in microseconds since the epoch."""
    return time.time_ns() // 1000


def now() -> datetime:
    """The wall clock, as an aware datetime in UTC."""
    return from_microseconds(now_us())


def to_microseconds(moment: object, argument: str) -> int:
    """Microseconds since the epoch of an aware datetime.

    Raises InvalidInputError naming `argument` for a naive datetime and for anything else.
    """
    if not isinstance(moment, datetime):
        raise InvalidInputError(
            argument, f"expected an aware datetime, got {moment!r} of type {type(moment).__name__}"
        )
    if moment.utcoffset() is None:
        raise InvalidInputError(
            argument,
            f"{moment.isoformat()} has no timezone, so it names no moment; "
            "attach one, such as tzinfo=datetime.timezone.utc",
        )
    return duration_us(moment - _EPOCH)


def check_moment(moment: object, argument: str) -> int:
    """The same of a moment that has a reading in UTC, or InvalidInputError."""
    made = to_microseconds(moment, argument)
    try:
        from_microseconds(made)
    except OverflowError:
        raise InvalidInputError(
            argument, f"{moment} lies outside the years 1 to 9999 in UTC"
        ) from None
    return made


def from_microseconds(moment_us: int, offset_us: int = 0) -> datetime:
    """The aware datetime of a moment, at a fixed offset from UTC (UTC itself by default).

    Raises OverflowError or ValueError outside of what a datetime can hold.
    """
    if not offset_us:
        return _EPOCH + timedelta(0, 0, moment_us)
    # Shifted before the zone is attached: at the ends of time the UTC reading may not exist.
    return (_EPOCH_WITHOUT_ZONE + timedelta(microseconds=moment_us + offset_us)).replace(
        tzinfo=_zone(offset_us)
    )


def moment_or_none(moment_us: int | None) -> datetime | None:
    """The moment in UTC, or None for None."""
    return None if moment_us is None else from_microseconds(moment_us)


def duration_us(duration: timedelta) -> int:
    """A timedelta in microseconds, exactly."""
    return duration.days * DAY_US + duration.seconds * SECOND_US + duration.microseconds


@lru_cache(maxsize=256)
def _zone(offset_us: int) -> tzinfo:
    return timezone(timedelta(microseconds=offset_us)) if offset_us else UTC
