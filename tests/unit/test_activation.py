"""Base-level activation: the equation itself while all times are known, Petrov's approximation of
it after that."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.access.activation import AGE_SECONDS_MIN, base_level
from engramdb.access.table import NO_ACCESS, RECENT, Accesses, AccessTable
from engramdb.errors import InvalidInputError

NOW_US = 1_700_000_000_000_000
DAY_S = 86_400.0

ages_us = st.integers(-(10**7), 10**15)
histories = st.lists(st.lists(ages_us, max_size=40), max_size=6)
decays = st.one_of(st.just(0.5), st.just(1.0), st.floats(0.05, 3.0))


def accesses_of(histories: list[list[int]]) -> Accesses:
    """The columns of memories with accesses of these ages, in microseconds."""
    table, keys = AccessTable(), [bytes([i]) * 16 for i in range(len(histories))]
    for key, ages in zip(keys, histories, strict=True):
        if ages:
            table.add([key] * len(ages), NOW_US - np.array(ages, np.int64))
    return table.take(keys)


def seconds(ages: list[int]) -> list[float]:
    return sorted(max(age / 1e6, AGE_SECONDS_MIN) for age in ages)


def by_the_book(ages: list[int], decay: float) -> float:
    """The equations as they are printed, with a loop."""
    if not ages:
        return -math.inf
    sorted_s = seconds(ages)
    total = sum(age**-decay for age in sorted_s[:RECENT])
    n, k = len(sorted_s), RECENT
    if n > k:
        t_n, t_k = sorted_s[-1], sorted_s[k - 1]
        if t_n - t_k < 1e-3 * t_k:  # the quotient as printed loses its digits
            total += (n - k) * ((t_n + t_k) / 2) ** -decay
        elif decay == 1.0:
            total += (n - k) * math.log(t_n / t_k) / (t_n - t_k)
        else:
            e = 1.0 - decay
            total += (n - k) * (t_n**e - t_k**e) / (e * (t_n - t_k))
    return math.log(total)


@settings(deadline=None, max_examples=300)
@given(histories, decays)
def test_it_is_the_equation_of_the_book(histories: list[list[int]], decay: float) -> None:
    levels = base_level(*accesses_of(histories), NOW_US, decay)
    assert levels.dtype == np.float64 and levels.shape == (len(histories),)
    for level, ages in zip(levels.tolist(), histories, strict=True):
        assert level == pytest.approx(by_the_book(ages, decay), rel=1e-5, abs=1e-5)


@settings(deadline=None, max_examples=100)
@given(st.lists(ages_us, min_size=1, max_size=RECENT))
def test_up_to_ten_accesses_it_is_exact(ages: list[int]) -> None:
    exact = math.log(sum(age**-0.5 for age in seconds(ages)))
    assert base_level(*accesses_of([ages]), NOW_US)[0] == pytest.approx(exact, rel=1e-12, abs=1e-12)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(10**6, 10**15), min_size=1, max_size=40), st.integers(10**6, 10**15))
def test_the_approximation_lies_between_its_bounds(ages: list[int], extra: int) -> None:
    """Those of which the time is not known are at most as young as the tenth, and at least as old
    as the first."""
    known = seconds(ages)
    others = max(len(ages) - RECENT, 0)
    recent = sum(age**-0.5 for age in known[:RECENT])
    low = math.log(recent + others * known[-1] ** -0.5)
    high = math.log(recent + others * known[min(RECENT, len(known)) - 1] ** -0.5)
    level = base_level(*accesses_of([ages]), NOW_US)[0]
    assert low - 1e-9 <= level <= high + 1e-9
    assert base_level(*accesses_of([ages]), NOW_US + extra)[0] <= level + 1e-12, "it decays"


def exact_and_approximate(ages_s: np.ndarray[tuple[int], np.dtype[np.float64]]) -> float:
    """By how much the approximation is too high."""
    ages = (ages_s * 1e6).astype(np.int64).tolist()
    exact = math.log(sum(age**-0.5 for age in seconds(ages)))
    return float(base_level(*accesses_of([ages]), NOW_US)[0]) - exact


def test_the_error_is_what_the_docstring_says() -> None:
    rng = np.random.default_rng(20)
    even, bursts = [], []
    for _ in range(400):
        n = int(10 ** rng.uniform(math.log10(11), math.log10(2000)))
        span_s = 10 ** rng.uniform(2, 7.5)
        even.append(exact_and_approximate(rng.uniform(0, span_s, n)))
        starts = 10 ** rng.uniform(2, 7.5, rng.integers(1, max(2, n // 5) + 1))
        bursts.append(
            exact_and_approximate(starts[rng.integers(0, len(starts), n)] + rng.exponential(300, n))
        )
    assert np.abs(even).mean() < 0.03 and np.abs(even).max() < 0.2
    assert -1.5 < np.mean(bursts) < -0.5 and np.min(bursts) > -3.5 and np.max(bursts) < 0.2


def test_never_accessed_is_minus_infinity() -> None:
    levels = base_level(*accesses_of([[], [10**6]]), NOW_US)
    assert levels.tolist() == [-math.inf, 0.0]
    none = AccessTable().take([])
    assert base_level(*none, NOW_US).shape == (0,)


def test_an_access_of_this_moment_or_of_the_future_counts_as_one_second_old() -> None:
    levels = base_level(*accesses_of([[0], [-(10**12)], [999_999], [10**6], [2 * 10**6]]), NOW_US)
    assert levels[:4].tolist() == [0.0] * 4 and levels[4] < 0
    many = base_level(*accesses_of([[0] * 1000, [-(10**12)] * 1000]), NOW_US)
    assert many == pytest.approx(math.log(1000))


def test_more_and_later_is_higher() -> None:
    hour, day = int(3600e6), int(DAY_S * 1e6)
    levels = base_level(*accesses_of([[day], [hour], [hour, day], [hour] * 3 + [day]]), NOW_US)
    assert (np.diff(levels) > 0).all()


@pytest.mark.parametrize("decay", [0, -1, math.nan, math.inf, "0.5", None, True])
def test_the_decay_is_checked(decay: object) -> None:
    with pytest.raises(InvalidInputError, match="decay"):
        base_level(*accesses_of([[1]]), NOW_US, decay)  # type: ignore[arg-type]


def test_counts_without_known_times_are_spread_evenly_until_now() -> None:
    """What Accesses.until() leaves where all known times are later."""
    first = NOW_US - 100 * 10**6
    none = np.full((1, RECENT), NO_ACCESS, np.int64)
    level = base_level(np.array([3], np.uint64), np.array([first]), none, NOW_US)[0]
    t_n, t_k = 100.0, AGE_SECONDS_MIN
    assert level == pytest.approx(math.log(3 * (t_n**0.5 - t_k**0.5) / (0.5 * (t_n - t_k))))
