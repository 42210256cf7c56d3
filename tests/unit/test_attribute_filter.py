"""AttributeFilter: which attributes match, and what is refused when a filter is made."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engramdb.errors import InvalidInputError
from engramdb.query.attribute_filter import AttributeFilter as F

NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(hours=1)
MISSING = "<missing>"


def _matches(condition: F, value: Any) -> bool:
    return condition.matches({} if value is MISSING else {"a": value, "other": 1})


@pytest.mark.parametrize(
    ("value", "equal", "different"),
    [
        ("work", ["work"], ["Work", "wor", b"work", "", None, MISSING, ["work"]]),
        (1, [1, 1.0], [True, "1", 1.5, 2, MISSING]),
        (1.0, [1, 1.0], [True, "1"]),
        (2**53 + 1, [2**53 + 1], [float(2**53)]),
        (True, [True], [1, 1.0, "True", False]),
        (False, [False], [0, 0.0, None, ""]),
        (None, [None], [0, False, "", MISSING]),
        (b"ab", [b"ab"], ["ab", b"abc"]),
        (NOON, [NOON, NOON.astimezone(timezone(timedelta(hours=5)))], [LATER, NOON.isoformat()]),
        ([1, "b"], [[1, "b"], [1.0, "b"]], [[True, "b"], [1], [1, "b", 2], ["b", 1]]),
        ({"b": 1}, [{"b": 1}, {"b": 1.0}], [{"b": True}, {}, {"b": 1, "c": 1}, {"c": 1}]),
        (float("inf"), [float("inf")], [float("-inf"), 2**63 - 1]),
    ],
    ids=repr,
)
def test_equality_is_of_value_and_kind(value: Any, equal: list[Any], different: list[Any]) -> None:
    for found, expected in [(f, True) for f in equal] + [(f, False) for f in different]:
        assert _matches(F.equals("a", value), found) is expected
        assert _matches(F.not_equals("a", value), found) is not expected
        assert _matches(F.is_in("a", ["something else", value]), found) is expected


@pytest.mark.parametrize(
    ("low", "middle", "high"),
    [
        (1, 1.5, 2),
        (-1.5, 0, 2**62),
        (float("-inf"), 0, float("inf")),
        (2**53, 2**53 + 1, 2**53 + 2),
        ("a", "ab", "b"),
        (b"", b"\x00", b"\xff"),
        (NOON, NOON + timedelta(microseconds=1), LATER),
    ],
)
def test_values_of_one_kind_are_in_order(low: Any, middle: Any, high: Any) -> None:
    values = [low, middle, high]
    above, at_least = F.greater_than("a", middle), F.greater_or_equal("a", middle)
    below, at_most = F.less_than("a", middle), F.less_or_equal("a", middle)
    assert [_matches(above, value) for value in values] == [False, False, True]
    assert [_matches(at_least, value) for value in values] == [False, True, True]
    assert [_matches(below, value) for value in values] == [True, False, False]
    assert [_matches(at_most, value) for value in values] == [True, True, False]
    assert [_matches(F.between("a", low, middle), value) for value in values] == [True, True, False]
    assert [_matches(F.between("a", middle, high), value) for value in values] == [
        False,
        True,
        True,
    ]


@pytest.mark.parametrize("bound", [5, "5", b"5", NOON], ids=repr)
def test_values_of_different_kinds_do_not_match_and_do_not_fail(bound: Any) -> None:
    for other in [5, "5", b"5", NOON, True, None, [5], {"b": 5}, MISSING]:
        expected = other is not MISSING and type(other) is type(bound)
        assert _matches(F.greater_or_equal("a", bound), other) is expected
        assert _matches(F.less_or_equal("a", bound), other) is expected
        assert _matches(F.between("a", bound, bound), other) is expected
        assert _matches(F.greater_than("a", bound), other) is False
        assert _matches(F.less_than("a", bound), other) is False


@pytest.mark.parametrize(
    ("found", "value", "expected"),
    [
        ("a needle here", "needle", True),
        ("a needle here", "", True),
        ("a needle here", "Needle", False),
        ("123", 2, False),
        (b"abc", b"b", True),
        (b"abc", "b", False),
        (["a", 1, ["x"]], "a", True),
        (["a", 1, ["x"]], 1.0, True),
        (["a", 1, ["x"]], ["x"], True),
        (["a", 1, ["x"]], True, False),
        (["abc"], "b", False),
        ({"a": 1}, "a", False),
        (12, 1, False),
        (None, None, False),
        (MISSING, "a", False),
    ],
)
def test_contains_looks_inside_text_and_lists(found: Any, value: Any, expected: bool) -> None:
    assert _matches(F.contains("a", value), found) is expected


@pytest.mark.parametrize(
    ("found", "starts", "ends"),
    [
        ("agent", True, False),
        ("an agent", False, False),
        ("the agency", False, False),
        ("reagent", False, False),
        ("agent ag", True, True),
        (["ag"], False, False),
        (b"ag", False, False),
        (None, False, False),
        (MISSING, False, False),
    ],
)
def test_text_starts_and_ends(found: Any, starts: bool, ends: bool) -> None:
    assert _matches(F.starts_with("a", "ag"), found) is starts
    assert _matches(F.ends_with("a", "ag"), found) is ends


def test_existence_is_about_the_key_not_the_value() -> None:
    for found, there in [(1, True), (None, True), (False, True), (MISSING, False)]:
        assert _matches(F.exists("a"), found) is there
        assert _matches(F.not_exists("a"), found) is not there


def test_is_in_nothing_matches_nothing_and_any_iterable_of_values_will_do() -> None:
    assert not F.is_in("a", []).matches({"a": None})
    for values in ({1, 2}, (1, 2), iter([1, 2]), {1: "x", 2: "y"}.keys()):
        condition = F.is_in("a", values)
        assert [condition.matches({"a": value}) for value in (1, 2.0, 3, True)] == [
            True,
            True,
            False,
            False,
        ]
    nested = F.is_in("a", [[1], {"b": 2}])
    assert [nested.matches({"a": value}) for value in ([1.0], {"b": 2}, [2], 1)] == [
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"source": {"tool": {"name": 1}}}, 1),
        ({"source.tool.name": 2, "source": {"tool": {"name": 1}}}, 2),
        ({"source": {"tool.name": 3, "tool": {"name": 1}}}, 3),
        ({"source.tool": {"name": 4}, "source": {"tool": {"name": 1}}}, 4),
        ({"source.tool": "no dict", "source": {"tool": {"name": 5}}}, 5),
        ({"source.tool": {"other": 1}, "source": {"tool": {"name": 6}}}, 6),
        ({"source": {"tool": {"name": None}}}, None),
        ({"source": {"tool": {}}}, MISSING),
        ({"source": {"tool": "name"}}, MISSING),
        ({"source": [{"tool": {"name": 1}}]}, MISSING),
        ({"source": None}, MISSING),
        ({}, MISSING),
    ],
)
def test_a_dotted_key_is_a_path_unless_there_is_a_literal_key(
    attributes: dict[str, Any], found: Any
) -> None:
    assert F.exists("source.tool.name").matches(attributes) is (found is not MISSING)
    if found is not MISSING:
        assert F.equals("source.tool.name", found).matches(attributes)


def test_filters_combine_with_and_or_not() -> None:
    work, urgent = F.equals("category", "work"), F.greater_than("importance", 0.7)
    rows = [
        {"category": "work", "importance": 0.9},
        {"category": "work", "importance": 0.1},
        {"category": "home", "importance": 0.9},
        {},
    ]

    def chosen(condition: F) -> list[int]:
        return [number for number, row in enumerate(rows) if condition.matches(row)]

    assert chosen(work & urgent) == [0]
    assert chosen(work | urgent) == [0, 1, 2]
    assert chosen(~work) == [2, 3]
    assert chosen(~~work) == [0, 1]
    assert chosen(~(work & urgent)) == [1, 2, 3]
    assert chosen(~work & ~urgent) == [3]
    assert chosen(work & (urgent | ~urgent)) == [0, 1]
    with pytest.raises(TypeError):
        work & {"category": "work"}  # type: ignore[operator]
    with pytest.raises(TypeError):
        work | None  # type: ignore[operator]


@given(st.lists(st.booleans(), min_size=1, max_size=6), st.booleans())
def test_a_chain_of_conditions_is_flat_and_means_all_or_any(holds: list[bool], both: bool) -> None:
    parts = [F.equals("a", 1) if hold else F.equals("a", 2) for hold in holds]
    chain = parts[0]
    for part in parts[1:]:
        chain = chain & part if both else chain | part
    assert chain.matches({"a": 1}) is (all(holds) if both else any(holds))
    if len(parts) > 1:
        assert chain.parts == tuple(parts)


@pytest.mark.parametrize(
    ("where", "same"),
    [
        ({"a": 1}, F.equals("a", 1)),
        ({"a": None}, F.equals("a", None)),
        ({"a": [1, 2]}, F.equals("a", [1, 2])),
        ({"a": {"b": 1}}, F.equals("a", {"b": 1})),
        ({"a": {}}, F.equals("a", {})),
        ({"a": {"$eq": {"b": 1}}}, F.equals("a", {"b": 1})),
        ({"a": {"$ne": 1}}, F.not_equals("a", 1)),
        ({"a": {"$gt": 1}}, F.greater_than("a", 1)),
        ({"a": {"$gte": 1}}, F.greater_or_equal("a", 1)),
        ({"a": {"$lt": NOON}}, F.less_than("a", NOON)),
        ({"a": {"$lte": "z"}}, F.less_or_equal("a", "z")),
        ({"a": {"$in": [1, "b"]}}, F.is_in("a", [1, "b"])),
        ({"a": {"$nin": [1, "b"]}}, ~F.is_in("a", [1, "b"])),
        ({"a": {"$contains": "x"}}, F.contains("a", "x")),
        ({"a": {"$exists": True}}, F.exists("a")),
        ({"a": {"$exists": False}}, F.not_exists("a")),
        ({"a": {"$not": {"$gt": 1}}}, ~F.greater_than("a", 1)),
        ({"a": {"$gte": 1, "$lt": 2}}, F.greater_or_equal("a", 1) & F.less_than("a", 2)),
        ({"a": 1, "b.c": 2}, F.equals("a", 1) & F.equals("b.c", 2)),
        ({"$and": [{"a": 1}, {"b": 2}]}, F.equals("a", 1) & F.equals("b", 2)),
        ({"$or": [{"a": 1}, {"b": 2}]}, F.equals("a", 1) | F.equals("b", 2)),
        ({"$not": {"a": 1}}, ~F.equals("a", 1)),
        (
            {"a": 1, "$or": [{"b": 1}, {"$not": {"c": {"$in": []}}}]},
            F.equals("a", 1) & (F.equals("b", 1) | ~F.is_in("c", [])),
        ),
    ],
    ids=repr,
)
def test_a_dict_says_the_same_as_the_constructors(where: dict[str, Any], same: F) -> None:
    assert F.from_dict(where) == same


def test_an_empty_dict_matches_everything() -> None:
    assert F.from_dict({}).matches({})
    assert F.from_dict({}).matches({"a": 1})


@pytest.mark.parametrize(
    ("where", "argument", "problem"),
    [
        (None, "where", "expected a dict, got NoneType"),
        ([("a", 1)], "where", "expected a dict, got list"),
        ({1: 2}, "where", "a key has to be str"),
        ({"": 2}, "where", "a key has 1 to 512"),
        ({"a": (1, 2)}, "where['a']", "use a list"),
        ({"a": float("nan")}, "where['a']", "NaN"),
        ({"a": np.float32(1)}, "where['a']", "item()"),
        ({"a": {"$gt": datetime(2024, 5, 1)}}, "where['a']", "without a timezone"),
        ({"a": {"$regex": "x"}}, "where['a']", "'$regex' is not an operator; there are $eq"),
        ({"a": {"$gt": 1, "b": 2}}, "where['a']", "'b' is not an operator"),
        ({"a": {"$gt": True}}, "where['a']", "needs a number, str, bytes or datetime, got bool"),
        ({"a": {"$lt": None}}, "where['a']", "got NoneType"),
        ({"a": {"$lte": [1]}}, "where['a']", "got list"),
        ({"a": {"$in": "abc"}}, "where['a']", "needs a list of values, got str"),
        ({"a": {"$in": 3}}, "where['a']", "needs a list of values, got int"),
        ({"a": {"$nin": {"b": 1}}}, "where['a']", "needs a list of values, got dict"),
        ({"a": {"$in": [1, {2}]}}, "where['a'][1]", "use a sorted list"),
        ({"a": {"$exists": 1}}, "where['a']", "needs True or False, got 1"),
        ({"a": {"$not": 1}}, "where['a']", "expected operators such as"),
        ({"a": {"$not": {}}}, "where['a']", "expected operators such as"),
        ({"$and": {"a": 1}}, "where['$and']", "expected a list of dicts"),
        ({"$or": []}, "where['$or']", "expected a list of dicts"),
        ({"$or": [{"a": 1}, 3]}, "where['$or'][1]", "expected a dict, got int"),
        ({"$or": [{"$and": [{"$nor": 1}]}]}, "where['$or'][0]['$and'][0]['$nor']", "expected an"),
        ({"$not": [1]}, "where['$not']", "expected a dict, got list"),
        ({"$gt": 5}, "where['$gt']", "other operators go inside"),
    ],
    ids=repr,
)
def test_a_malformed_dict_is_refused_where_it_is_wrong(
    where: Any, argument: str, problem: str
) -> None:
    with pytest.raises(InvalidInputError) as caught:
        F.from_dict(where)
    assert caught.value.argument == argument
    assert problem in str(caught.value)


def test_a_dict_that_nests_without_end_is_refused() -> None:
    outside: dict[str, Any] = {"a": 1}
    inside: dict[str, Any] = {"$gt": 1}
    for _ in range(5_000):
        outside, inside = {"$not": outside}, {"$not": inside}
    for where in (outside, {"a": inside}):
        with pytest.raises(InvalidInputError, match="where: deeper than 64 levels"):
            F.from_dict(where)


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (lambda: F.between("a", 2, 1), "two values in order, got 2 and 1"),
        (lambda: F.between("a", 1, "2"), "two values in order"),
        (lambda: F.between("a", None, 1), "got NoneType"),
        (lambda: F.greater_than("a", {"b": 1}), "got dict"),
        (lambda: F.starts_with("a", 1), "starts_with needs a str, got int"),  # type: ignore[arg-type]
        (lambda: F.ends_with("a", b"x"), "ends_with needs a str, got bytes"),  # type: ignore[arg-type]
        (lambda: F.exists(3), "a key has to be str"),  # type: ignore[arg-type]
        (lambda: F.equals("a", object()), "cannot be stored"),
    ],
)
def test_a_constructor_refuses_what_could_never_match(make: Callable[[], F], problem: str) -> None:
    with pytest.raises(InvalidInputError, match=r"^where") as caught:
        make()
    assert problem in str(caught.value)


def test_a_filter_is_a_value() -> None:
    tags = ["x"]
    condition = F.equals("tags", tags) & ~F.is_in("a", [1, [2]])
    tags.append("y")
    assert condition.matches({"tags": ["x"]})
    assert condition == F.equals("tags", ["x"]) & ~F.is_in("a", [1, [2]])
    assert len({condition, F.equals("tags", ["x"]) & ~F.is_in("a", [1, [2]])}) == 1
    assert F.equals("a", 1) != F.equals("a", True)
    assert F.equals("a", 1) != "AttributeFilter.equals('a', 1)"
    for name in ("key", "value", "something"):
        with pytest.raises(AttributeError, match="cannot be changed"):
            setattr(condition, name, 1)
    with pytest.raises(AttributeError, match="cannot be changed"):
        del condition.key
    restored = pickle.loads(pickle.dumps(condition))
    assert restored == condition
    assert not restored.matches({"tags": ["x"], "a": 1})


def test_the_repr_is_how_it_was_made() -> None:
    condition = F.between("a", 1, 2) & (F.exists("b") | ~F.is_in("c", ["x"])) & F.from_dict({})
    assert repr(condition) == (
        "(AttributeFilter.between('a', 1, 2) & (AttributeFilter.exists('b') | "
        "~AttributeFilter.is_in('c', ['x'])))"
    )
    assert eval(repr(condition), {"AttributeFilter": F}) == condition
    assert eval(repr(F.from_dict({})), {"AttributeFilter": F}) == F.from_dict({})
