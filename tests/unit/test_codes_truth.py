"""What recall is measured against, and what is claimed of it."""

from __future__ import annotations

import numpy as np
import pytest

from engramdb.index.codes import truth
from engramdb.index.codes.recall import Recall, measured
from engramdb.index.codes.truth import nearest_rows
from tests.unit.codes_support import Floats32, cosines_of, gaussian, mixture, no_pause, take_of


@pytest.mark.parametrize("count", [1, 10, 300])
@pytest.mark.parametrize("at_once", [2**19, 1])
def test_the_nearest_rows_are_those_of_a_full_sort(
    count: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(truth, "_SCORES_AT_ONCE", at_once)
    monkeypatch.setattr(truth, "_WAITING_MAX", 100 if at_once == 1 else 2**19)
    vectors, queries = mixture(300, 9), gaussian(7, 9, seed=3)
    rows, cosines = nearest_rows(300, take_of(vectors), queries, count, no_pause)
    assert rows.shape == cosines.shape == (7, count)
    for query, found, scores in zip(queries, rows, cosines, strict=True):
        expected = cosines_of(vectors, query)
        assert scores == pytest.approx(np.sort(expected)[::-1][:count], abs=1e-6)
        assert scores == pytest.approx(expected[found], abs=1e-6)
        assert len(set(found.tolist())) == count


def test_of_rows_that_are_equally_near_the_first_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "_SCORES_AT_ONCE", 1)
    monkeypatch.setattr(truth, "_WAITING_MAX", 10)
    vectors = np.tile(np.array([[1, 0], [0, 1]], np.float32), (50, 1))
    rows, cosines = nearest_rows(100, take_of(vectors), vectors[:2], 4, no_pause)
    assert rows.tolist() == [[0, 2, 4, 6], [1, 3, 5, 7]] and (cosines == 1).all()


def wilson(mean: float, size: float) -> float:
    """The lower end, as the textbooks have it."""
    z = 1.6448536269514722
    middle = mean + z * z / (2 * size)
    half = z * np.sqrt(mean * (1 - mean) / size + z * z / (4 * size * size))
    return float((middle - half) / (1 + z * z / size))


def test_the_lower_end_is_that_of_independent_trials_if_they_look_like_such() -> None:
    found = np.array([10, 9, 10, 10, 9, 10, 9, 10])
    assert measured(found, np.full(8, 10)) == Recall(77 / 80, pytest.approx(wilson(77 / 80, 80)), 8)
    perfect = measured(np.full(96, 10), np.full(96, 10))
    assert perfect.mean == 1.0 and perfect.lower == pytest.approx(wilson(1.0, 960))
    nothing = measured(np.zeros(5, np.int64), np.full(5, 10))
    assert (nothing.mean, nothing.lower) == (0.0, pytest.approx(0.0))


def test_queries_that_find_all_or_nothing_count_as_one_trial_each() -> None:
    found = np.array([10] * 96 + [0] * 4)
    recall = measured(found, np.full(100, 10))
    assert recall.mean == 0.96
    assert recall.lower == pytest.approx(wilson(0.96, 100), abs=0.002)
    assert recall.lower < wilson(0.96, 1000) - 0.02


def test_nothing_asked_says_nothing() -> None:
    assert measured(np.zeros(0, np.int64), np.zeros(0, np.int64)).lower == 0.0


def coverage(draw: Floats32, wanted: int, true: float) -> float:
    """In how many of the measurements (n, queries) the lower end lies below the truth."""
    each = np.full(draw.shape[1], wanted)
    lowers = [measured(row, each).lower for row in draw]
    return float(np.mean(np.array(lowers) <= true))


@pytest.mark.parametrize("true", [0.8, 0.95, 0.99])
@pytest.mark.parametrize("correlated", [False, True])
def test_it_holds_in_about_95_of_100_measurements(true: float, correlated: bool) -> None:
    """Also if what one query misses it misses together (a beta-binomial: the variance between
    queries is about three times that of independent trials)."""
    random = np.random.default_rng(8)
    size = (2000, 200)
    chances = np.full(size, true)
    if correlated:
        strength = 3.5
        chances = random.beta(true * strength, (1 - true) * strength, size)
    draw = random.binomial(10, chances)
    if correlated:
        assert draw.var() > 2 * 10 * true * (1 - true)
    assert 0.92 <= coverage(draw, 10, true) <= 1.0
    if not correlated:
        assert coverage(draw, 10, true) < 0.995, "it could promise more"
