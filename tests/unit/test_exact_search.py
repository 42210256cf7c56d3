"""Exact search, against cosines worked out one by one in float64.

The answer must be a function of the visible vectors alone: however they are spread over runs, and
whether one query is asked or many.
"""

from __future__ import annotations

import itertools
import tracemalloc
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from engramdb.index import exact, top
from engramdb.index.exact import (
    cosines_among,
    scores_among,
    search,
    search_among,
    search_many,
    search_many_among,
)
from engramdb.index.top import Hit

SEQ = 5


@dataclass
class Run:
    """Rows of a few vectors, some of them hidden at SEQ."""

    matrix: npt.NDArray[np.float32]
    all_keys: list[bytes]
    hidden_rows: list[int]

    def __post_init__(self) -> None:
        norms = np.sqrt((self.matrix.astype(np.float64) ** 2).sum(axis=1))
        self.rows, self.dimension = self.matrix.shape
        with np.errstate(divide="ignore", over="ignore"):
            self.inverse_norms = np.where(norms > 1e-38, 1 / norms, 0).astype(np.float32)
        self.extreme_rows = np.flatnonzero((norms > 0) & ((norms < 1e-15) | (norms > 1e15)))

    def product(self, query: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        return self.matrix @ query

    def hidden(self, seq: int) -> npt.NDArray[np.int64] | None:
        assert seq == SEQ
        return np.array(self.hidden_rows, np.int64) if self.hidden_rows else None

    def take(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.matrix[rows]

    def are_visible(self, rows: npt.NDArray[np.int64], seq: int) -> npt.NDArray[np.bool_]:
        assert seq == SEQ
        return ~np.isin(rows, self.hidden_rows)

    def is_all_visible(self, seq: int) -> bool:
        return not self.hidden_rows

    def visible_rows(self, seq: int) -> int:
        return self.rows - len(self.hidden_rows)

    def rows_of(self, numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
        raise NotImplementedError("a search does not ask")

    def keys(self, rows: npt.NDArray[np.int64]) -> list[bytes]:
        return [self.all_keys[row] for row in rows]


def _key(number: int) -> bytes:
    return number.to_bytes(16, "big")


def _run(matrix: Any, first_key: int = 0, hidden: Sequence[int] = ()) -> Run:
    rows = np.ascontiguousarray(matrix, np.float32)
    return Run(rows, [_key(first_key + row) for row in range(len(rows))], list(hidden))


def _cosine(row: npt.NDArray[np.float32], query: npt.NDArray[np.float32]) -> float:
    a, b = row.astype(np.float64), query.astype(np.float64)
    length = np.sqrt(sum(a * a)) * np.sqrt(sum(b * b))
    return round(max(-1.0, min(1.0, float(sum(a * b) / length))), 12) if length else 0.0


def _visible(runs: Sequence[Run]) -> list[tuple[Run, npt.NDArray[np.int64]]]:
    return [
        (run, np.setdiff1d(np.arange(run.rows), np.array(run.hidden_rows, np.int64)))
        for run in runs
    ]


def _brute_force(
    runs: Sequence[Run], query: npt.NDArray[np.float32], limit: int, threshold: float
) -> list[Hit]:
    visible = [
        (_cosine(run.matrix[row], query), run.all_keys[row])
        for run in runs
        for row in range(run.rows)
        if row not in run.hidden_rows
    ]
    visible.sort(key=lambda pair: (-pair[0], pair[1]))
    return [(key, score) for score, key in visible if score >= threshold][:limit]


def _assert_same(got: list[Hit], expected: list[Hit]) -> None:
    """Equal, but for the twelfth decimal: rounding may go either way there."""
    assert [key for key, _ in got] == [key for key, _ in expected]
    assert [score for _, score in got] == pytest.approx([s for _, s in expected], abs=2e-12)


# Few distinct numbers, so that ties, duplicates and zero vectors are common; scales from one end of
# float32 to the other, so that products overflow and underflow.
NUMBERS = st.sampled_from([0.0, 0.0, 1.0, -1.0, 2.0, 0.5, 3.0])
SCALES = st.sampled_from([1.0, 1.0, 1.0, 3.0, 1e-3, 1e-18, 1e18, 1e-40, 1e-30, 1e30, 1e37])


@st.composite
def _vectors(draw: st.DrawFn, dimension: int) -> npt.NDArray[np.float32]:
    numbers = draw(st.lists(NUMBERS, min_size=dimension, max_size=dimension))
    return (np.array(numbers) * draw(SCALES)).astype(np.float32)


@st.composite
def _databases(draw: st.DrawFn) -> tuple[list[Run], npt.NDArray[np.float32]]:
    dimension = draw(st.integers(1, 6))
    sizes = draw(st.lists(st.integers(0, 12), max_size=4))
    keys = draw(st.permutations(range(sum(sizes))))
    runs, used = [], 0
    for size in sizes:
        rows = [draw(_vectors(dimension)) for _ in range(size)]
        hidden = draw(st.sets(st.integers(0, size - 1))) if size else set()
        matrix = np.array(rows, np.float32).reshape(size, dimension)
        own = [_key(number) for number in keys[used : used + size]]
        runs.append(Run(matrix, own, sorted(hidden)))
        used += size
    queries = [draw(_vectors(dimension)) for _ in range(draw(st.integers(1, 3)))]
    return runs, np.array(queries, np.float32)


THRESHOLDS = st.sampled_from([-1.0, -0.5, 0.0, 0.5, 0.6, 0.7, 0.8, 1.0])


@settings(max_examples=400, deadline=None)
@given(_databases(), st.integers(0, 60), THRESHOLDS)
@example(([], np.ones((1, 2), np.float32)), 10, 0.0)
@example(([_run([[3, 4]])], np.array([[3e-30, 4e-30]], np.float32)), 10, 1.0)
def test_search_finds_what_brute_force_finds(
    database: tuple[list[Run], npt.NDArray[np.float32]], limit: int, threshold: float
) -> None:
    runs, queries = database
    together = search_many(runs, SEQ, queries, limit, threshold)
    assert len(together) == len(queries)
    for query, hits in zip(queries, together, strict=True):
        _assert_same(hits, _brute_force(runs, query, limit, threshold))
        assert search(runs, SEQ, query, limit, threshold) == hits
        assert search_among(_visible(runs), query, limit, threshold) == hits
    assert search_many_among(_visible(runs), queries, limit, threshold) == together


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 3_000),
    st.integers(1, 40),
    st.integers(1, 120),
    st.lists(st.floats(0, 1), max_size=4),
    st.sampled_from([0.0, 1e-7, 1e-3, 1.0]),
)
def test_many_close_vectors_are_ranked_exactly_however_they_are_spread_over_runs(
    seed: int, count: int, dimension: int, limit: int, cuts: list[float], spread: float
) -> None:
    random = np.random.default_rng(seed)
    center = random.standard_normal(dimension)
    matrix = (center + spread * random.standard_normal((count, dimension))).astype(np.float32)
    hidden = np.flatnonzero(random.random(count) < 0.2)
    query = (center + 0.1 * random.standard_normal(dimension)).astype(np.float32)
    whole = _run(matrix, 0, hidden.tolist())
    edges = [0, *sorted(int(cut * count) for cut in cuts), count]
    parts = [
        _run(matrix[low:high], low, [row - low for row in hidden.tolist() if low <= row < high])
        for low, high in itertools.pairwise(edges)
    ]
    hits = search([whole], SEQ, query, limit, -1.0)
    assert search(parts, SEQ, query, limit, -1.0) == hits
    assert search(parts[::-1], SEQ, query, limit, -1.0) == hits
    assert search_many(parts, SEQ, np.stack([query, -query]), limit, -1.0)[0] == hits
    assert search_among(_visible(parts), query, limit, -1.0) == hits
    few = [(run, rows[random.random(len(rows)) < 0.05]) for run, rows in _visible(parts)]
    chosen = {key for run, rows in few for key in run.keys(rows)}
    everything = search([whole], SEQ, query, count, -1.0)
    expected = [hit for hit in everything if hit[0] in chosen]
    assert search_among(few, query, count, -1.0) == expected
    assert search_many_among(few, query[None], count, -1.0) == [expected]
    cosines = dict(everything)
    assert cosines_among(few, query).tolist() == [
        cosines[key] for run, rows in few for key in run.keys(rows)
    ]
    scores, margin = scores_among(few, query)
    assert np.abs(scores - cosines_among(few, query)).max(initial=0.0) <= margin

    cosines = (matrix.astype(np.float64) @ query) / np.linalg.norm(
        matrix.astype(np.float64), axis=1
    )
    cosines /= np.linalg.norm(query.astype(np.float64))
    cosines[hidden] = -np.inf
    best = np.sort(cosines)[::-1][: min(limit, count - len(hidden))]
    assert [score for _, score in hits] == pytest.approx(best.tolist(), abs=2e-12)
    for key, score in hits:
        assert score == pytest.approx(cosines[int.from_bytes(key, "big")], abs=2e-12)


def test_a_vector_scores_exactly_1_against_itself_and_minus_1_against_its_opposite() -> None:
    random = np.random.default_rng(7)
    for dimension in (1, 3, 384, 4_097):
        vectors = random.standard_normal((20, dimension)).astype(np.float32)
        run = _run(np.concatenate([vectors, -vectors, 4 * vectors]))
        for number, vector in enumerate(vectors):
            scores = dict(search([run], SEQ, vector, 60, -1.0))
            assert scores[_key(number)] == scores[_key(number + 40)] == 1.0
            assert scores[_key(number + 20)] == -1.0
            assert _key(number) in dict(search([run], SEQ, vector, 60, 1.0))


def test_equal_scores_are_in_the_order_of_their_keys() -> None:
    keys = [_key(number) for number in np.random.default_rng(1).permutation(1_000).tolist()]
    run = Run(np.tile(np.array([[1, 2, 3]], np.float32), (1_000, 1)), keys, [])
    query = np.array([1, 0, 0], np.float32)
    expected = sorted(keys)
    assert [key for key, _ in search([run], SEQ, query, 7, 0.0)] == expected[:7]
    assert [key for key, _ in search([run], SEQ, query, 400, 0.0)] == expected[:400]
    rows = np.arange(run.rows)
    assert [key for key, _ in search_among([(run, rows)], query, run.rows, -1.0)] == expected


def test_a_zero_query_scores_0_everywhere_and_a_zero_vector_scores_0_too() -> None:
    run = _run([[0, 0], [1, 0], [-1, 0], [0, 1]])
    zero = np.zeros(2, np.float32)
    assert search([run], SEQ, zero, 10, 0.0) == [(_key(row), 0.0) for row in range(4)]
    assert search([run], SEQ, zero, 10, 0.1) == []
    hits = search([run], SEQ, np.array([1, 0], np.float32), 10, -1.0)
    assert hits == [(_key(1), 1.0), (_key(0), 0.0), (_key(3), 0.0), (_key(2), -1.0)]
    assert all(str(score) != "-0.0" for _, score in hits)


def test_vectors_at_the_ends_of_float32_rank_like_all_others() -> None:
    directions = np.array([[3, 4], [4, 3], [1, 0], [-3, 4]])
    query = np.array([3, 4])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale, query_scale in itertools.product([1e-41, 1e-17, 1e17, 5e37], repeat=2):
            run, scaled = _run(directions * scale), (query * query_scale).astype(np.float32)
            assert len(run.extreme_rows) == 4
            hits = search([run], SEQ, scaled, 3, -1.0)
            _assert_same(hits, _brute_force([run], scaled, 3, -1.0))
            assert [key for key, _ in hits] == [_key(0), _key(1), _key(2)]
            assert search_many([run], SEQ, scaled.reshape(1, 2), 3, -1.0) == [hits]


def test_the_largest_dimension_is_ranked_exactly() -> None:
    random = np.random.default_rng(3)
    matrix = random.standard_normal((30, 65_536)).astype(np.float32)
    query = (matrix[7] + matrix[11]).astype(np.float32)
    got = search([_run(matrix)], SEQ, query, 3, -1.0)
    cosines = (matrix.astype(np.float64) @ query.astype(np.float64)) / (
        np.linalg.norm(matrix.astype(np.float64), axis=1) * np.linalg.norm(query.astype(np.float64))
    )
    best = np.argsort(-cosines)[:3]
    assert [key for key, _ in got] == [_key(row) for row in best.tolist()]
    assert [score for _, score in got] == pytest.approx(cosines[best].tolist(), abs=2e-12)


def test_all_rows_hidden_no_rows_no_runs_and_no_limit_find_nothing() -> None:
    query = np.array([1, 0], np.float32)
    empty = _run(np.zeros((0, 2)))
    for runs in ([], [empty], [_run([[1, 0]], 0, [0])], [_run([[1, 0]], 0, [0]), empty]):
        assert search(runs, SEQ, query, 10, -1.0) == []
        assert search_many(runs, SEQ, np.stack([query, query]), 10, -1.0) == [[], []]
        assert search_among(_visible(runs), query, 10, -1.0) == []
    assert search([_run([[1, 0]])], SEQ, query, 0, -1.0) == []
    assert search_many([_run([[1, 0]])], SEQ, query.reshape(1, 2), 0, -1.0) == [[]]
    assert search_many([_run([[1, 0]])], SEQ, np.zeros((0, 2), np.float32), 10, -1.0) == []


def test_a_limit_above_the_count_finds_all_that_reach_the_threshold() -> None:
    run = _run([[1, 0], [3, 4], [0, 1], [-1, 0]])
    query = np.array([1, 0], np.float32)
    assert search([run], SEQ, query, 10**9, 0.6) == [(_key(0), 1.0), (_key(1), 0.6)]
    assert search([run], SEQ, query, 10**9, 0.600001) == [(_key(0), 1.0)]
    assert len(search([run], SEQ, query, 10**9, -1.0)) == 4


def test_a_row_just_below_the_threshold_stays_out_however_many_are_close() -> None:
    on, below = [3, 4], [3_000_000, 4_000_001]  # cosines 0.6 and 0.5999999 with the x axis
    run = _run([on, below] * 400)
    hits = search([run], SEQ, np.array([1, 0], np.float32), 500, 0.6)
    assert hits == [(_key(row), 0.6) for row in range(0, 800, 2)]


def test_tiles_change_nothing_but_the_memory_that_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(5)
    matrix = random.standard_normal((700, 8)).astype(np.float32)
    matrix[650] *= 1e25
    queries = random.standard_normal((9, 8)).astype(np.float32)
    runs = [_run(matrix[:600], 0, range(0, 600, 7)), _run(matrix[600:], 600, [0, 99])]
    expected = [search(runs, SEQ, query, 12, 0.1) for query in queries]
    assert search_many(runs, SEQ, queries, 12, 0.1) == expected
    some = [(run, rows[::5]) for run, rows in _visible(runs)]
    expected_of_some = [search_among(some, query, 12, 0.1) for query in queries]
    monkeypatch.setattr(exact, "_GATHER_CELLS", 8 * 7)
    monkeypatch.setattr(exact, "_SHARED_CELLS", 8 * 20)
    monkeypatch.setattr(exact, "_BATCH_CELLS", 8 * 11)
    monkeypatch.setattr(exact, "_TILE_QUERIES", 4)
    monkeypatch.setattr(exact, "_TILE_CELLS", 4 * 50)
    monkeypatch.setattr(top, "_WIDE_CELLS", 8 * 3)
    assert search_many(runs, SEQ, queries, 12, 0.1) == expected
    assert [search(runs, SEQ, query, 12, 0.1) for query in queries] == expected
    assert [search_among(some, query, 12, 0.1) for query in queries] == expected_of_some
    assert search_many_among(some, queries, 12, 0.1) == expected_of_some


def test_the_matrix_is_not_copied_and_a_score_matrix_stays_within_its_tile() -> None:
    run = _run(np.random.default_rng(2).standard_normal((200_000, 16)))
    queries = run.matrix[:128].copy()
    search_many([run], SEQ, queries[:2], 10, 0.0)
    tracemalloc.start()
    try:
        search([run], SEQ, queries[0], 10, 0.0)
        assert tracemalloc.get_traced_memory()[1] < run.matrix.nbytes / 4
        tracemalloc.reset_peak()
        search_many([run], SEQ, queries, 10, 0.0)
        assert tracemalloc.get_traced_memory()[1] < 48 * 2**20  # all scores at once: 102 MB
    finally:
        tracemalloc.stop()
