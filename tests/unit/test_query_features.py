"""What a query can do beyond conditions: two clocks, orders, diversity, groups, pages, its plan."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest

from engramdb import AttributeFilter, Database, Facet, InvalidInputError, KeepLast, MemoryNode
from engramdb.errors import HistoryUnavailableError

MARCH = datetime(2025, 3, 15, tzinfo=UTC)
JUNE = datetime(2025, 6, 15, tzinfo=UTC)


@pytest.fixture
def db() -> Iterator[Database]:
    with Database.in_memory(background=False) as database:
        yield database


def _save(db: Database, name: str, vector: Any = None, **attributes: Any) -> str:
    return db.save(MemoryNode(vector, attributes={"name": name, **attributes}))


def _names(nodes: list[MemoryNode]) -> list[str]:
    return [node.attributes["name"] for node in nodes]


# Filters never starve a search


@pytest.mark.parametrize("flushed", [False, True])
def test_a_filter_that_matches_one_in_a_thousand_still_finds_ten(
    db: Database, flushed: bool
) -> None:
    random = np.random.default_rng(1)
    matrix = random.standard_normal((12_000, 16)).astype(np.float32)
    rare = np.arange(12_000) % 1000 == 7
    ids = db.save_columns(embeddings=matrix, attributes={"kind": np.where(rare, "rare", "common")})
    if flushed:
        db.flush()
    query = random.standard_normal(16)
    cosines = matrix[rare].astype(np.float64) @ query / np.linalg.norm(matrix[rare], axis=1)
    wanted = [ids[n] for n in np.flatnonzero(rare)[np.argsort(-cosines)[:10]]]
    hits = db.search_similar(query, 10, -1.0, where={"kind": "rare"})
    assert [memory_id for memory_id, _ in hits] == wanted
    assert db.search_many(query[None], 10, -1.0, where={"kind": "rare"}) == [hits]
    answer = db.query().with_vector(query).with_attribute_filter({"kind": "rare"}).with_limit(10)
    assert answer.ids() == wanted


def test_the_plan_follows_the_share_of_rows_that_match(db: Database) -> None:
    random = np.random.default_rng(2)
    db.save_columns(
        embeddings=random.standard_normal((5_000, 16)).astype(np.float32),
        attributes={"n": np.arange(5_000)},
    )
    db.flush()
    query = db.query().with_vector(np.ones(16)).with_limit(5)
    few = query.with_attribute_filter({"n": {"$lt": 50}}).explain()
    assert "scored only the rows that match: 50" in few.plan
    query = db.query().with_vector(np.ones(16)).with_limit(5)
    many = query.with_attribute_filter({"n": {"$gte": 50}}).explain()
    assert "scanned 5,000 rows and masked the others" in many.plan
    assert many.rows_examined == 5_000
    assert [stage.name for stage in few.stages] == [
        "visible",
        "valid time",
        "attributes",
        "vectors",
        "similarity",
    ]
    assert [stage.rows_out for stage in few.stages] == [5_000, 5_000, 50, 50, 5]
    assert all(stage.milliseconds >= 0 for stage in few.stages)
    assert str(few).count("\n") == len(few.stages)


# Two clocks


def test_both_clocks_are_asked_at_once(db: Database) -> None:
    home = _save(db, "Ana lives in Lima")
    monday = db.tag("monday")
    corrected = db.load(home)  # learned on Tuesday: she had moved in April
    corrected.valid_to = datetime(2025, 4, 1, tzinfo=UTC)
    db.save(corrected)
    db.save(
        MemoryNode(
            attributes={"name": "Ana lives in Quito"}, valid_from=datetime(2025, 4, 1, tzinfo=UTC)
        )
    )
    asked = lambda moment: _names(db.query().valid_at(moment).execute())  # noqa: E731
    assert asked(MARCH) == ["Ana lives in Lima"]
    assert asked(JUNE) == asked("now") == _names(db.query().execute()) == ["Ana lives in Quito"]
    assert len(asked("any")) == 2
    for query in (db.query().as_of("monday"), db.as_of(monday.seq).query()):
        assert _names(query.valid_at(JUNE).execute()) == ["Ana lives in Lima"]


def test_a_search_sees_what_holds_now_unless_told_otherwise(db: Database) -> None:
    past = datetime(2020, 1, 1, tzinfo=UTC)
    old = db.save(MemoryNode([1.0, 0.0], valid_to=past))
    future = db.save(MemoryNode([1.0, 0.1], valid_from=datetime(2999, 1, 1, tzinfo=UTC)))
    present = db.save(MemoryNode([0.5, 0.5], valid_from=past))
    for _ in range(2):
        found = lambda **asked: [i for i, _ in db.search_similar([1, 0], **asked)]  # noqa: E731
        assert found() == [present]
        assert found(valid_at="any") == [old, future, present]
        assert found(valid_at=datetime(2019, 1, 1, tzinfo=UTC)) == [old]
        assert found(valid_at=past, where=AttributeFilter.not_exists("x")) == [present]
        many = db.search_many([[1, 0], [0, 1]], valid_at=datetime(3000, 1, 1, tzinfo=UTC))
        assert [[i for i, _ in hits] for hits in many] == [[future, present], [present, future]]
        assert db.get(old) is not None and len(db) == 3
        db.flush()
    with db.transaction() as tx:
        node = tx.load(present)
        node.valid_to = past + timedelta(days=1)
        tx.save(node)
        assert tx.search_similar([1, 0]) == []
        assert [i for i, _ in tx.search_similar([1, 0], valid_at="any")] == [old, future, present]


@pytest.mark.parametrize("wrong", [datetime(2025, 1, 1), 3, None, "then"])
def test_valid_at_wants_a_moment(db: Database, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="valid_at"):
        db.query().valid_at(wrong)
    with pytest.raises(InvalidInputError, match="valid_at"):
        db.search_similar([1.0], valid_at=wrong)


# Orders


def test_a_weighted_sum_is_worked_out_as_documented(db: Database) -> None:
    _save(db, "near", [1.0, 0.0], importance=0.1)
    _save(db, "important", [0.6, 0.8], importance=1.0)
    _save(db, "plain", [0.8, 0.6])
    query = db.query().with_vector([1.0, 0.0])
    nodes = query.order_by({"similarity": 1.0, "importance": 0.5}).execute()
    assert [(node.attributes["name"], node.score) for node in nodes] == [
        ("important", pytest.approx(1.1, abs=1e-6)),
        ("near", pytest.approx(1.05, abs=1e-6)),
        ("plain", pytest.approx(0.8, abs=1e-6)),
    ]
    nodes = db.query().order_by({"importance": -1}).execute()
    assert _names(nodes) == ["plain", "near", "important"]


def test_recency_halves_and_follows_the_last_save(db: Database) -> None:
    first, _ = _save(db, "first"), _save(db, "second")
    assert _names(db.query().order_by("recency").execute()) == ["second", "first"]
    db.save(db.load(first))
    nodes = db.query().order_by("recency", half_life=timedelta(days=1)).execute()
    assert _names(nodes) == ["first", "second"]
    assert all(node.score == pytest.approx(1.0, abs=1e-3) for node in nodes)
    assert _names(db.query().order_by("recency", descending=False).execute()) == ["second", "first"]


def test_an_attribute_is_sorted_by_kind_and_what_has_none_comes_last(db: Database) -> None:
    for number, value in enumerate(["b", 2, None, 1.5, "a", [1], True, 10**18, 10**18 + 1]):
        _save(db, str(number), value=value)
    _save(db, "absent")
    up = _names(db.query().order_by("value").execute())
    assert up[:7] == ["6", "3", "1", "7", "8", "4", "0"]
    down = _names(db.query().order_by("value", descending=True).execute())
    assert down[:7] == ["0", "4", "8", "7", "1", "3", "6"]
    assert set(up[7:]) == set(down[7:]) == {"2", "5", "absent"}


def test_activation_puts_first_what_was_used_often_and_lately(db: Database) -> None:
    ids = [_save(db, name) for name in ("never", "once", "often")]
    db.load(ids[1])
    for _ in range(5):
        db.load(ids[2])
    asked = db.query().order_by("activation").ids()
    assert asked == [ids[2], ids[1], ids[0]]
    with db.as_of(db.last_seq) as past:  # at the time of that commit nothing had been used
        assert past.query().order_by("activation").ids() == ids


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("similarity",), "vector"),
        (("",), "by"),
        ((3,), "by"),
        (({},), "by"),
        (({"importance": "high"},), "by"),
        (({"importance": float("nan")},), "by"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(
    db: Database, arguments: tuple[Any, ...], named: str
) -> None:
    with pytest.raises(InvalidInputError, match=named):
        db.query().order_by(*arguments).execute()


@pytest.mark.parametrize(
    "option", [{"half_life": timedelta()}, {"half_life": 3}, {"decay": 1}, {"descending": 1}]
)
def test_options_of_an_order_are_checked(db: Database, option: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(option))):
        db.query().order_by("recency", **option)


# Diversity


def test_diversity_takes_what_is_relevant_and_different(db: Database) -> None:
    _save(db, "same 1", [1.0, 0.0, 0.0])
    _save(db, "same 2", [1.0, 0.0, 0.0])
    _save(db, "other", [0.8, 0.6, 0.0])
    _save(db, "far", [0.0, 0.0, 1.0])
    query = db.query().with_vector([1.0, 0.1, 0.0]).with_limit(2)
    assert _names(query.execute()) == ["same 1", "same 2"]
    assert _names(query.with_diversity(0.5).execute()) == ["same 1", "other"]
    assert _names(query.with_diversity(1.0).execute()) == ["same 1", "same 2"]
    assert _names(query.with_diversity(0.0).execute()) == ["same 1", "far"]
    assert _names(query.with_diversity(0.0, candidates=3).execute()) == ["same 1", "other"]


def test_diversity_needs_a_vector_and_a_limit(db: Database) -> None:
    _save(db, "a", [1.0])
    with pytest.raises(InvalidInputError, match="vector"):
        db.query().with_limit(3).with_diversity().execute()
    with pytest.raises(InvalidInputError, match="limit"):
        db.query().with_vector([1.0]).with_diversity().execute()
    for wrong in (-0.1, 1.1, "x", True):
        with pytest.raises(InvalidInputError, match="relevance"):
            db.query().with_diversity(wrong)  # type: ignore[arg-type]


# Facets and groups


def test_facets_count_all_that_meet_the_conditions(db: Database) -> None:
    for number in range(6):
        _save(
            db,
            str(number),
            [1.0, number - 2.5],
            kind="work" if number < 4 else "home",
            tags=["a", "b"] if number % 2 else ["a", "a"],
            mixed=[1, True, "1", 1.0, None, 2][number],
        )
    asked = db.query().with_limit(1).facets("kind", "tags", "mixed", "absent")
    facets = {key: [(each.value, each.count) for each in found] for key, found in asked.items()}
    assert facets["kind"] == [("work", 4), ("home", 2)]
    assert facets["tags"] == [("a", 6), ("b", 3)]
    assert [pair for pair in facets["mixed"] if pair[0] == 1] == [(1, 2), (True, 1)]
    assert facets["absent"] == []
    assert db.query().facets("kind", limit=1) == {"kind": [Facet("work", 4)]}
    near = db.query().with_vector([1.0, 2.0]).with_similarity_threshold(0.5)
    assert near.facets("kind") == {"kind": [Facet("home", 2), Facet("work", 1)]}
    assert db.query().with_attribute_filter({"kind": "home"}).facets("tags")["tags"] == [
        Facet("a", 2),
        Facet("b", 1),
    ]


def test_groups_come_in_the_order_of_their_best(db: Database) -> None:
    for name, kind, vector in (
        ("a", "x", [1.0, 0.9]),
        ("b", "y", [1.0, 0.1]),
        ("c", "x", [1.0, 0.2]),
        ("d", "x", [1.0, 0.5]),
    ):
        _save(db, name, vector, kind=kind)
    db.save(MemoryNode([1.0, 0.0], attributes={"name": "none"}))
    groups = db.query().with_vector([1.0, 0.0]).group_by("kind", size=2)
    assert [(g.value, g.count, _names(g.memories)) for g in groups] == [
        ("y", 1, ["b"]),
        ("x", 3, ["c", "d"]),
    ]
    assert groups[0].memories[0].score == pytest.approx(0.995, abs=1e-3)
    limited = db.query().with_vector([1.0, 0.0]).with_limit(1).with_offset(1).group_by("kind")
    assert [group.value for group in limited] == ["x"]


# Pages


def test_pages_stay_what_they_were_while_others_write(db: Database) -> None:
    for number in range(10):
        _save(db, str(number), n=number)
    query = lambda: db.query().order_by("n")  # noqa: E731
    page = query().page(4)
    seen = _names(page.memories)
    db.save(MemoryNode(attributes={"name": "new", "n": -1}))
    db.delete(query().ids()[3])
    db.compact()
    while page.cursor is not None:
        page = query().page(4, page.cursor)
        seen += _names(page.memories)
    assert seen == [str(number) for number in range(10)]
    assert query().with_offset(2).with_limit(5).page(3).cursor is not None


def test_limit_and_offset_are_for_all_pages_together(db: Database) -> None:
    for number in range(10):
        _save(db, str(number))
    query = db.query().with_offset(1).with_limit(5)
    pages = [_names(memories) for memories in query.pages(2)]
    assert pages == [["1", "2"], ["3", "4"], ["5"]]
    assert _names(query.execute()) == ["1", "2", "3", "4", "5"]
    assert [len(memories) for memories in db.query().pages(5)] == [5, 5]
    assert list(db.query().with_ids([]).pages()) == []


def test_pages_hold_their_moment_when_the_policy_lets_it_go(db: Database) -> None:
    db.set_history(KeepLast(1))
    ids = [_save(db, str(number)) for number in range(4)]
    pages, cursor = db.query().pages(2), db.query().page(2).cursor
    assert _names(next(pages)) == ["0", "1"]
    for memory_id in ids:
        node = db.load(memory_id)
        node.set_attribute("name", "later")
        db.save(node)
    db.compact()
    assert _names(next(pages)) == ["2", "3"]
    with pytest.raises(HistoryUnavailableError):
        db.query().page(2, cursor)


def test_a_cursor_belongs_to_its_query(db: Database) -> None:
    for number in range(4):
        _save(db, str(number))
    cursor = db.query().page(2).cursor
    assert cursor is not None
    with pytest.raises(InvalidInputError, match="another query"):
        db.query().with_limit(3).page(2, cursor)
    for wrong in ("", "x", cursor[:-2], cursor.swapcase(), cursor + "AAAA", "é", 3):
        with pytest.raises(InvalidInputError, match="cursor"):
            db.query().page(2, wrong)  # type: ignore[arg-type]
    with db.transaction() as tx, pytest.raises(InvalidInputError, match="with_offset"):
        tx.query().page(2)


# Connections


def test_connected_to_narrows_a_query_down(db: Database) -> None:
    ids = [_save(db, name, [1.0, n]) for n, name in enumerate("abcde")]
    db.connect(ids[0], ids[1], "Causation", strength=0.9)
    db.connect(ids[1], ids[2], "Causation", strength=0.2)
    db.connect(ids[3], ids[0])
    db.connect(ids[0], ids[0])
    near = lambda *asked, **named: _names(  # noqa: E731
        db.query().with_vector([1.0, 0.0]).connected_to(ids[0], *asked, **named).execute()
    )
    assert near() == ["b", "d"]
    assert near(max_hops=2) == ["b", "c", "d"]
    assert near("Causation", 2) == ["b", "c"]
    assert near("Causation", 2, min_strength=0.5) == ["b"]
    assert near(direction="incoming") == ["d"]
    assert near(("Association", "Causation"), direction="outgoing") == ["b"]
    assert near("no such type") == []
    before = db.last_seq
    db.disconnect(ids[0], ids[1])
    assert near() == ["d"]
    past = db.query().as_of(before).connected_to(ids[0])
    assert _names(past.execute()) == ["b", "d"]
    with db.transaction() as tx:
        tx.connect(ids[0], ids[4])
        assert _names(tx.query().connected_to(ids[0]).execute()) == ["d", "e"]
    assert db.query().connected_to("00000000-0000-0000-0000-000000000000").ids() == []


@pytest.mark.parametrize(
    ("named", "value"),
    [("max_hops", 0), ("max_hops", -1), ("direction", "up"), ("min_strength", 2)],
)
def test_connected_to_checks_what_it_is_told(db: Database, named: str, value: Any) -> None:
    memory_id = _save(db, "a")
    with pytest.raises(InvalidInputError, match=named):
        db.query().connected_to(memory_id, **{named: value})


@pytest.mark.parametrize("wrong", [-1, 1.5, True, None])
def test_an_offset_is_a_count(db: Database, wrong: Any) -> None:
    with pytest.raises(InvalidInputError, match="offset"):
        db.query().with_offset(wrong)
