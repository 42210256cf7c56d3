"""Search by inner product and by Euclidean distance, against sums worked out one by one.

As with cosines, the answer must be a function of the visible vectors alone: however they are spread
over runs, and whether one query is asked or many.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engramdb.index import exact, top
from engramdb.index.exact import search, search_among, search_many, search_many_among
from engramdb.index.metric import DOT, EUCLIDEAN, METRICS, Metric
from engramdb.index.top import Hit
from engramdb.lsm.vector_file import extreme, inverse, norms_of

SEQ = 5
ANY = -math.inf
BITS = 2.0**-40
Vectors = npt.NDArray[np.float32]


class Run:
    """Rows of a few vectors, some of them hidden at SEQ."""

    file = 0

    def __init__(self, matrix: Any, keys: Sequence[bytes], hidden: Sequence[int] = ()) -> None:
        self.matrix = np.ascontiguousarray(matrix, np.float32)
        self.rows, self.dimension = self.matrix.shape
        self.all_keys, self.hidden_rows = list(keys), sorted(hidden)
        norms = norms_of(self.matrix)
        self.inverse_norms, self.extreme_rows = inverse(norms), extreme(norms)

    def product(self, query: Vectors) -> Vectors:
        return self.matrix @ query

    def take(self, rows: npt.NDArray[np.int64]) -> Vectors:
        return self.matrix[rows]

    def hidden(self, seq: int) -> npt.NDArray[np.int64] | None:
        assert seq == SEQ
        return np.array(self.hidden_rows, np.int64) if self.hidden_rows else None

    def rows_of(self, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        raise NotImplementedError("a search does not ask")

    def keys(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        return [self.all_keys[row] for row in rows]

    def owners(self) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.uint64]]:
        raise NotImplementedError("a search does not ask")

    def visible(self) -> npt.NDArray[np.int64]:
        return np.setdiff1d(np.arange(self.rows), np.array(self.hidden_rows, np.int64))


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _run(matrix: Any, first_key: int = 0, hidden: Sequence[int] = ()) -> Run:
    return Run(matrix, [_key(first_key + row) for row in range(len(matrix))], hidden)


def _truth(row: Vectors, query: Vectors, metric: Metric) -> tuple[float, float]:
    """The score, from exact sums, and by how much rounding to 40 bits may change it."""
    a, b = row.astype(np.float64), query.astype(np.float64)
    if metric == DOT:
        lengths = math.sqrt(math.fsum(a * a)) * math.sqrt(math.fsum(b * b))
        return math.fsum(a * b), 2 * BITS * lengths
    distance = math.sqrt(math.fsum((a - b) ** 2))
    return -distance, 2 * BITS * distance


def _assert_best(
    got: list[Hit], runs: Sequence[Run], query: Vectors, limit: int, least: float, metric: Metric
) -> None:
    """In order, right up to the rounding, and nothing that is better was left out."""
    truth = {
        run.all_keys[row]: _truth(run.matrix[row], query, metric)
        for run in runs
        for row in run.visible().tolist()
    }
    assert got == sorted(got, key=lambda hit: (-hit[1], hit[0]))
    assert len({key for key, _ in got}) == len(got) <= limit
    for key, score in got:
        assert abs(score - truth[key][0]) <= truth[key][1]
        assert score >= least and str(score) != "-0.0"
    full = len(got) == min(limit, len(truth))
    bound = got[-1][1] if full and got else least
    found = dict(got)
    for key, (score, error) in truth.items():
        if key not in found and limit > 0:
            assert score - error <= bound, "a better one was left out"


NUMBERS = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, 0.5, 3.0])
SCALES = st.sampled_from([1.0, 1.0, 1.0, 3.0, 1e-3, 1e-18, 1e18, 1e-40, 1e-30, 1e30, 1e37])
LEAST = st.sampled_from([ANY, ANY, -1e300, -10.0, -1.0, -0.0, 0.0, 0.5, 6.0, 1e70])
CLOSE = st.sampled_from([DOT, EUCLIDEAN])


@st.composite
def _vectors(draw: st.DrawFn, dimension: int) -> Vectors:
    numbers = draw(st.lists(NUMBERS, min_size=dimension, max_size=dimension))
    return (np.array(numbers) * draw(SCALES)).astype(np.float32)


@st.composite
def _databases(draw: st.DrawFn) -> tuple[list[Run], Vectors]:
    dimension = draw(st.integers(1, 6))
    sizes = draw(st.lists(st.integers(0, 12), max_size=4))
    keys = draw(st.permutations(range(sum(sizes))))
    runs, used = [], 0
    for size in sizes:
        rows = [draw(_vectors(dimension)) for _ in range(size)]
        hidden = draw(st.sets(st.integers(0, size - 1))) if size else set()
        own = [_key(number) for number in keys[used : used + size]]
        runs.append(Run(np.array(rows, np.float32).reshape(size, dimension), own, sorted(hidden)))
        used += size
    queries = [draw(_vectors(dimension)) for _ in range(draw(st.integers(1, 3)))]
    return runs, np.array(queries, np.float32)


@settings(max_examples=400, deadline=None)
@given(_databases(), st.integers(0, 60), LEAST, CLOSE)
@example(([], np.ones((1, 2), np.float32)), 10, 0.0, DOT)
@example(([_run([[3e-30, 4e-30]])], np.array([[3e-30, 4e-30]], np.float32)), 10, 0.0, EUCLIDEAN)
@example(([_run([[2e38, 2e38], [0, 0]])], np.array([[-2e38, -2e38]], np.float32)), 1, ANY, DOT)
def test_search_finds_what_is_best_by_exact_sums(
    database: tuple[list[Run], Vectors], limit: int, least: float, metric: Metric
) -> None:
    runs, queries = database
    parts = [(run, run.visible()) for run in runs]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        together = search_many(runs, SEQ, queries, limit, least, metric)
        for query, hits in zip(queries, together, strict=True):
            _assert_best(hits, runs, query, limit, least, metric)
            assert search(runs, SEQ, query, limit, least, metric) == hits
            assert search_among(parts, query, limit, least, metric) == hits
        assert search_many_among(parts, queries, limit, least, metric) == together


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 1_500),
    st.sampled_from([2, 3, 17, 64]),
    st.integers(1, 120),
    st.lists(st.floats(0, 1), max_size=4),
    st.sampled_from([0.0, 1e-7, 1e-3, 1.0]),
    st.sampled_from([0.0, 1.0, 1e4]),
    CLOSE,
)
def test_close_vectors_are_ranked_exactly_however_they_are_spread_over_runs(
    seed: int,
    count: int,
    dimension: int,
    limit: int,
    cuts: list[float],
    spread: float,
    offset: float,
    metric: Metric,
) -> None:
    random = np.random.default_rng(seed)
    center = random.standard_normal(dimension) + offset  # common to all: float32 sees little else
    matrix = (center + spread * random.standard_normal((count, dimension))).astype(np.float32)
    matrix *= np.exp(random.choice([0.0, 0.0, 3.0, -8.0]) * random.random((count, 1)))
    hidden = np.flatnonzero(random.random(count) < 0.2).tolist()
    query = (center + 0.1 * random.standard_normal(dimension)).astype(np.float32)
    whole = _run(matrix, 0, hidden)
    edges = [0, *sorted(int(cut * count) for cut in cuts), count]
    runs = [
        _run(matrix[low:high], low, [row - low for row in hidden if low <= row < high])
        for low, high in itertools.pairwise(edges)
    ]
    hits = search([whole], SEQ, query, limit, ANY, metric)
    _assert_best(hits, [whole], query, limit, ANY, metric)
    assert len(hits) == min(limit, count - len(hidden))
    assert search(runs, SEQ, query, limit, ANY, metric) == hits
    assert search(runs[::-1], SEQ, query, limit, ANY, metric) == hits
    assert search_many(runs, SEQ, np.stack([query, -query]), limit, ANY, metric)[0] == hits
    few = [(run, run.visible()[random.random(len(run.visible())) < 0.1]) for run in runs]
    chosen = {key for run, rows in few for key in run.keys(rows)}
    everything = search([whole], SEQ, query, count, ANY, metric)
    expected = [hit for hit in everything if hit[0] in chosen]
    assert search_among(few, query, count, ANY, metric) == expected
    assert search_many_among(few, query[None], count, ANY, metric) == [expected]
    if hits:  # what reaches a threshold exactly is in, and nothing below it
        least = hits[len(hits) // 2][1]
        some = search(runs, SEQ, query, limit, least, metric)
        assert some == [hit for hit in hits if hit[1] >= least]


@pytest.mark.parametrize("metric", [DOT, EUCLIDEAN])
def test_the_float32_scores_are_wrong_by_less_than_their_margins(metric: Metric) -> None:
    random = np.random.default_rng(11)
    for dimension in (2, 64, 384, 4_096):
        matrix = random.standard_normal((200, dimension)) * np.logspace(-14, 14, 200)[:, None]
        matrix = matrix.astype(np.float32)
        run = _run(matrix)
        for scale in (1e-30, 1.0, 1e30):
            for query in (matrix[100] * scale, random.random(dimension) * scale):
                direction = exact.direction_of(query.astype(np.float32), metric)
                found = exact.scores(run, SEQ, direction)
                margins = direction.margins(exact.norms_of(run.inverse_norms))
                right = direction.estimates_from(direction.scores(matrix))
                assert (np.abs(found - right) <= margins).all()


class Wrong(Run):
    """Its products are nearly as wrong as they may be, one way or the other."""

    def product(self, query: Vectors) -> Vectors:
        lengths = np.linalg.norm(self.matrix.astype(np.float64), axis=1)
        signs = np.where(np.arange(self.rows) % 2, 1.0, -1.0)
        errors = 0.8 * (self.dimension + 16) * 2.0**-24 * signs * lengths
        products = self.matrix.astype(np.float64) @ query + errors
        return products.astype(np.float32)


@pytest.mark.parametrize("metric", METRICS)
def test_products_that_are_wrong_by_their_whole_margin_change_nothing(metric: Metric) -> None:
    random = np.random.default_rng(13)
    for spread, far in itertools.product((1e-6, 1e-5, 1e-4), (1.0, 1e-4, 1e4)):
        matrix = np.ones(48) + spread * random.standard_normal((400, 48))
        keys = [_key(row) for row in range(400)]
        query = (far * (np.ones(48) + 0.1 * random.standard_normal(48))).astype(np.float32)
        right, wrong = Run(matrix, keys), Wrong(matrix, keys)
        everything = search([right], SEQ, query, 400, ANY, metric)
        for limit in (1, 3, 10, 200):
            assert search([wrong], SEQ, query, limit, ANY, metric) == everything[:limit]
            least = everything[limit][1]
            assert search([wrong], SEQ, query, 400, least, metric) == [
                hit for hit in everything if hit[1] >= least
            ]


@pytest.mark.parametrize("metric", [DOT, EUCLIDEAN])
def test_the_largest_dimensions_are_ranked_exactly(metric: Metric) -> None:
    random = np.random.default_rng(3)
    for dimension in (4_096, 65_536):
        run = _run(random.standard_normal((60, dimension)) * np.linspace(0.5, 2.0, 60)[:, None])
        query = run.matrix[7] + run.matrix[11]
        hits = search([run], SEQ, query, 5, ANY, metric)
        _assert_best(hits, [run], query, 5, ANY, metric)
        assert search_many([run], SEQ, query[None], 5, ANY, metric) == [hits]


def test_small_whole_numbers_have_exact_scores() -> None:
    run = _run([[1, 2], [3, 4], [0, 0], [-3, 1], [3, 4]])
    query = np.array([3, 4], np.float32)
    assert search([run], SEQ, query, 9, ANY, DOT) == [
        (_key(1), 25.0),
        (_key(4), 25.0),
        (_key(0), 11.0),
        (_key(2), 0.0),
        (_key(3), -5.0),
    ]
    hits = search([run], SEQ, query, 9, -5.0, EUCLIDEAN)
    assert [hits[place] for place in (0, 1, 3)] == [(_key(1), 0.0), (_key(4), 0.0), (_key(2), -5.0)]
    assert hits[2] == (_key(0), pytest.approx(-math.sqrt(8), rel=1e-12)) and len(hits) == 4
    assert search([run], SEQ, query, 9, 25.0, DOT) == [(_key(1), 25.0), (_key(4), 25.0)]
    assert search([run], SEQ, query, 9, 0.0, EUCLIDEAN) == [(_key(1), 0.0), (_key(4), 0.0)]
    assert search([run], SEQ, query, 9, 1e-9, EUCLIDEAN) == []


def test_a_vector_has_distance_0_from_itself_and_zero_from_zero() -> None:
    random = np.random.default_rng(7)
    for dimension, scale in itertools.product((1, 3, 384), (1e-40, 1e-20, 1.0, 1e20, 1e36)):
        vectors = (random.standard_normal((20, dimension)) * scale).astype(np.float32)
        vectors[4] = 0
        run = _run(np.concatenate([vectors, vectors]))
        for vector in vectors:
            hits = search([run], SEQ, vector, 2, ANY, EUCLIDEAN)
            assert hits[0][1] == hits[1][1] == 0.0 and str(hits[0][1]) == "0.0"
            assert search([run], SEQ, vector, 40, 0.0, EUCLIDEAN) == [
                (_key(row), 0.0) for row in range(40) if (run.matrix[row] == vector).all()
            ]


def test_equal_scores_are_in_the_order_of_their_keys() -> None:
    keys = [_key(number) for number in np.random.default_rng(1).permutation(1_000).tolist()]
    run = Run(np.tile(np.array([[1, 2, 3]], np.float32), (1_000, 1)), keys)
    expected = sorted(keys)
    for metric, limit in itertools.product(METRICS, (7, 400, 1_000, 10**9)):
        for query in ([1, 0, 0], [0, 0, 0]):
            hits = search([run], SEQ, np.array(query, np.float32), limit, ANY, metric)
            assert [key for key, _ in hits] == expected[:limit]


def test_many_rows_near_each_other_and_far_from_the_origin() -> None:
    """float32 products cannot tell their distances apart; the second look does."""
    random = np.random.default_rng(2)
    matrix = (1_000 + 1e-2 * random.standard_normal((3_000, 32))).astype(np.float32)
    query = (matrix[5] + 1e-3).astype(np.float32)
    run = _run(matrix)
    hits = search([run], SEQ, query, 10, ANY, EUCLIDEAN)
    _assert_best(hits, [run], query, 10, ANY, EUCLIDEAN)
    assert hits[0][0] == _key(5)


def test_tiles_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(5)
    matrix = random.standard_normal((700, 8)).astype(np.float32)
    matrix[650] *= 1e25
    queries = random.standard_normal((9, 8)).astype(np.float32)
    runs = [_run(matrix[:600], 0, range(0, 600, 7)), _run(matrix[600:], 600, [0, 99])]
    some = [(run, run.visible()[::5]) for run in runs]
    for metric in (DOT, EUCLIDEAN):
        expected = [search(runs, SEQ, query, 12, ANY, metric) for query in queries]
        of_some = [search_among(some, query, 12, ANY, metric) for query in queries]
        with monkeypatch.context() as patch:
            patch.setattr(exact, "_GATHER_CELLS", 8 * 7)
            patch.setattr(exact, "_SHARED_CELLS", 8 * 20)
            patch.setattr(exact, "_BATCH_CELLS", 8 * 11)
            patch.setattr(exact, "_TILE_QUERIES", 4)
            patch.setattr(exact, "_TILE_CELLS", 4 * 50)
            patch.setattr(top, "_WIDE_CELLS", 8 * 3)
            assert search_many(runs, SEQ, queries, 12, ANY, metric) == expected
            assert [search(runs, SEQ, query, 12, ANY, metric) for query in queries] == expected
            assert search_many_among(some, queries, 12, ANY, metric) == of_some
