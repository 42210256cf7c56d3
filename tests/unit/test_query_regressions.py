"""Defects that were found in queries after they were built, each with what showed it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import numpy as np
import pytest

from engramdb import AttributeFilter, Database, InvalidInputError, MemoryNode, TemporalFilter
from engramdb.model.identifiers import parse_id
from engramdb.query.builder import Query


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
    checked = 0
    with pytest.raises(InvalidInputError), db.transaction() as tx:  # at its end: too late
        own = tx.save(MemoryNode([1.0, 2.0, 3.0], vectors={"n": [1.0, 2.0]}))
        db.save(MemoryNode([1.0, 2.0], vectors={"n": [1.0, 2.0, 3.0]}))
        assert tx.search_similar([1.0, 2.0, 3.0]) == [(own, 1.0)]
        assert tx.search_similar([1.0, 2.0], space="n") == [(own, 1.0)]
        for space, vector in (("", [1.0, 2.0]), ("n", [1.0, 2.0, 3.0])):
            with pytest.raises(InvalidInputError) as refused:
                tx.search_similar(vector, space=space)
            assert refused.value.argument == "vector"
            checked += 1
    assert checked == 2


# Pages


def test_a_cursor_fits_the_same_query_however_it_was_put_together(db: Database) -> None:
    ids = db.save_many([MemoryNode() for _ in range(40)])
    for other in ids[1:]:
        db.connect(ids[0], other, "Reminds")
    types = ["Association", "Reminds", "Causation", "Contradiction"]

    def query(names: list[str], kinds: list[str]) -> Query:
        return db.query().with_ids(names).with_exclude_ids(names[:2]).connected_to(ids[0], kinds)

    cursor = query(ids, types).page(5).cursor
    for _ in range(5):
        again = db.query().with_ids(ids[::-1]).with_exclude_ids([ids[1], ids[0]])
        page = again.connected_to(ids[0], types[::-1]).page(5, cursor)
        assert [node.id for node in page.memories] == ids[7:12]


def test_a_cursor_is_the_same_in_every_process() -> None:
    script = (
        "from engramdb import AttributeFilter, Database, MemoryNode; db = Database.in_memory()\n"
        "ids = [f'{n:032x}' for n in range(40)]\n"
        "query = db.query().with_ids(ids).with_exclude_ids(ids[:9])\n"
        "query.connected_to(ids[0], ['Association', 'Reminds', 'Causation'])\n"
        "print(query._text())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert len(told) == 1


def test_a_cursor_of_another_long_vector_is_refused(db: Database) -> None:
    random = np.random.default_rng(0)
    db.save_many([MemoryNode(row) for row in random.standard_normal((9, 1_200))])
    vector = random.standard_normal(1_200)
    cursor = db.query().with_vector(vector).page(5).cursor
    assert len(db.query().with_vector(vector).page(5, cursor).memories) == 4
    vector[600] += 1e-3
    with pytest.raises(InvalidInputError) as refused:
        db.query().with_vector(vector).page(5, cursor)
    assert refused.value.argument == "cursor"


def test_pages_by_activation_show_each_memory_once_although_showing_counts(db: Database) -> None:
    ids = db.save_many([MemoryNode() for _ in range(60)])
    random = np.random.default_rng(5)
    access = db._access
    assert access is not None
    now_us = time.time_ns() // 1000
    for memory_id in ids:  # more than the ten times that are kept, which an estimate follows
        count = int(random.integers(11, 40))
        ages_us = random.random(count) * 10 ** random.uniform(7, 12)
        access._drain().add([parse_id(memory_id)] * count, now_us - ages_us.astype(np.int64))
    for _ in range(5):
        pages = db.query().order_by("activation").pages(7)
        shown = [node.id for memories in pages for node in memories]
        assert sorted(shown) == ids


def test_pages_in_a_transaction_are_of_the_moment_of_the_first(db: Database) -> None:
    ids = db.save_many([MemoryNode(attributes={"n": n}) for n in range(10)])
    with db.transaction() as tx:
        shown = []
        for memories in tx.query().order_by("n").pages(3):
            shown += [node.id for node in memories]
            tx.save(MemoryNode(attributes={"n": -1}))
            if ids[-1] in tx:
                tx.delete(ids[-1])
        assert shown == ids


# Values


@pytest.mark.parametrize("flushed", [False, True])
def test_moments_that_only_their_own_offset_can_write_are_no_damage(
    db: Database, flushed: bool
) -> None:
    first = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    last = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14)))
    moments = [last, datetime(2020, 1, 1, tzinfo=UTC), first]
    ids = db.save_many([MemoryNode(attributes={"d": each, "l": [each, 1]}) for each in moments])
    if flushed:
        db.flush()
    assert db.query().order_by("d").ids() == ids[::-1]
    assert [facet.value for facet in db.query().facets("d")["d"]] == moments[::-1]
    counted = {facet.value: facet.count for facet in db.query().facets("l")["l"]}
    assert counted == {1: 3, first: 1, moments[1]: 1, last: 1}
    assert [group.value for group in db.query().group_by("d")] == moments


def test_both_zeros_in_a_list_are_one_value(db: Database) -> None:
    for _ in range(2):
        db.save_many([MemoryNode(attributes={"l": [0.0, -0.0, 1.5]}) for _ in range(20)])
        counted = {facet.value: facet.count for facet in db.query().facets("l")["l"]}
        assert counted == {0.0: len(db), 1.5: len(db)}
        db.flush()


# Bad input

HUGE = 10**400
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
BATCH_ARGUMENTS = ["limit", "threshold", "where", "exact", "valid_at"]


def test_numbers_too_large_for_a_float_are_refused_by_name(db: Database) -> None:
    db.save(MemoryNode([1.0]))
    query = db.query().with_vector([1.0])
    calls: list[tuple[str, Any]] = [
        ("threshold", lambda: db.search_similar([1.0], threshold=HUGE)),
        ("threshold", lambda: query.with_similarity_threshold(-HUGE)),
        ("relevance", lambda: query.with_diversity(HUGE)),
        ("by['recency']", lambda: query.order_by({"recency": HUGE})),
    ]
    _are_refused(calls)


def test_moments_without_a_reading_in_utc_are_refused_by_name(db: Database) -> None:
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))
    late = datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14)))
    calls: list[tuple[str, Any]] = []
    for moment in (early, late):
        calls += [
            ("moment", partial(TemporalFilter.before, moment)),
            ("moment", partial(TemporalFilter.after, moment)),
            ("as_of", partial(db.as_of, moment)),
            ("as_of", db.query().as_of(moment).execute),
            ("valid_at", partial(db.query().valid_at, moment)),
        ]
    calls.append(("start", partial(TemporalFilter.between, early, NOON)))
    calls.append(("end", partial(TemporalFilter.between, NOON, late)))
    _are_refused(calls)


def test_names_of_another_type_are_refused_by_name(db: Database) -> None:
    db.save(MemoryNode([1.0], vectors={"t": [1.0]}))
    names: list[Any] = [np.array([1, 2]), np.array([]), 5, None, ["a"], ("a",)]
    calls: list[tuple[str, Any]] = []
    for name in names:
        calls += [
            ("space", partial(db.search_similar, [1.0], space=name)),
            ("space", partial(db.search_many, [[1.0]], space=name)),
            ("space", partial(db.query().with_vector, [1.0], space=name)),
            ("valid_at", partial(db.search_similar, [1.0], valid_at=name)),
            ("valid_at", partial(db.query().valid_at, name)),
            ("keys", partial(db.query().facets, "a", name)),
            ("key", partial(db.query().group_by, name)),
        ]
    _are_refused(calls)


def test_a_batch_of_no_queries_in_a_space_checks_the_rest(db: Database) -> None:
    db.save(MemoryNode(vectors={"t": [1.0]}))
    search = partial(db.search_many, np.empty((0, 1)), space="t")
    assert search() == []
    bad: Any = "x"
    _are_refused([(name, partial(search, **{name: bad})) for name in BATCH_ARGUMENTS])


def test_a_limit_may_be_any_size(db: Database) -> None:
    found = db.save(MemoryNode(vectors={"t": np.eye(2)}))
    hits = [(found, 1.0)]
    assert db.search_similar([[1.0, 0.0], [0.0, 1.0]], 2**70, space="t") == hits
    assert db.search_similar([1.0, 0.0], 2**70, space="t") == hits


def test_filters_inside_filters_are_bounded_like_dicts(db: Database) -> None:
    db.save(MemoryNode(attributes={"a": 1}))
    one, two = AttributeFilter.equals("a", 1), AttributeFilter.equals("a", 2)
    deep = one
    with pytest.raises(InvalidInputError) as refused:
        for _ in range(3_000):
            deep = (deep & one) | two
    assert refused.value.argument == "where"
    assert db.query().with_attribute_filter(deep).with_attribute_filter(deep).count() == 1
    assert hash(deep) == hash(pickle.loads(pickle.dumps(deep))) and deep.matches({"a": 1})
    wide = one
    for _ in range(3_000):
        wide |= two
    assert db.query().with_attribute_filter(wide).count() == 1


def _are_refused(calls: list[tuple[str, Any]]) -> None:
    for argument, call in calls:
        with pytest.raises(InvalidInputError) as refused:
            call()
        assert refused.value.argument == argument


def test_a_memory_of_many_versions_is_found_by_its_id_without_walking_them() -> None:
    class Counted(array):  # type: ignore[type-arg]
        reads = 0

        def __getitem__(self, row: Any) -> Any:
            Counted.reads += 1
            return super().__getitem__(row)

    with Database.in_memory(background=False) as db:
        first = db.save(MemoryNode(attributes={"n": -1}))
        db.save_many([MemoryNode() for _ in range(200)])
        node = db.load(first)
        for number in range(2_000):
            node.set_attribute("n", number)
            db.save(node)
        assert db.query().with_ids([first]).count() == 1  # makes a stretch of columns of them all
        db.save(node)  # and this version is in none yet
        table = db._engine._core.state.version.active
        table.previous = Counted("q", table.previous)
        (found,) = db.query().with_ids([first]).execute()
        assert found.attributes["n"] == 1_999
        assert db.query().with_exclude_ids([first]).count() == 200
        assert Counted.reads < 10
