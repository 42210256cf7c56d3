"""Searches by codes against brute force.

Whatever was saved, overwritten and deleted: every score is exact, ids are visible and unique, the
answer is as long as it can be, and what was just written is found. With an effort that cannot miss
it is the exact answer.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import engramdb
from engramdb.index.codes.clusters import Effort
from engramdb.index.metric import Metric
from engramdb.lsm.environment import MemoryEnvironment
from tests.unit.codes_support import (
    EVERYTHING,
    Floats32,
    gaussian,
    id_of,
    mixture,
    open_database,
    save,
    searched,
    small_files_have_codes,
    unit,
)

METRICS: tuple[Metric, ...] = ("cosine", "dot", "euclidean")
Vectors = dict[str, Floats32]


def corpus(kind: str, rows: int, dimension: int, seed: int) -> Floats32:
    """Vectors of one kind; now and then one that is extreme."""
    random = np.random.default_rng(seed)
    if kind == "grid":  # ties, duplicates and zero vectors
        return random.integers(-1, 2, (rows, dimension)).astype(np.float32)
    if kind == "one":
        return np.tile(gaussian(1, dimension, seed), (rows, 1))
    vectors = (
        mixture(rows, dimension, seed) if kind == "mixture" else gaussian(rows, dimension, seed)
    )
    if kind == "lengths":
        vectors = vectors * np.exp(random.normal(0, 3, (rows, 1)))
        extreme = random.integers(0, rows, rows // 60)
        vectors[extreme] *= 10.0 ** random.choice([-30, -20, 20, 30], (len(extreme), 1))
        vectors[random.integers(0, rows, rows // 90)] = 0
    return vectors.astype(np.float32)


def scores_of(vectors: Vectors, query: Floats32, metric: Metric) -> dict[str, float]:
    """One by one, in float64."""
    wide = query.astype(np.float64)
    scores = {}
    for name, vector in vectors.items():
        other = vector.astype(np.float64)
        if metric == "cosine":
            lengths = math.sqrt(other @ other) * math.sqrt(wide @ wide)
            scores[name] = float(other @ wide) / lengths if lengths else 0.0
        elif metric == "dot":
            scores[name] = float(other @ wide)
        else:
            scores[name] = -float(np.linalg.norm(other - wide))
    return scores


def assert_sound(
    got: list[tuple[str, float]], scores: dict[str, float], limit: int, *, sizes: float
) -> None:
    """What holds of every answer, however little is looked at."""
    assert len(got) == min(limit, len(scores)), "it is as long as it can be"
    assert len({name for name, _ in got}) == len(got)
    assert got == sorted(got, key=lambda hit: (-hit[1], hit[0])), "best first, ties by id"
    for name, score in got:
        assert score == pytest.approx(scores[name], rel=1e-9, abs=1e-11 * sizes)


class World:
    """A database and what it should hold, now and at an earlier moment."""

    def __init__(self, db: engramdb.Database, seed: int) -> None:
        self.db, self.random = db, np.random.default_rng(seed)
        self.now: Vectors = {}
        self.then: Vectors = {}
        self.seq = 0

    def save(self, vectors: Floats32, first: int = 0) -> None:
        save(self.db, vectors, first)
        self.now |= {id_of(first + number): vector for number, vector in enumerate(vectors)}

    def change(self, vectors: Floats32, share: float) -> None:
        """Delete some, overwrite some, with vectors of others too."""
        numbers = self.random.permutation(len(vectors))
        count = int(share * len(numbers))
        gone = [id_of(number) for number in numbers[:count].tolist()]
        with self.db.transaction() as tx:
            for name in gone:
                tx.delete(name)
        self.now = {name: vector for name, vector in self.now.items() if name not in gone}
        for number in numbers[count : count + 5].tolist():
            other = vectors[self.random.integers(len(vectors))]
            self.save(other[None], number)

    def remember(self) -> None:
        self.seq, self.then = self.db.last_seq, dict(self.now)


def built(
    db: engramdb.Database, vectors: Floats32, share: float, is_split: bool, seed: int
) -> World:
    """One or two files with codes, some rows of them hidden, and some rows in memory."""
    world = World(db, seed)
    half = len(vectors) // 2 if is_split else len(vectors)
    for start, stop in ((0, half), (half, len(vectors))):
        if start < stop:
            world.save(vectors[start:stop], start)
            db.flush()
    db.build_index()
    world.remember()
    world.change(vectors, share)
    return world


corpora = st.builds(
    corpus,
    st.sampled_from(["gaussian", "mixture", "grid", "one", "lengths"]),
    st.one_of(st.integers(1, 20), st.integers(200, 400)),
    st.sampled_from([2, 5, 40, 64]),
    st.integers(0, 2**31),
)
small_efforts = st.builds(
    Effort,
    st.tuples(st.floats(0, 2), st.floats(0, 2)),
    st.floats(-1, 1),
    st.floats(0, 0.5),
    st.floats(0, 2),
    st.floats(0, 0.5),
    st.just(16),
    st.floats(0, 2),
    st.floats(0, 0.5),
)
kept_settings = settings(max_examples=100, deadline=None)
more: dict[str, Any] = {
    "share": st.sampled_from([0.0, 0.1, 0.6, 0.9, 1.0]),
    "limit": st.sampled_from([1, 3, 10, 20, 40, 100, 101, 1000]),
    "is_split": st.booleans(),
    "seed": st.integers(0, 2**31),
}


def check(world: World, query: Floats32, limit: int, metric: Metric, *, is_exact: bool) -> None:
    """Now, in the past, with a filter, and many at once."""
    db, most = world.db, float(np.linalg.norm(query.astype(np.float64))) + 1.0
    lengths = [float(np.linalg.norm(each.astype(np.float64))) for each in world.then.values()]
    sizes = most * max([1.0, *lengths]) if metric != "cosine" else 1.0
    least = -1.0 if metric == "cosine" else None
    of_third = {name for name in world.now if (int(name[-12:], 16) - 1) % 3 == 1}
    some = {name: vector for name, vector in world.now.items() if name in of_third}
    for vectors, options in (
        (world.now, {}),
        (world.then, {"as_of": world.seq}),
        (some, {"where": {"third": 1}}),
    ):
        given: dict[str, Any] = {"metric": metric, **options}
        got = db.search_similar(query, limit, least, **given)
        assert_sound(got, scores_of(vectors, query, metric), limit, sizes=sizes)
        both = db.search_many(np.stack([query, query]), limit, least, **given)
        for each in both:
            assert_sound(each, scores_of(vectors, query, metric), limit, sizes=sizes)
        exact = db.search_similar(query, limit, least, exact=True, **given)
        assert_sound(exact, scores_of(vectors, query, metric), limit, sizes=sizes)
        if is_exact:
            assert got == both[0] == both[1] == exact


def query_of(world: World, vectors: Floats32, kind: str) -> Floats32:
    random = world.random
    query = vectors[random.integers(len(vectors))].copy()
    if kind == "zero":
        query[:] = 0
    elif kind != "row":
        query += random.standard_normal(query.shape).astype(np.float32)
    if kind == "huge":
        query *= np.float32(1e20) / max(np.float32(1), np.abs(query).max())
    return query


kinds = st.sampled_from(["row", "near", "zero", "huge"])


@kept_settings
@given(vectors=corpora, effort=small_efforts, kind=kinds, metric=st.sampled_from(METRICS), **more)
@example(
    vectors=corpus("gaussian", 300, 40, 0),
    effort=Effort((1.0, 1.0), 0.0, 0.1, 1.0, 0.1, 16),
    kind="near",
    metric="cosine",
    share=0.6,
    limit=10,
    is_split=False,
    seed=2,
)
def test_every_answer_is_true_however_little_is_looked_at(
    vectors: Floats32,
    effort: Effort,
    kind: str,
    metric: Metric,
    share: float,
    limit: int,
    is_split: bool,
    seed: int,
) -> None:
    with small_files_have_codes(effort), open_database(MemoryEnvironment()) as db:
        world = built(db, vectors, share, is_split, seed)
        check(world, query_of(world, vectors, kind), limit, metric, is_exact=False)


@kept_settings
@given(vectors=corpora, kind=kinds, metric=st.sampled_from(METRICS), **more)
def test_an_effort_that_cannot_miss_gives_the_exact_answer(
    vectors: Floats32,
    kind: str,
    metric: Metric,
    share: float,
    limit: int,
    is_split: bool,
    seed: int,
) -> None:
    with small_files_have_codes(EVERYTHING), open_database(MemoryEnvironment()) as db:
        world = built(db, vectors, share, is_split, seed)
        check(world, query_of(world, vectors, kind), limit, metric, is_exact=True)


def test_what_is_written_is_found_at_once_and_what_is_deleted_is_gone_at_once() -> None:
    vectors = mixture(3000, 40)
    with small_files_have_codes(), open_database(MemoryEnvironment()) as db:
        save(db, vectors)
        db.flush()
        db.build_index()
        assert searched(db) == ["clusters"]
        for number, vector in enumerate(unit(gaussian(40, 40, seed=3))):
            name = id_of(10_000 + number)
            db.save(engramdb.MemoryNode(vector, id=name))
            assert db.search_similar(vector, 1) == [(name, 1.0)]
            if number == 20:
                db.flush()
                db.build_index()
            db.delete(name)
            assert name not in dict(db.search_similar(vector, 20, -1.0))
        for number in range(0, 3000, 100):
            db.delete(id_of(number))
            assert id_of(number) not in dict(db.search_similar(vectors[number], 20, -1.0))
            assert db.search_similar(vectors[number], 1, as_of=1) == [(id_of(number), 1.0)]


def visible_of(db: engramdb.Database, names: list[str]) -> npt.NDArray[np.bool_]:
    return np.array([name in db for name in names])


def test_a_transaction_sees_what_it_wrote_and_not_what_it_deleted() -> None:
    vectors = mixture(3000, 40)
    with small_files_have_codes(EVERYTHING), open_database(MemoryEnvironment()) as db:
        save(db, vectors)
        db.flush()
        db.build_index()
        with db.transaction() as tx:
            tx.delete(id_of(7))
            tx.save(engramdb.MemoryNode(-vectors[8], id=id_of(8)))
            found = dict(tx.search_similar(vectors[7], 3000, -1.0))
            assert len(found) == 2999 and id_of(7) not in found
            assert tx.search_similar(-vectors[8], 1) == [(id_of(8), 1.0)]
            assert db.search_similar(vectors[8], 1) == [(id_of(8), 1.0)]
        assert visible_of(db, [id_of(7), id_of(8)]).tolist() == [False, True]
