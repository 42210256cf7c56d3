"""MaxSim against a plain loop: the same answer, however the rows lie in runs."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb.index import late_interaction
from engramdb.index.top import Hit
from engramdb.lsm.keys import U64, Rows, from_list, split
from engramdb.lsm.vector_file import extreme, inverse, norms_of
from tests.unit.lsm_support import key

Floats = npt.NDArray[np.float32]


class Run:
    """Rows as a vector file holds them."""

    def __init__(self, rows: list[tuple[bytes, Floats, bool]], dimension: int) -> None:
        self.rows, self.dimension = len(rows), dimension
        self._keys = [owner for owner, _, _ in rows]
        self.matrix: Floats = np.array([row for _, row, _ in rows], np.float32).reshape(
            -1, dimension
        )
        norms = norms_of(self.matrix)
        self.inverse_norms, self.extreme_rows = inverse(norms), extreme(norms)
        self._hidden = np.flatnonzero([not seen for _, _, seen in rows])

    def product(self, query: Floats) -> Floats:
        return self.matrix @ query

    def hidden(self, seq: int) -> Rows | None:
        return self._hidden if len(self._hidden) else None

    def take(self, rows: Rows) -> Floats:
        return self.matrix[rows]

    def are_visible(self, rows: Rows, seq: int) -> npt.NDArray[np.bool_]:
        return ~np.isin(rows, self._hidden)

    def is_all_visible(self, seq: int) -> bool:
        return not len(self._hidden)

    def visible_rows(self, seq: int) -> int:
        return self.rows - len(self._hidden)

    def rows_of(self, numbers: U64) -> Rows:
        raise AssertionError("nobody asks")

    def keys(self, rows: Rows) -> list[bytes]:
        return [self._keys[row] for row in rows.tolist()]

    def owners(self) -> tuple[U64, U64]:
        return split(from_list(self._keys))


def cosine(one: Floats, other: Floats) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    norms = math.sqrt(float(a @ a)) * math.sqrt(float(b @ b))
    return float(a @ b) / norms if norms else 0.0


def by_loop(memories: dict[bytes, list[Floats]], queries: Floats) -> dict[bytes, float]:
    """The score of every memory."""
    return {
        owner: sum(max(cosine(query, row) for row in rows) for query in queries) / len(queries)
        for owner, rows in memories.items()
    }


numbers = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-20, 1e20]), st.floats(-4, 4, width=32))


@st.composite
def worlds(draw: st.DrawFn) -> tuple[dict[bytes, list[Floats]], list[Run], Floats]:
    """Memories with their vectors, the runs that hold them, and a query."""
    dimension = draw(st.integers(1, 5))
    row = st.lists(numbers, min_size=dimension, max_size=dimension)
    rows = draw(st.lists(st.tuples(st.integers(0, 6), row, st.booleans()), min_size=1, max_size=24))
    runs: list[list[tuple[bytes, Floats, bool]]] = [[], [], []]
    memories: dict[bytes, list[Floats]] = {}
    for i, values, seen in rows:
        vector = np.array(values, np.float32)
        runs[draw(st.integers(0, 2))].append((key(i), vector, seen))
        if seen:
            memories.setdefault(key(i), []).append(vector)
    if draw(st.booleans()):  # as they mostly lie: the rows of one memory together
        runs = [sorted(run, key=lambda each: each[0]) for run in runs]
    queries = draw(st.lists(row, min_size=1, max_size=4))
    return memories, [Run(run, dimension) for run in runs], np.array(queries, np.float32)


def same(hits: list[Hit], expected: dict[bytes, float], limit: int, threshold: float) -> None:
    good = [score for score in expected.values() if score >= threshold + 1e-9]
    fair = [score for score in expected.values() if score >= threshold - 1e-9]
    assert min(limit, len(good)) <= len(hits) <= min(limit, len(fair))
    assert len({owner for owner, _ in hits}) == len(hits)
    for owner, score in hits:
        assert score == pytest.approx(expected[owner], abs=1e-11) and -1 <= score <= 1
    for one, other in pairwise(hits):
        assert (-one[1], one[0]) < (-other[1], other[0])
    if hits and len(hits) == limit:
        left = [score for owner, score in expected.items() if owner not in dict(hits)]
        assert all(score <= hits[-1][1] + 1e-11 for score in left)


@settings(deadline=None, max_examples=150)
@given(worlds(), st.integers(1, 8), st.sampled_from([-1.0, 0.0, 0.3]))
def test_as_a_plain_loop(world: Any, limit: int, threshold: float) -> None:
    memories, runs, queries = world
    expected = by_loop(memories, queries)
    hits = late_interaction.search(runs, 1, queries, limit, threshold)
    same(hits, expected, limit, threshold)
    everything = list(late_interaction.ranked(runs, 1, queries, 1))
    same(everything, expected, len(expected) + 1, -2.0)
    assert [hit for hit in everything if hit[1] >= threshold][:limit] == hits


@pytest.mark.parametrize("tile", [1, 7, 2**20])
def test_the_answer_does_not_depend_on_how_the_rows_lie(
    tile: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(7)
    rows = [
        (key(i), random.standard_normal(8).astype(np.float32), bool(random.random() < 0.9))
        for i in range(150)
        for _ in range(random.integers(1, 6))
    ]
    queries = random.standard_normal((5, 8)).astype(np.float32)
    whole = list(late_interaction.ranked([Run(rows, 8)], 1, queries))
    monkeypatch.setattr(late_interaction, "_TILE_CELLS", tile)
    monkeypatch.setattr(late_interaction, "_WIDE_CELLS", tile)
    for seed in range(5):
        cut = np.random.default_rng(seed).integers(0, 4, len(rows))
        runs = [Run([row for row, c in zip(rows, cut, strict=True) if c == i], 8) for i in range(4)]
        assert list(late_interaction.ranked(runs, 1, queries)) == whole
        assert late_interaction.search(runs, 1, queries, 10, -1.0) == whole[:10]


def test_nothing_to_find() -> None:
    queries = np.ones((2, 3), np.float32)
    assert late_interaction.search([], 1, queries, 3, -1.0) == []
    hidden = Run([(key(1), np.ones(3, np.float32), False)], 3)
    assert late_interaction.search([Run([], 3), hidden], 1, queries, 3, -1.0) == []
    assert late_interaction.search([hidden], 1, queries[:1], 3, -1.0) == []


def test_one_query_vector_finds_the_best_row_of_each_memory() -> None:
    rows = [np.array(v, np.float32) for v in ([1, 0], [1, 1], [0, 1])]
    run = Run([(key(1), row, True) for row in rows] + [(key(2), rows[1], True)], 2)
    hits = late_interaction.search([run], 1, np.array([[1, 0]], np.float32), 2, 0.0)
    assert hits == [(key(1), 1.0), (key(2), pytest.approx(math.sqrt(0.5)))]
    assert len(late_interaction.search([run], 1, np.array([[1, 0]], np.float32), 1, 0.0)) == 1
