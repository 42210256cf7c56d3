"""Defects that were found in queries after they were built, each with what showed it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engramdb import Database, InvalidInputError, MemoryNode


@pytest.fixture
def db() -> Iterator[Database]:
    with Database.in_memory(background=False) as database:
        yield database


def _scores(nodes: list[MemoryNode]) -> list[float]:
    assert all(node.score is not None for node in nodes)
    return [node.score for node in nodes if node.score is not None]


# Weighted sums


def test_a_sum_of_infinite_terms_is_a_number_and_loses_no_memory(db: Database) -> None:
    for value in (1e308, 1.0, float("inf")):
        db.save(MemoryNode(attributes={"a": value, "b": 2 * value}))
    query = db.query().order_by({"a": 10.0, "b": -10.0})
    assert np.isfinite(_scores(query.execute())).all()
    assert len(query.with_limit(1).ids()) == query.count() == 1


def test_large_scores_are_not_rounded_to_infinity(db: Database) -> None:
    values = [1e299, 3e299, 2e299, 1e10]
    ids = db.save_many([MemoryNode([1.0], attributes={"a": value}) for value in values])
    answer = db.query().with_vector([1.0]).order_by({"similarity": 1.0, "a": 1.0}).execute()
    assert [node.id for node in answer] == [ids[1], ids[2], ids[0], ids[3]]
    assert _scores(answer) == [3e299, 2e299, 1e299, 1e10 + 1]


def test_equal_memories_have_equal_scores_wherever_their_vectors_lie(db: Database) -> None:
    random = np.random.default_rng(1)
    for _ in range(10):
        vector, query = random.standard_normal((2, 64)).astype(np.float32)
        equal = []
        for _ in range(4):
            others = random.standard_normal((int(random.integers(1, 20)), 64))
            db.save_many([MemoryNode(other) for other in others])
            equal.append(db.save(MemoryNode(vector, attributes={"importance": 123456.789})))
            db.flush()
        weights = {"similarity": 0.7, "importance": 0.3}
        found = db.query().with_vector(query).order_by(weights).with_ids(equal).execute()
        assert [node.id for node in found] == sorted(equal)
        assert len(set(_scores(found))) == 1


# The dimension


def test_a_vector_given_before_the_first_one_was_saved_is_checked_again(db: Database) -> None:
    query = db.query().with_vector([1.0, 2.0, 3.0])
    assert query.execute() == []
    db.save(MemoryNode([1.0, 0.0]))
    for call in (query.execute, query.count, query.page, query.order_by("recency").ids):
        with pytest.raises(InvalidInputError) as refused:
            call()
        assert refused.value.argument == "vector"


def test_a_transaction_searches_its_own_vectors_when_others_chose_another_length(
    db: Database,
) -> None:
    with pytest.raises(InvalidInputError), db.transaction() as tx:
        own = tx.save(MemoryNode([1.0, 2.0, 3.0], vectors={"n": [1.0, 2.0]}))
        db.save(MemoryNode([1.0, 2.0], vectors={"n": [1.0, 2.0, 3.0]}))
        assert tx.search_similar([1.0, 2.0, 3.0]) == [(own, 1.0)]
        assert tx.search_similar([1.0, 2.0], space="n") == [(own, 1.0)]
        for space, vector in (("", [1.0, 2.0]), ("n", [1.0, 2.0, 3.0])):
            with pytest.raises(InvalidInputError) as refused:
                tx.search_similar(vector, space=space)
            assert refused.value.argument == "vector"


# Bad input

HUGE = 10**400


def test_numbers_too_large_for_a_float_are_refused_by_name(db: Database) -> None:
    db.save(MemoryNode([1.0]))
    query = db.query().with_vector([1.0])
    calls: list[tuple[str, Any]] = [
        ("threshold", lambda: db.search_similar([1.0], threshold=HUGE)),
        ("threshold", lambda: query.with_similarity_threshold(-HUGE)),
        ("relevance", lambda: query.with_diversity(HUGE)),
        ("by['recency']", lambda: query.order_by({"recency": HUGE})),
    ]
    for argument, call in calls:
        with pytest.raises(InvalidInputError) as refused:
            call()
        assert refused.value.argument == argument
