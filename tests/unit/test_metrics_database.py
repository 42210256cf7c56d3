"""The metrics of a similarity search, as callers of the database use them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engramdb import Database, InvalidInputError, MemoryNode
from engramdb.index.metric import DOT, EUCLIDEAN, Metric

BITS = 2.0**-40


@pytest.fixture
def db() -> Iterator[Database]:
    with Database.in_memory(background=False) as opened:
        yield opened


def _score(vector: Sequence[int], query: Sequence[int], metric: Metric) -> float:
    """Of whole numbers, rounded as the database rounds."""
    if metric == DOT:
        return float(sum(a * b for a, b in zip(vector, query, strict=True)))
    if metric == EUCLIDEAN:
        distance = math.sqrt(sum((a - b) ** 2 for a, b in zip(vector, query, strict=True)))
        quantum = math.ldexp(BITS, math.frexp(distance)[1])
        return 0.0 - round(distance / quantum) * quantum
    lengths = math.hypot(*vector) * math.hypot(*query)
    dot = sum(a * b for a, b in zip(vector, query, strict=True))
    return round(dot / lengths, 12) if lengths else 0.0


WHOLE = st.lists(st.sampled_from([0, 0, 1, -1, 2, 3]), min_size=3, max_size=3)
STEPS = st.lists(
    st.tuples(st.just("save"), st.integers(0, 9), WHOLE, st.sampled_from("ab"))
    | st.tuples(st.just("delete"), st.integers(0, 9), st.none(), st.none())
    | st.tuples(st.sampled_from(["flush", "compact"]), st.just(0), st.none(), st.none()),
    max_size=25,
)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    STEPS,
    WHOLE,
    st.integers(1, 12),
    st.sampled_from([DOT, EUCLIDEAN]),
    st.none() | st.sampled_from([-3.0, 0.0, 2.0]),
)
def test_a_database_answers_like_a_dict_now_and_as_of_every_commit(
    steps: list[tuple[str, int, Any, Any]],
    query: list[int],
    limit: int,
    metric: Metric,
    least: float | None,
) -> None:
    now: dict[str, tuple[list[int], str]] = {}
    moments: dict[int, dict[str, tuple[list[int], str]]] = {}
    with Database.in_memory(background=False) as db:
        db.save(MemoryNode([0.0] * 3, id=f"00000000-0000-7000-8000-{99:012d}"))
        now[f"00000000-0000-7000-8000-{99:012d}"] = [0, 0, 0], "none"
        for kind, number, vector, word in steps:
            memory_id = f"00000000-0000-7000-8000-{number:012d}"
            if kind == "save":
                db.save(MemoryNode(vector, id=memory_id, attributes={"kind": word}))
                now[memory_id] = vector, word
            elif kind == "delete":
                db.delete(memory_id)
                now.pop(memory_id, None)
            else:
                db.flush() if kind == "flush" else db.compact()
            moments[db.last_seq] = dict(now)
        for seq, memories in moments.items():
            for where in (None, {"kind": "a"}):
                scores = [
                    (memory_id, _score(vector, query, metric))
                    for memory_id, (vector, word) in memories.items()
                    if where is None or word == "a"
                ]
                scores.sort(key=lambda pair: (-pair[1], pair[0]))
                expected = [p for p in scores if least is None or p[1] >= least][:limit]
                told = {"where": where, "as_of": seq, "metric": metric}
                assert db.search_similar(query, limit, least, **told) == expected
                assert db.search_many([query], limit, least, **told) == [expected]
                asked = db.query().with_vector(query, metric=metric).with_limit(limit).as_of(seq)
                if where is not None:
                    asked.with_attribute_filter(where)
                if least is not None:
                    asked.with_similarity_threshold(least)
                assert [(node.id, node.score) for node in asked.execute()] == expected
                assert asked.count() == len(expected)
                by_sum = asked.order_by({"similarity": 2.0}).execute()
                assert [(each.id, each.score) for each in by_sum] == [
                    (memory_id, 2.0 * score) for memory_id, score in expected
                ]


def _three(db: Database) -> list[str]:
    vectors = [[1.0, 0.0], [4.0, 4.0], [0.0, 3.0]]
    return [
        db.save(MemoryNode(vector, attributes={"rank": rank}))
        for rank, vector in enumerate(vectors)
    ]


def test_each_metric_has_its_own_best_and_the_default_is_the_cosine(db: Database) -> None:
    one, two, three = _three(db)
    assert db.search_similar([1.0, 0.1])[0][0] == one
    assert db.search_similar([1.0, 0.1]) == db.search_similar([1.0, 0.1], metric="cosine")
    assert db.search_similar([1, 0], metric="dot") == [(two, 4.0), (one, 1.0), (three, 0.0)]
    assert db.search_similar([0, 3], metric="euclidean") == [
        (three, 0.0),
        (one, pytest.approx(-math.sqrt(10), rel=1e-12)),
        (two, pytest.approx(-math.sqrt(17), rel=1e-12)),
    ]


def test_only_cosines_have_a_threshold_by_default(db: Database) -> None:
    _three(db)
    assert len(db.search_similar([-1.0, 0.0])) == 1
    assert len(db.search_similar([-1.0, 0.0], metric="dot")) == 3
    assert len(db.search_similar([-1.0, 0.0], threshold=0.0, metric="dot")) == 1
    assert [len(hits) for hits in db.search_many([[-1.0, 0.0]], metric="euclidean")] == [3]
    assert len(db.search_similar([-1.0, 0.0], threshold=-2.5, metric="euclidean")) == 1
    assert len(db.search_similar([-1.0, 0.0], threshold=-1e300, metric="euclidean")) == 3


def test_orders_and_explanations_of_queries(db: Database) -> None:
    one, two, three = _three(db)
    query = db.query().with_vector([0.0, 3.0], metric="euclidean")
    assert query.ids() == [three, one, two]
    assert "euclidean" in str(query.explain())
    assert query.order_by("similarity", descending=False).ids() == [two, one, three]
    assert "euclidean" in str(query.explain())
    nodes = query.order_by("rank").execute()
    assert [node.id for node in nodes] == [one, two, three] and str(nodes[2].score) == "0.0"
    assert query.order_by({"similarity": 1.0, "rank": 10.0}).ids() == [three, two, one]
    query.with_similarity_threshold(-3.5)
    assert query.order_by({"similarity": 1.0}).ids() == [three, one] and query.count() == 2
    tiny = db.query().with_vector([1e-20, 0.0], metric="dot").order_by({"similarity": 1.0})
    assert tiny.execute()[0].score == pytest.approx(4e-20)
    below = db.query().with_vector([0.5, -1e-20], metric="dot").order_by("rank")
    assert [str(node.score) for node in below.execute()] == ["0.5", "2.0", "0.0"]  # not -0.0
    first = db.query().with_vector([1.0, 0.0], metric="dot").page(2)
    again = db.query().with_vector([1.0, 0.0], metric="dot").page(2, first.cursor)
    assert [node.id for node in first.memories + again.memories] == [two, one, three]
    with pytest.raises(InvalidInputError):
        db.query().with_vector([1.0, 0.0]).page(2, first.cursor)


def test_unsaved_and_past_memories_are_found(db: Database) -> None:
    one, two, three = _three(db)
    then = db.last_seq
    with db.transaction() as tx:
        near = tx.save(MemoryNode([9.0, 9.0]))
        tx.delete(two)
        assert [hit for hit, _ in tx.search_similar([1, 1], metric="dot")] == [near, three, one]
        assert tx.query().with_vector([9, 9], metric="euclidean").ids()[0] == near
    with db.as_of(then) as past:
        assert [hit for hit, _ in past.search_similar([1, 1], metric="dot")] == [two, three, one]


def test_a_named_space_takes_one_vector_by_any_metric(db: Database) -> None:
    many = db.save(MemoryNode(vectors={"t": np.array([[1, 0], [5, 0], [5, 1]] * 5)}))
    single = db.save(MemoryNode(vectors={"t": [4, 0]}, attributes={"n": 1}))
    db.flush()
    last = db.save(MemoryNode(vectors={"t": [0, 0]}))
    assert db.search_similar([1, 0], space="t", metric="dot") == [
        (many, 5.0),
        (single, 4.0),
        (last, 0.0),
    ]
    assert db.search_similar([4, 0], 2, space="t", metric="euclidean") == [
        (single, 0.0),
        (many, -1.0),
    ]
    assert db.search_similar([[4, 0]], 1, -0.5, space="t", metric="euclidean") == [(single, 0.0)]
    assert db.search_many(np.eye(2), 1, space="t", metric="dot") == [[(many, 5.0)], [(many, 1.0)]]
    query = db.query().with_vector([1, 0], space="t", metric="dot")
    assert query.ids() == [many, single, last] and "dot" in str(query.explain())
    assert query.with_similarity_threshold(4.5).ids() == [many]
    assert query.order_by({"similarity": 1.0}).execute()[0].score == 5.0
    only = db.search_similar([1, 0], where={"n": 1}, space="t", metric="dot")
    assert only == [(single, 4.0)]
    assert db.search_similar([-1, 0], space="t") == [(last, 0.0)]


def test_what_makes_no_sense_is_refused_by_name(db: Database) -> None:
    _three(db)
    db.save(MemoryNode(vectors={"t": np.eye(2)}))
    diverse = db.query().with_vector([1, 0], metric="dot").with_limit(2).with_diversity()
    refused: list[tuple[str, Any]] = [
        ("metric", lambda: diverse.execute()),
        ("metric", lambda: db.search_similar(np.eye(2), space="t", metric="dot")),
        ("metric", lambda: db.query().with_vector(np.eye(2), space="t", metric="euclidean")),
        ("threshold", lambda: db.search_similar([1, 0], threshold=-math.inf, metric="dot")),
        ("threshold", lambda: db.search_similar([1, 0], threshold="0", metric="dot")),
    ]
    for bad in ("l2", "Cosine", "", None, 3, b"dot", ["dot"], np.array(["dot"])):
        refused += [
            ("metric", lambda bad=bad: db.search_similar([1, 0], metric=bad)),
            ("metric", lambda bad=bad: db.search_many([[1, 0]], metric=bad)),
            ("metric", lambda bad=bad: db.search_many([], metric=bad)),
            ("metric", lambda bad=bad: db.search_similar([1, 0], space="t", metric=bad)),
            ("metric", lambda bad=bad: db.query().with_vector([1, 0], metric=bad)),
        ]
    for argument, call in refused:
        with pytest.raises(InvalidInputError) as error:
            call()
        assert error.value.argument == argument
