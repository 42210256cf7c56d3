"""TemporalFilter: when a memory was created or last saved, to the microsecond."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from engramdb.errors import InvalidInputError
from engramdb.model.moments import to_microseconds
from engramdb.query.temporal_filter import TemporalFilter

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
NOON_US = to_microseconds(NOON, "noon")
HOUR_US = 3_600_000_000
ELSEWHERE_US = -(2**60)  # a time that must not be looked at


def _matching(condition: TemporalFilter, now_us: int = NOON_US) -> list[int]:
    """Which of these distances from noon match, in microseconds."""
    distances = [-HOUR_US - 1, -HOUR_US, -1, 0, 1, HOUR_US, HOUR_US + 1]
    return [
        distance
        for distance in distances
        if condition.matches(NOON_US + distance, ELSEWHERE_US, now_us)
    ]


def test_before_and_after_leave_the_moment_out() -> None:
    assert _matching(TemporalFilter.before(NOON)) == [-HOUR_US - 1, -HOUR_US, -1]
    assert _matching(TemporalFilter.after(NOON)) == [1, HOUR_US, HOUR_US + 1]


def test_between_includes_both_ends() -> None:
    hour = timedelta(hours=1)
    assert _matching(TemporalFilter.between(NOON - hour, NOON)) == [-HOUR_US, -1, 0]
    assert _matching(TemporalFilter.between(NOON, NOON)) == [0]


def test_within_last_counts_back_from_the_query() -> None:
    condition = TemporalFilter.within_last(timedelta(hours=1))
    assert _matching(condition) == [-HOUR_US, -1, 0, 1, HOUR_US, HOUR_US + 1]
    assert _matching(condition, NOON_US + HOUR_US) == [0, 1, HOUR_US, HOUR_US + 1]
    assert _matching(TemporalFilter.within_last(timedelta(0))) == [0, 1, HOUR_US, HOUR_US + 1]


def test_the_moment_may_be_told_in_any_timezone() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=-7)))
    assert TemporalFilter.before(elsewhere) == TemporalFilter.before(NOON)


@pytest.mark.parametrize(
    ("make", "outside_us"),
    [
        (partial(TemporalFilter.before, NOON), NOON_US + 1),
        (partial(TemporalFilter.after, NOON - timedelta(hours=1)), NOON_US - 2 * HOUR_US),
        (partial(TemporalFilter.between, NOON - timedelta(hours=1), NOON), NOON_US + 1),
        (partial(TemporalFilter.within_last, timedelta(hours=1)), NOON_US - 2 * HOUR_US),
    ],
)
def test_it_looks_at_creation_or_at_the_last_change(make: Any, outside_us: int) -> None:
    inside_us = NOON_US - 1
    assert make().matches(inside_us, outside_us, NOON_US)
    assert not make().matches(outside_us, inside_us, NOON_US)
    assert not make(last_modified=True).matches(inside_us, outside_us, NOON_US)
    assert make(last_modified=True).matches(outside_us, inside_us, NOON_US)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TemporalFilter.before(datetime(2024, 5, 1)), "moment: 2024-05-01T00:00:00 has no"),
        (lambda: TemporalFilter.after("2024-05-01"), "moment: expected an aware datetime"),
        (lambda: TemporalFilter.between(datetime(2024, 5, 1), NOON), "start: "),
        (lambda: TemporalFilter.between(NOON, None), "end: expected an aware datetime"),
        (lambda: TemporalFilter.between(NOON, NOON - timedelta(1)), "end: .* is before"),
        (lambda: TemporalFilter.within_last(3600), "duration: expected a timedelta, got int"),
        (lambda: TemporalFilter.within_last(-timedelta(1)), "duration: cannot be negative"),
    ],
)
def test_what_names_no_time_is_refused(make: Any, message: str) -> None:
    with pytest.raises(InvalidInputError, match=f"^{message}"):
        make()


def test_the_repr_is_how_it_was_made() -> None:
    assert repr(TemporalFilter.before(NOON)) == "TemporalFilter.before(2024-05-01T12:00:00+00:00)"
    assert repr(TemporalFilter.after(NOON)) == "TemporalFilter.after(2024-05-01T12:00:00+00:00)"
    assert repr(TemporalFilter.between(NOON, NOON, last_modified=True)) == (
        "TemporalFilter.between(2024-05-01T12:00:00+00:00, 2024-05-01T12:00:00+00:00, "
        "last_modified=True)"
    )
    assert repr(TemporalFilter.within_last(timedelta(hours=1))) == (
        "TemporalFilter.within_last(datetime.timedelta(seconds=3600))"
    )
