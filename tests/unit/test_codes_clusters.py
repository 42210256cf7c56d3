"""Candidates: whatever is hidden and whatever bounds come from elsewhere, they are visible rows,
ascending, each once; at least as many as are wanted; and with an effort that misses nothing, all
that an exact answer needs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engramdb.index.codes.clusters import NO_BOUND, ClusterCodes, Effort
from tests.unit.codes_support import (
    EVERYTHING,
    Floats32,
    Rows,
    codes_of,
    cosines_of,
    file_codes_of,
    gaussian,
    mixture,
    planned,
    questions,
    unit,
)

_TIE = 2e-6  # of float32 products


def corpus(kind: str, rows: int, dimension: int, seed: int) -> Floats32:
    random = np.random.default_rng(seed)
    if kind == "mixture":
        return mixture(rows, dimension, seed)
    if kind == "grid":  # duplicates, opposites, and many that are equally near
        return unit(random.integers(-1, 2, (rows, dimension)))
    if kind == "one":
        return np.tile(gaussian(1, dimension, seed), (rows, 1))
    return gaussian(rows, dimension, seed)


corpora = st.builds(
    corpus,
    st.sampled_from(["gaussian", "mixture", "grid", "one"]),
    st.integers(1, 600),
    st.sampled_from([2, 3, 17, 48, 64]),
    st.integers(0, 2**31),
)
bounds = st.one_of(st.just(NO_BOUND), st.floats(-1, 1, width=32))
efforts = st.builds(
    Effort,
    st.tuples(st.floats(0, 4), st.floats(0, 4)),
    st.floats(-1, 1),
    st.floats(0, 2),
    st.floats(0, 4),
    st.floats(0, 2),
    st.integers(1, 300),
    st.floats(0, 4),
    st.floats(0, 2),
)
shares = st.sampled_from([None, 0.0, 0.02, 0.5, 1.0])


def query_for(vectors: Floats32, random: np.random.Generator) -> Floats32:
    if random.random() < 0.3:
        return vectors[random.integers(len(vectors))]
    return questions(vectors, 1, int(random.integers(2**31)))[0]


def mask_of(share: float | None, rows: int, random: np.random.Generator) -> npt.NDArray[np.bool_]:
    return np.ones(rows, np.bool_) if share is None else random.random(rows) < share


def needed(
    cosines: npt.NDArray[np.float64], mask: npt.NDArray[Any], limit: int, border: float
) -> Rows:
    """The rows of the exact answer; of those that are as near as the last, none has to be there."""
    seen = np.where(mask, cosines, -np.inf)
    last = np.sort(seen)[::-1][: limit + 1][-1] if len(seen) > limit else -np.inf
    return np.flatnonzero(seen > max(last, border) + _TIE)


@settings(max_examples=150, deadline=None)
@given(corpora, st.integers(1, 120), bounds, bounds, shares, st.integers(0, 2**31))
@example(corpus("one", 300, 3, 0), 10, NO_BOUND, NO_BOUND, None, 0)
def test_an_effort_without_end_misses_nothing(
    vectors: Floats32, limit: int, known: float, floor: float, share: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    codes, query = codes_of(vectors), query_for(vectors, random)
    mask, border = mask_of(share, len(vectors), random), max(known, floor)
    wanted = needed(cosines_of(vectors, query), mask, limit, border)
    visible = None if share is None else mask.__getitem__
    rows = codes.candidates(query, limit, EVERYTHING, known, floor, visible)
    assert set(wanted.tolist()) <= set(rows.tolist())
    assert rows.dtype == np.int64 and (np.diff(rows) > 0).all() and mask[rows].all()
    some = np.flatnonzero(mask)
    among = codes.among(query, limit, EVERYTHING, known, floor, some)
    assert set(wanted.tolist()) <= set(among.tolist()) <= set(some.tolist())
    assert (np.diff(among) > 0).all()


@settings(max_examples=150, deadline=None)
@given(corpora, st.integers(1, 120), efforts, shares, st.integers(0, 2**31))
def test_any_effort_finds_as_many_as_are_wanted(
    vectors: Floats32, limit: int, effort: Effort, share: float | None, seed: int
) -> None:
    random = np.random.default_rng(seed)
    codes, query = codes_of(vectors), query_for(vectors, random)
    mask = mask_of(share, len(vectors), random)
    visible = None if share is None else mask.__getitem__
    rows = codes.candidates(query, limit, effort, NO_BOUND, NO_BOUND, visible)
    assert len(rows) >= min(limit, int(mask.sum()))
    assert (np.diff(rows) > 0).all() and mask[rows].all()
    among = codes.among(query, limit, effort, NO_BOUND, NO_BOUND, np.flatnonzero(mask))
    assert len(among) >= min(limit, int(mask.sum())) and mask[among].all()


def test_a_bound_from_elsewhere_leaves_less_to_look_at() -> None:
    vectors = mixture(4000, 40)
    codes, query = codes_of(vectors), questions(vectors, 1)[0]
    effort = Effort((2.0, 2.0), 0.0, 0.2, 3.0, 0.4, 256)
    cosines = cosines_of(vectors, query)
    alone = codes.candidates(query, 10, effort, NO_BOUND, NO_BOUND, None)
    third = float(np.sort(cosines)[-3])
    for known, floor in ((third, NO_BOUND), (NO_BOUND, third)):
        rows = codes.candidates(query, 10, effort, known, floor, None)
        assert len(rows) < len(alone) < 1000
        assert set(np.flatnonzero(cosines >= third).tolist()) <= set(rows.tolist())
    assert not len(codes.candidates(query, 10, effort, 1.1, NO_BOUND, None))


def test_codes_look_at_a_small_part_and_find_nearly_all() -> None:
    vectors = mixture(6000, 64)
    codes = codes_of(vectors)
    effort, looked, found = Effort((2.0, 2.0), 0.0, 0.3, 3.0, 0.4, 256), 0, 0
    for query in questions(vectors, 50):
        rows = codes.candidates(query, 10, effort, NO_BOUND, NO_BOUND, None)
        looked += len(rows)
        best = np.argsort(-cosines_of(vectors, query))[:10]
        found += len(np.intersect1d(rows, best))
    assert looked < 50 * 600 and found > 0.97 * 500


class Touched:
    """What a file of codes is mapped as, and which of its rows were checked."""

    def __init__(self, codes: ClusterCodes) -> None:
        self.rows = np.zeros(codes.rows, np.bool_)
        self.is_checked = False

    def check(self, first: int, last: int) -> None:
        self.rows[first:last] = True

    def check_all(self) -> None:
        self.rows[:] = True


def test_what_is_mapped_is_checked_before_it_is_read() -> None:
    vectors = mixture(3000, 16)
    codes, query = codes_of(vectors), questions(vectors, 1)[0]
    codes.mapped = touched = Touched(codes)  # type: ignore[assignment]
    effort = Effort((0.0, 0.0), 0.0, 0.5, 0.0, 0.5, 64)
    rows = codes.candidates(query, 5, effort, NO_BOUND, NO_BOUND, None)
    assert touched.rows[codes.places[rows]].all() and not touched.rows.all()
    codes.among(query, 5, effort, NO_BOUND, NO_BOUND, np.arange(0, 3000, 100))
    assert touched.rows.all()
    touched.rows[:] = False
    codes.check(lambda: None)
    assert touched.rows.all()


# What a file makes of them


def test_a_file_is_searched_by_codes_if_that_is_quicker_than_a_scan() -> None:
    vectors = gaussian(3000, 8)
    for seconds, is_quicker in ((0.5, True), (2.0, False), (math.inf, False)):
        file = file_codes_of(vectors, calibrated=planned(EVERYTHING, seconds))
        for limit in (1, 10, 11, 100):
            assert (file.plan(limit) is not None) == is_quicker
        assert file.plan(101) is None, "that many were never tried"
    ten, hundred = file_codes_of(vectors).plan(10), file_codes_of(vectors).plan(11)
    assert ten is not None and hundred is not None and (ten.limit, hundred.limit) == (10, 100)
    assert file_codes_of(vectors, calibrated=planned(EVERYTHING)[:1]).plan(11) is None
    scanned = file_codes_of(vectors, None)
    rows = np.arange(2000)
    assert scanned.plan(10) is None
    assert scanned.candidates(vectors[0], 10, known=-2.0, floor=-2.0, visible=None) is None
    assert scanned.among(vectors[0], 10, rows, known=-2.0, floor=-2.0) is None


def test_few_rows_are_all_looked_at() -> None:
    file = file_codes_of(gaussian(3000, 8))
    assert file.among(gaussian(1, 8)[0], 10, np.arange(310), known=-2.0, floor=-2.0) is None


@pytest.mark.parametrize("seconds", [0.0, 1e-4, 0.5], ids=["mask", "either", "scan"])
@pytest.mark.parametrize("count", [400, 1500, 2990])
def test_rows_without_codes_are_always_candidates(seconds: float, count: int) -> None:
    vectors = gaussian(3000, 256)
    vectors[[5, 70, 2999]] = 0
    aside = [5, 70, 2999]
    plans = planned(Effort((4, 4), 0.0, 0, 0, 0, 9), seconds)
    file = file_codes_of(vectors, aside=aside, calibrated=plans)
    query = gaussian(1, 256, seed=2)[0]
    rows = file.candidates(query, 3, known=0.99, floor=NO_BOUND, visible=None)
    assert rows is not None and rows.tolist() == [5, 70, 2999]
    mask = np.arange(3000) != 70
    rows = file.candidates(query, 3, known=0.99, floor=NO_BOUND, visible=mask.__getitem__)
    assert rows is not None and rows.tolist() == [5, 2999]
    some = np.union1d(np.random.default_rng(1).permutation(2999)[:count], [2999])
    some = some[some != 70]
    found = file.among(query, 3, some, known=NO_BOUND, floor=NO_BOUND)
    assert found is not None or (count, seconds) != (1500, 0.0)
    if found is not None:
        missing = set(aside) & set(some.tolist()) - set(found.tolist())
        assert not missing and set(found.tolist()) <= set(some.tolist())
        assert len(found) >= 3 and (np.diff(found) > 0).all()


def test_both_ways_to_look_among_some_rows_are_taken() -> None:
    vectors = mixture(6000, 200)
    query, some = questions(vectors, 1)[0], np.arange(0, 6000, 2)
    best = some[np.argsort(-cosines_of(vectors, query)[some])[:10]]
    effort = Effort((2.0, 2.0), 0.0, 0.3, 3.0, 0.5, 256)
    calls: list[str] = []
    for seconds in (0.0, 1e-3):
        file = file_codes_of(vectors, calibrated=planned(effort, seconds))
        for name in ("candidates", "among"):
            real = getattr(file.codes, name)
            setattr(
                file.codes,
                name,
                lambda *given, name=name, real=real: calls.append(name) or real(*given),
            )
        found = file.among(query, 10, some, known=NO_BOUND, floor=NO_BOUND)
        assert found is not None and len(found) < len(some)
        assert len(np.intersect1d(found, best)) >= 9
    assert calls == ["candidates", "among"]


def test_other_metrics_agree_if_all_vectors_are_equally_long() -> None:
    vectors = gaussian(30, 4)
    assert file_codes_of(vectors).serve_all(0.5)
    assert file_codes_of(vectors, shortest=7.0, longest=7.0).serve_all(1.0)
    assert not file_codes_of(vectors, longest=1.01).serve_all(1.0)
    assert not file_codes_of(vectors, shortest=7.0, longest=7.0001).serve_all(0.01)
