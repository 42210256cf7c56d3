"""TemporalFilter: a condition on when a memory was created, or when it was last saved."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from engramdb.errors import InvalidInputError
from engramdb.model.moments import check_moment, duration_us, from_microseconds


@dataclass(frozen=True, slots=True, repr=False)
class TemporalFilter:
    """From `earliest_us` to `latest_us`, both included, and not older than `age_us_max`.

    All in microseconds, None where there is no bound. Made by the static methods. Looks at the
    creation time, or with `last_modified` at the time of the version that is visible.
    """

    earliest_us: int | None = None
    latest_us: int | None = None
    age_us_max: int | None = None
    last_modified: bool = False

    @staticmethod
    def before(moment: datetime, *, last_modified: bool = False) -> TemporalFilter:
        """Earlier than the moment, which is not included."""
        latest_us = check_moment(moment, "moment") - 1
        return TemporalFilter(None, latest_us, None, last_modified)

    @staticmethod
    def after(moment: datetime, *, last_modified: bool = False) -> TemporalFilter:
        """Later than the moment, which is not included."""
        earliest_us = check_moment(moment, "moment") + 1
        return TemporalFilter(earliest_us, None, None, last_modified)

    @staticmethod
    def between(start: datetime, end: datetime, *, last_modified: bool = False) -> TemporalFilter:
        """From start to end, both included."""
        start_us, end_us = check_moment(start, "start"), check_moment(end, "end")
        if start_us > end_us:
            raise InvalidInputError("end", f"{end.isoformat()} is before {start.isoformat()}")
        return TemporalFilter(start_us, end_us, None, last_modified)

    @staticmethod
    def within_last(duration: timedelta, *, last_modified: bool = False) -> TemporalFilter:
        """Not older than the duration, counted back from when the query runs."""
        if not isinstance(duration, timedelta):
            raise InvalidInputError(
                "duration", f"expected a timedelta, got {type(duration).__name__}"
            )
        if duration < timedelta():
            raise InvalidInputError("duration", f"cannot be negative, got {duration}")
        return TemporalFilter(None, None, duration_us(duration), last_modified)

    def matches(self, creation_us: int, modified_us: int, now_us: int) -> bool:
        """Whether a memory of these times meets the condition at `now_us`."""
        moment_us = modified_us if self.last_modified else creation_us
        if self.earliest_us is not None and moment_us < self.earliest_us:
            return False
        if self.latest_us is not None and moment_us > self.latest_us:
            return False
        return self.age_us_max is None or moment_us >= now_us - self.age_us_max

    def __repr__(self) -> str:
        if self.age_us_max is not None:
            call = f"within_last({timedelta(microseconds=self.age_us_max)!r}"
        elif self.earliest_us is None:
            call = f"before({_moment(self.latest_us, 1)}"
        elif self.latest_us is None:
            call = f"after({_moment(self.earliest_us, -1)}"
        else:
            call = f"between({_moment(self.earliest_us)}, {_moment(self.latest_us)}"
        return f"TemporalFilter.{call}{', last_modified=True' if self.last_modified else ''})"


def _moment(moment_us: int | None, shift_us: int = 0) -> str:
    return "" if moment_us is None else from_microseconds(moment_us + shift_us).isoformat()
