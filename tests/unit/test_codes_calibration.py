"""Calibration: what it promises of queries that it has seen holds for those that it has not; and it
does not promise what codes cannot do."""

from __future__ import annotations

import math
from itertools import count, cycle

import numpy as np
import pytest

from engramdb.index.codes import calibration, cluster_calibration
from engramdb.index.codes.calibration import (
    LIMITS,
    Calibrated,
    Trial,
    likely_queries,
    sample_size,
    trial_of,
)
from engramdb.index.codes.cluster_calibration import calibrate_clusters
from engramdb.index.codes.clusters import NO_BOUND, ClusterCodes
from tests.unit.codes_support import (
    Floats32,
    Rows,
    codes_of,
    cosines_of,
    gaussian,
    mixture,
    no_pause,
    take_of,
    unit,
)

_TIE = 2e-6


def trial(vectors: Floats32, *samples: Floats32) -> Trial:
    """With a clock that ticks at every look, so that nothing depends on the machine."""
    ticks = count()
    return trial_of(len(vectors), take_of(vectors), samples, no_pause, lambda: float(next(ticks)))


def likely(vectors: Floats32, size: int, seed: int) -> Floats32:
    """Half of them rows, half of them far away, two and two."""
    take = take_of(vectors)
    near, far = likely_queries(len(vectors), take, size, np.random.default_rng(seed))
    queries = far.copy()
    first = np.arange(size) % 4 < 2
    queries[first] = np.resize(near, (int(first.sum()), vectors.shape[1]))
    return queries


def recall_of(
    codes: ClusterCodes, vectors: Floats32, queries: Floats32, plan: Calibrated, limit: int
) -> tuple[float, float]:
    """What share of the neighbours is found, and of what share of the rows."""
    assert plan.effort is not None
    found = looked = 0
    for query in queries:
        rows = codes.candidates(query, limit, plan.effort, NO_BOUND, NO_BOUND, None)
        cosines = cosines_of(vectors, query)
        last = np.partition(cosines, -limit)[-limit]
        found += min(limit, int(np.count_nonzero(cosines[rows] >= last - _TIE)))
        looked += len(rows)
    return found / (limit * len(queries)), looked / (len(vectors) * len(queries))


@pytest.mark.parametrize("target", [0.9, 0.99])
@pytest.mark.parametrize("kind", ["mixture", "gaussian"])
def test_queries_that_it_has_not_seen_find_what_is_promised(kind: str, target: float) -> None:
    vectors = mixture(5000, 56) if kind == "mixture" else gaussian(5000, 56)
    codes = codes_of(vectors)
    sample = likely(vectors, sample_size(target), 1)
    plans = calibrate_clusters(trial(vectors, sample), codes, target)
    assert [plan.limit for plan in plans] == list(LIMITS)
    held_out = likely(vectors, 200, 2)
    for plan in plans:
        assert plan.serves and plan.recall.lower >= target and plan.seconds == 1.0
        assert plan.recall.queries == len(sample) // 2
        for limit in (plan.limit, plan.limit // 2):
            recall, looked = recall_of(codes, vectors, held_out, plan, limit)
            assert recall >= target - 0.01
            if kind == "mixture" and target == 0.9:
                assert looked < 0.2


def test_all_samples_have_to_meet_the_target_together_and_each_on_average() -> None:
    vectors = mixture(3000, 20)
    of_rows = vectors[:192]
    of_others = likely_queries(3000, take_of(vectors), 192, np.random.default_rng(1))[1]
    both = trial(vectors, of_rows, of_others)

    def search(query: Floats32, known: float) -> Rows:
        """All rows, for a query that is one, else none."""
        is_row = cosines_of(vectors, query).max() > 1 - 1e-6
        return np.arange(3000) if is_row else np.arange(0)

    alone, _, is_met = trial(vectors, of_rows).run(search, 10, 0.99)
    assert alone.mean == 1.0 and is_met
    recall, _, is_met = both.run(search, 10, 0.3)
    assert 0.4 < recall.mean < 0.6 and recall.lower < recall.mean
    assert not is_met, "0.3 is met by all together, and not by the others"
    slow = trial_of(3000, take_of(vectors), [of_rows, of_others], no_pause, cycle((1, 3)).__next__)
    assert slow.run(search, 10, 0.99)[1] == 2


def test_bounds_from_elsewhere_are_tried_too() -> None:
    vectors = mixture(3000, 20)
    one, bounds = trial(vectors, vectors[:192]), []

    def search(query: Floats32, known: float) -> Rows:
        bounds.append(known)
        return np.flatnonzero(cosines_of(vectors, query) >= known - _TIE)

    assert one.run(search, 10, 0.99)[0].mean == 1.0
    given = [bound for bound in bounds if bound != NO_BOUND]
    assert len(bounds) == 96 and len(given) == 24 and all(0 < bound < 1.01 for bound in given)
    recall, _, _ = one.run(
        lambda query, known: np.arange(3000 if known == NO_BOUND else 0), 10, 0.99
    )
    assert 0.75 < recall.mean < 1.0


def test_what_cannot_be_shown_is_not_promised() -> None:
    vectors = mixture(2500, 16)
    codes = codes_of(vectors)
    too_few = trial(vectors, likely(vectors, 20, 1))
    assert not calibrate_clusters(too_few, codes, 0.99)[0].serves, "ten queries show nothing"
    (ten, hundred) = calibrate_clusters(trial(vectors, likely(vectors, 192, 1)), codes, 0.99999)
    assert not ten.serves and not hundred.serves and ten.seconds == math.inf


def test_codes_that_miss_too_much_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Efforts that are too small whatever they are multiplied with: every search misses."""
    vectors = gaussian(3000, 56)
    codes = codes_of(vectors)

    def needs(*_: object) -> cluster_calibration._Needs:
        return cluster_calibration._Needs(*[np.zeros(5, np.float32)] * 7)

    monkeypatch.setattr(cluster_calibration, "_needs", needs)
    plan = calibrate_clusters(trial(vectors, likely(vectors, 192, 1)), codes, 0.99)[0]
    assert not plan.serves and 0 < plan.recall.mean < 0.9


@pytest.mark.parametrize("target", [0.01, 0.3, 0.8])
def test_a_low_target_may_miss_the_best_but_gives_as_many_as_are_wanted(target: float) -> None:
    vectors = mixture(3000, 56)
    codes = codes_of(vectors)
    plans = calibrate_clusters(trial(vectors, likely(vectors, 192, 1)), codes, target)
    for plan in plans:
        assert plan.effort is not None
        assert min(*plan.effort.reach, *plan.effort[2:]) >= 0
        for query in likely(vectors, 50, 3):
            rows = codes.candidates(query, plan.limit, plan.effort, NO_BOUND, NO_BOUND, None)
            assert len(rows) >= plan.limit


@pytest.mark.parametrize("rows", [1, 150, 200, 1999, 2000])
def test_only_limits_that_are_small_beside_the_rows_are_calibrated(rows: int) -> None:
    vectors = gaussian(rows, 5)
    plans = calibrate_clusters(trial(vectors, likely(vectors, 64, 1)), codes_of(vectors), 0.8)
    assert [plan.limit for plan in plans] == [each for each in LIMITS if 20 * each <= rows]


@pytest.mark.parametrize(
    "vectors",
    [np.tile(gaussian(1, 60), (2500, 1)), unit(np.sign(gaussian(2500, 3))), np.zeros((2500, 9))],
    ids=["one vector", "eight vectors", "zeros"],
)
def test_equal_vectors_are_found_whichever_of_them(vectors: Floats32) -> None:
    vectors = vectors.astype(np.float32)
    codes, asked = codes_of(vectors), likely(vectors, 192, 1)
    for plan in calibrate_clusters(trial(vectors, asked), codes, 0.99):
        assert plan.effort is not None and np.isfinite(plan.effort.reach).all()
        assert recall_of(codes, vectors, likely(vectors, 40, 2), plan, plan.limit)[0] == 1.0


def test_likely_queries_are_rows_and_vectors_near_rows() -> None:
    vectors = mixture(2000, 40)
    take = take_of(vectors)
    near, far = likely_queries(2000, take, 100, np.random.default_rng(1))
    assert (len(near), len(far)) == (50, 100)
    assert min(cosines_of(vectors, query).max() for query in near) > 1 - 1e-6
    assert np.linalg.norm(far, axis=1) == pytest.approx(1, abs=1e-6)
    nearest = np.array([cosines_of(vectors, query).max() for query in far])
    assert nearest.min() > 0.4 and np.median(nearest) < 0.95


def test_a_higher_target_takes_more_queries_to_be_shown() -> None:
    sizes = [sample_size(target) for target in (0.1, 0.9, 0.99, 0.995, 0.999, 0.9999, 1 - 1e-12)]
    assert sizes == sorted(sizes) and sizes[0] == calibration._SAMPLE_MIN
    assert sizes[-1] == calibration._SAMPLE_MAX
