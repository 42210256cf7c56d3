"""Similarity search with conditions, and the query. The seed's own examples come first."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

import engramdb
from engramdb import AttributeFilter, Database, MemoryNode, TemporalFilter


def test_the_seeds_first_example(capsys: pytest.CaptureFixture[str]) -> None:
    db = engramdb.Database.in_memory()
    memory = engramdb.MemoryNode(np.array([0.1, 0.2, 0.3, 0.4], dtype=np.float32))
    memory.set_attribute("title", "Important information"); memory.set_attribute("importance", 0.8)  # noqa: E702  # fmt: skip
    memory_id = db.save(memory)
    for memory_id, similarity in db.search_similar(np.array([0.15, 0.25, 0.35, 0.45], dtype=np.float32), limit=5, threshold=0.0):  # noqa: E501  # fmt: skip
        print(f"Memory: {db.load(memory_id).get_attribute('title')}, Similarity: {similarity:.4f}")
    assert capsys.readouterr().out == "Memory: Important information, Similarity: 0.9980\n"


def test_the_seeds_second_example(capsys: pytest.CaptureFixture[str]) -> None:
    db = engramdb.Database.in_memory()
    query_vector = np.array([0.15, 0.25, 0.35, 0.45], dtype=np.float32)
    for title, category, importance in (
        ("wanted", "work", 0.8),
        ("unimportant", "work", 0.7),
        ("elsewhere", "home", 0.9),
    ):
        memory = engramdb.MemoryNode(query_vector)
        memory.set_attribute("title", title)
        memory.set_attribute("category", category)
        memory.set_attribute("importance", importance)
        db.save(memory)
    # fmt: off
    category_filter = engramdb.AttributeFilter.equals("category", "work")
    importance_filter = engramdb.AttributeFilter.greater_than("importance", 0.7)
    results = db.query().with_vector(query_vector).with_attribute_filter(category_filter)\
        .with_attribute_filter(importance_filter).with_limit(10).execute()
    for memory in results:
        print(f"Found: {memory.get_attribute('title')}")
    # fmt: on
    assert capsys.readouterr().out == "Found: wanted\n"


@pytest.fixture(scope="module")
def db() -> Any:
    """100 memories around a circle, n from 0 to 99, some of them without a vector."""
    with Database.in_memory() as database:
        start = datetime(2024, 1, 1, tzinfo=UTC)
        for n in range(100):
            angle = 2 * np.pi * n / 100
            vector = None if n % 10 == 9 else [np.cos(angle), np.sin(angle)]
            database.save(
                MemoryNode(
                    vector,
                    attributes={"n": n, "even": n % 2 == 0, "tags": ["a", "b"][: n % 3]},
                    creation_timestamp=start + timedelta(days=n),
                )
            )
        yield database


def numbers(nodes: list[MemoryNode]) -> list[int]:
    return [node.get_attribute("n") for node in nodes]


def test_search_keeps_scores_from_the_threshold_on(db: Database) -> None:
    hits = db.search_similar([1.0, 0.0], limit=100)
    assert len(hits) == 46 and all(score >= 0 for _, score in hits)
    assert hits[0][1] == 1.0 and hits == sorted(hits, key=lambda hit: (-hit[1], hit[0]))
    assert len(db.search_similar([1.0, 0.0], 100, -1.0)) == 90
    assert [score for _, score in db.search_similar([1.0, 0.0], 100, 1.0)] == [1.0]


def test_a_condition_never_makes_the_answer_too_short(db: Database) -> None:
    where = AttributeFilter.between("n", 45, 55)
    for rule in (where, {"n": {"$gte": 45, "$lte": 55}}):
        hits = db.search_similar([1.0, 0.0], limit=4, threshold=-1.0, where=rule)
        assert numbers([db.load(memory_id) for memory_id, _ in hits]) == [45, 55, 46, 54]
        assert db.search_many([[1.0, 0.0]], 4, -1.0, where=rule) == [hits]
    assert db.search_similar([1.0, 0.0], where={"n": 500}) == []


def test_search_many_is_many_searches(db: Database) -> None:
    queries = np.random.default_rng(3).normal(size=(300, 2)).astype(np.float32)
    found = db.search_many(queries, limit=7, threshold=0.1)
    assert found == [db.search_similar(query, 7, 0.1) for query in queries]
    assert db.search_many([]) == [] == db.search_many(np.empty((0, 2), np.float32))


def test_a_query_with_a_vector_comes_best_first_and_scored(db: Database) -> None:
    nodes = db.query().with_vector([1.0, 0.0]).with_limit(3).execute()
    assert numbers(nodes)[0] == 0 and set(numbers(nodes)) == {0, 1, 98} - {98} | {2}
    assert [node.score for node in nodes] == sorted([node.score for node in nodes], reverse=True)
    assert len(db.query().with_vector([1.0, 0.0]).execute()) == 90  # no threshold unless asked for
    assert db.query().with_vector([1.0, 0.0]).with_similarity_threshold(0.0).count() == 46


def test_a_query_without_a_vector_comes_in_the_order_of_ids(db: Database) -> None:
    nodes = db.query().execute()
    assert numbers(nodes) == list(range(100)) and all(node.score is None for node in nodes)
    assert db.query().with_limit(5).ids() == db.list_all()[:5]
    assert db.query().count() == 100 and db.query().with_limit(5).count() == 5


def test_conditions_are_all_to_be_met(db: Database) -> None:
    query = (
        db.query()
        .with_attribute_filter(AttributeFilter.equals("even", True))
        .with_attribute_filter({"n": {"$gt": 90}})
    )
    assert numbers(query.execute()) == [92, 94, 96, 98]
    query.with_limit(2)
    assert numbers(query.execute()) == [92, 94] and query.count() == 2
    rule = AttributeFilter.contains("tags", "b") & ~AttributeFilter.less_than("n", 95)
    assert numbers(db.query().with_attribute_filter(rule).execute()) == [95, 98]


def test_ids_and_excluded_ids(db: Database) -> None:
    ids = db.list_all()
    assert db.query().with_ids(ids[3:6]).with_ids(ids[4:9]).ids() == ids[4:6]
    missing = str(engramdb.MemoryNode().id)
    assert db.query().with_ids([missing, ids[7]]).ids() == [ids[7]]
    assert db.query().with_ids([]).ids() == []
    some = db.query().with_exclude_ids(ids[:50]).with_exclude_ids(ids[60:])
    assert some.ids() == ids[50:60]
    nearest = db.query().with_vector([1.0, 0.0]).with_ids(ids[20:30]).with_exclude_ids([ids[20]])
    assert numbers(nearest.with_limit(2).execute()) == [21, 22]


def test_temporal_filters(db: Database) -> None:
    day = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=50)
    assert numbers(
        db.query().with_temporal_filter(TemporalFilter.between(day, day + timedelta(2))).execute()
    ) == [50, 51, 52]
    assert db.query().with_temporal_filter(TemporalFilter.before(day)).count() == 50
    both = (
        db.query()
        .with_temporal_filter(TemporalFilter.after(day))
        .with_temporal_filter(TemporalFilter.before(day + timedelta(3)))
    )
    assert numbers(both.execute()) == [51, 52]
    modified = TemporalFilter.within_last(timedelta(hours=1), last_modified=True)
    assert db.query().with_temporal_filter(modified).count() == 100


def test_a_query_as_of_a_moment(db: Database) -> None:
    assert numbers(db.query().as_of(3).execute()) == [0, 1, 2]
    assert db.query().as_of(0).with_vector([1.0, 0.0]).execute() == []
    assert db.as_of(50).query().as_of(2).count() == 2


def test_results_can_be_changed_and_saved() -> None:
    with Database.in_memory() as db:
        db.save(MemoryNode([1.0, 0.0], attributes={"n": 1}))
        (node,) = db.query().with_vector([1.0, 1.0]).execute()
        node.set_attribute("n", 2)
        db.save(node)
        assert numbers(db.query().execute()) == [2] and len(node.temporal_layers()) == 2


def test_exact_search_equals_numpy_over_flushed_and_changed_rows() -> None:
    rng = np.random.default_rng(11)
    matrix = rng.normal(size=(3000, 16)).astype(np.float32)
    with Database.in_memory(memtable_bytes=64 * 1024) as db:
        ids = np.array(db.save_columns(embeddings=matrix))
        for row in rng.choice(3000, 200, replace=False):
            node = db.load(str(ids[row]))
            matrix[row] = rng.normal(size=16)
            node.embeddings = matrix[row]
            db.save(node)
        gone = rng.choice(3000, 100, replace=False)
        for row in gone:
            db.delete(str(ids[row]))
        unit = matrix / np.linalg.norm(matrix, axis=1, keepdims=True)
        for query in rng.normal(size=(20, 16)).astype(np.float32):
            scores = unit @ (query / np.linalg.norm(query))
            scores[gone] = -2
            best = np.argsort(-scores, kind="stable")[:10]
            hits = db.search_similar(query, 10)
            assert [memory_id for memory_id, _ in hits] == ids[best].tolist()
            assert [score for _, score in hits] == pytest.approx(scores[best].tolist(), abs=1e-5)
