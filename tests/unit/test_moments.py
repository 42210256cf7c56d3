"""Moments: aware datetimes and whole microseconds, exact in both directions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramdb.errors import InvalidInputError
from engramdb.model.moments import from_microseconds, now, now_us, to_microseconds


@given(st.datetimes(timezones=st.just(UTC)))
def test_every_moment_comes_back_exactly(moment: datetime) -> None:
    assert from_microseconds(to_microseconds(moment, "when")) == moment


@pytest.mark.parametrize(
    ("moment", "moment_us"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 0, 1, tzinfo=UTC), 1),
        (datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC), -1),
        (datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))), 0),
        (datetime(2255, 6, 5, 23, 47, 34, 740_993, tzinfo=UTC), 2**53 + 1),
    ],
)
def test_moments_are_counted_from_the_epoch_in_utc(moment: datetime, moment_us: int) -> None:
    assert to_microseconds(moment, "when") == moment_us


@pytest.mark.parametrize("offset", [timedelta(hours=14), timedelta(hours=-12), timedelta(0)])
@pytest.mark.parametrize("local", [datetime.min, datetime.max])
def test_the_ends_of_time_exist_at_every_offset(local: datetime, offset: timedelta) -> None:
    moment = local.replace(tzinfo=timezone(offset))
    offset_us = offset // timedelta(microseconds=1)
    restored = from_microseconds(to_microseconds(moment, "when"), offset_us)
    assert (restored.replace(tzinfo=None), restored.utcoffset()) == (local, offset)


def test_a_naive_datetime_is_refused_by_the_name_of_the_argument() -> None:
    with pytest.raises(InvalidInputError, match=r"^when: 2024-05-01T00:00:00 has no timezone"):
        to_microseconds(datetime(2024, 5, 1), "when")


@pytest.mark.parametrize("wrong", [None, 1_700_000_000, "2024-05-01", date(2024, 5, 1)])
def test_only_datetimes_are_moments(wrong: object) -> None:
    with pytest.raises(InvalidInputError, match=r"^when: expected an aware datetime, got"):
        to_microseconds(wrong, "when")


def test_now_is_aware_and_does_not_run_backwards() -> None:
    first, second, third = now_us(), now(), now_us()
    assert second.tzinfo is UTC
    assert first <= to_microseconds(second, "now") <= third
