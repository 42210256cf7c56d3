"""Queries against a plain evaluation, memory by memory: whatever is asked, wherever they lie.

The plain one keeps every version in a list and decides each condition in Python. The database has
some of its memories in memory, some in files, some compacted, and is asked now and as of the past.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engramdb import AttributeFilter, Database, MemoryNode, Query, TemporalFilter

START = datetime(2025, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
CREATED = [START + n * DAY for n in range(4)]
HALF_LIFE = timedelta(days=3650)


@dataclass(frozen=True)
class Memory:
    """What was saved, and by which commit it was replaced or deleted."""

    id: str
    vector: tuple[float, ...] | None
    attributes: dict[str, Any]
    created: datetime
    valid_from: datetime | None
    valid_to: datetime | None
    seq: int
    until: float = math.inf


VECTORS = st.none() | st.tuples(*[st.sampled_from([-1.0, 0.0, 0.5, 1.0, 2.0])] * 3)
ATTRIBUTES = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.sampled_from(["work", "home", "workshop", ""]),
        "importance": st.sampled_from([0, 0.25, 0.5, 1, 1.0, -2]),
        "tags": st.lists(st.sampled_from(["a", "b", 1]), max_size=3),
        "rank": st.sampled_from([1, 2.5, "x", "y", True, None, b"z"]),
        "source": st.fixed_dictionaries({"tool": st.sampled_from(["web", "mail"])}),
    },
)
MOMENTS = st.none() | st.sampled_from([START + n * DAY for n in range(6)])
FILTERS: st.SearchStrategy[AttributeFilter] = st.recursive(
    st.one_of(
        st.builds(AttributeFilter.equals, st.just("kind"), st.sampled_from(["work", "", "none"])),
        st.builds(AttributeFilter.starts_with, st.just("kind"), st.just("work")),
        st.builds(AttributeFilter.greater_or_equal, st.just("importance"), st.sampled_from([0.5])),
        st.builds(AttributeFilter.contains, st.just("tags"), st.sampled_from(["a", 1])),
        st.builds(AttributeFilter.equals, st.just("source.tool"), st.just("web")),
        st.builds(AttributeFilter.not_equals, st.just("rank"), st.sampled_from([1, "x", True])),
        st.builds(AttributeFilter.exists, st.sampled_from(["rank", "tags"])),
    ),
    lambda inner: st.one_of(
        st.builds(lambda a, b: a & b, inner, inner),
        st.builds(lambda a, b: a | b, inner, inner),
        st.builds(lambda a: ~a, inner),
    ),
    max_leaves=3,
)


@st.composite
def _steps(draw: st.DrawFn) -> list[tuple[str, Any]]:
    steps: list[tuple[str, Any]] = []
    for _ in range(draw(st.integers(1, 10))):
        kind = draw(st.sampled_from(["save", "save", "save", "many", "delete", "flush", "compact"]))
        if kind == "save":
            steps.append((kind, (draw(st.integers(0, 7)), *_content(draw))))
        elif kind == "many":
            count = draw(st.integers(1, 6))
            steps.append((kind, [(n, *_content(draw)) for n in range(count)]))
        elif kind == "delete":
            steps.append((kind, draw(st.integers(0, 7))))
        else:
            steps.append((kind, None))
    return steps


def _content(draw: st.DrawFn) -> tuple[Any, ...]:
    start, end = draw(MOMENTS), draw(MOMENTS)
    if start is not None and end is not None and start >= end:
        start = None
    return draw(VECTORS), draw(ATTRIBUTES), draw(st.sampled_from(CREATED)), start, end


def _id(number: int) -> str:
    return f"00000000-0000-7000-8000-{number:012d}"


class Plain:
    """Every version, in the order of the commits."""

    def __init__(self) -> None:
        self.versions: list[Memory] = []

    def end(self, memory_id: str, seq: int) -> None:
        self.versions = [
            replace(each, until=seq) if each.id == memory_id and each.until > seq else each
            for each in self.versions
        ]

    def visible(self, seq: int) -> list[Memory]:
        return [each for each in self.versions if each.seq <= seq < each.until]


def _build(db: Database, steps: list[tuple[str, Any]]) -> Plain:
    plain = Plain()
    for kind, content in steps:
        if kind == "flush":
            db.flush()
        elif kind == "compact":
            db.compact()
        elif kind == "delete":
            if db.delete(_id(content)):
                plain.end(_id(content), db.last_seq)
        else:
            rows = content if kind == "many" else [content]
            nodes = [
                MemoryNode(
                    vector,
                    id=_id(number),
                    attributes=attributes,
                    creation_timestamp=created,
                    valid_from=valid_from,
                    valid_to=valid_to,
                )
                for number, vector, attributes, created, valid_from, valid_to in rows
            ]
            db.save_many(nodes)
            for number, *rest in rows:
                plain.end(_id(number), db.last_seq)
                plain.versions.append(Memory(_id(number), *rest, seq=db.last_seq))
    return plain


@dataclass(frozen=True)
class Question:
    """One of many, in the words of the query and of the plain evaluation."""

    vector: tuple[float, ...] | None
    threshold: float | None
    attributes: tuple[AttributeFilter, ...]
    created: tuple[datetime, datetime] | None
    ids: frozenset[int] | None
    excluded: frozenset[int]
    valid_at: Any
    order: str | None
    descending: bool | None
    offset: int
    limit: int | None


QUESTIONS = st.builds(
    Question,
    vector=VECTORS,
    threshold=st.none() | st.sampled_from([-0.5, 0.0, 0.9]),
    attributes=st.lists(FILTERS, max_size=2).map(tuple),
    created=st.none() | st.just((CREATED[1], CREATED[2])),
    ids=st.none() | st.frozensets(st.integers(0, 9), max_size=5),
    excluded=st.frozensets(st.integers(0, 9), max_size=2),
    valid_at=st.sampled_from(["now", "any", START + 2 * DAY, START + 5 * DAY]),
    order=st.sampled_from([None, None, "similarity", "recency", "importance", "rank", "sum"]),
    descending=st.sampled_from([None, True, False]),
    offset=st.sampled_from([0, 0, 1, 3]),
    limit=st.none() | st.integers(1, 5),
)


def _asked(query: Query, question: Question) -> Query:
    if question.vector is not None:
        query.with_vector(question.vector)
        if question.threshold is not None:
            query.with_similarity_threshold(question.threshold)
    for condition in question.attributes:
        query.with_attribute_filter(condition)
    if question.created is not None:
        query.with_temporal_filter(TemporalFilter.between(*question.created))
    if question.ids is not None:
        query.with_ids(_id(number) for number in question.ids)
    query.with_exclude_ids([_id(number) for number in question.excluded])
    query.valid_at(question.valid_at)
    order: Any = question.order
    if order == "sum":
        order = {"importance": 0.5, "recency": 1.0}
        if question.vector is not None:
            order["similarity"] = 2.0
    if order is not None and (order != "similarity" or question.vector is not None):
        query.order_by(order, descending=question.descending, half_life=HALF_LIFE)
    if question.limit is not None:
        query.with_limit(question.limit)
    return query.with_offset(question.offset)


def _cosine(memory: Memory, vector: tuple[float, ...]) -> float:
    a, b = np.array(memory.vector), np.array(vector)
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return round(float(a @ b) / length, 12) if length else 0.0


def _holds(memory: Memory, moment: datetime) -> bool:
    return (memory.valid_from is None or memory.valid_from <= moment) and (
        memory.valid_to is None or moment < memory.valid_to
    )


def _matches(memory: Memory, question: Question, now: datetime) -> bool:
    if question.vector is not None:
        if memory.vector is None:
            return False
        threshold = -1.0 if question.threshold is None else question.threshold
        if _cosine(memory, question.vector) < threshold:
            return False
    moment = now if question.valid_at == "now" else question.valid_at
    number = int(memory.id[-12:])
    return (
        all(condition.matches(memory.attributes) for condition in question.attributes)
        and (question.created is None or question.created[0] <= memory.created <= CREATED[2])
        and (question.ids is None or number in question.ids)
        and number not in question.excluded
        and (question.valid_at == "any" or _holds(memory, moment))
    )


def _importance(memory: Memory) -> float | None:
    value = memory.attributes.get("importance")
    return None if value is None else float(value)


_RANKS = ("bool", "number", "str", "bytes")


def _rank_of(memory: Memory) -> tuple[int, Any] | None:
    value = memory.attributes.get("rank")
    for place, kinds in enumerate((bool, (int, float), str, bytes)):
        if isinstance(value, kinds):  # bool first: it is an int too
            return place, value
    return None


def _expected(memories: list[Memory], question: Question, times: dict[int, float]) -> list[str]:
    found = sorted(memories, key=lambda memory: memory.id)
    order, descending = question.order, question.descending
    key: Callable[[Memory], Any] | None = None
    vector = question.vector
    if order == "similarity" and vector is None:
        order = None
    if order in (None, "similarity") and vector is not None:
        key = lambda memory: _cosine(memory, vector)  # noqa: E731
        descending = True if order is None else descending
    elif order == "recency":
        key = lambda memory: times[memory.seq]  # noqa: E731
    elif order == "importance":
        key = _importance
    elif order == "rank":
        key, descending = _rank_of, bool(descending)
    if key is None:
        return [memory.id for memory in found]
    descending = True if descending is None else descending
    valued = [memory for memory in found if key(memory) is not None]
    rest = [memory for memory in found if key(memory) is None]
    valued.sort(key=key, reverse=descending)
    return [memory.id for memory in valued + rest]


def _check(query: Query, question: Question, memories: list[Memory], times: Any) -> None:
    stop = None if question.limit is None else question.offset + question.limit
    nodes = query.execute()
    assert [node.id for node in nodes] == query.ids()
    assert query.count() == len(nodes)
    by_id = {memory.id: memory for memory in memories}
    if question.order == "sum":
        assert len(nodes) == len(memories[question.offset : stop])
        scores = [node.score for node in nodes]
        descending = question.descending in (None, True)
        assert scores == sorted(scores, reverse=descending)  # type: ignore[type-var]
        for node in nodes:
            memory, age = by_id[node.id], query_age(times, by_id[node.id])
            expected = 0.5 * (_importance(memory) or 0.0) + 0.5 ** (age / HALF_LIFE)
            if question.vector is not None:
                expected += 2 * _cosine(memory, question.vector)
            assert node.score == pytest.approx(expected, abs=1e-5)
    else:
        expected_ids = _expected(memories, question, times)[question.offset : stop]
        assert [node.id for node in nodes] == expected_ids
    for node in nodes:
        assert dict(node.attributes) == by_id[node.id].attributes


def query_age(times: dict[int, Any], memory: Memory) -> timedelta:
    return max(timedelta(), times[-1] - times[memory.seq])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(_steps(), st.lists(QUESTIONS, min_size=1, max_size=4), st.data())
def test_a_query_finds_what_a_plain_evaluation_finds(
    steps: list[tuple[str, Any]], questions: list[Question], data: st.DataObject
) -> None:
    with Database.in_memory(background=False, memtable_bytes=4096) as db:
        plain = _build(db, steps)
        times: dict[int, Any] = {each.seq: each.timestamp for each in db.changes(0)}
        past_seq = data.draw(st.integers(0, db.last_seq))
        for question in questions:
            times[-1] = now = datetime.now(UTC)
            memories = [m for m in plain.visible(db.last_seq) if _matches(m, question, now)]
            _check(_asked(db.query(), question), question, memories, times)
            times[-1] = then = db.as_of(past_seq).timestamp
            memories = [m for m in plain.visible(past_seq) if _matches(m, question, then)]
            _check(_asked(db.query().as_of(past_seq), question), question, memories, times)
            with db.as_of(past_seq) as past:
                _check(_asked(past.query(), question), question, memories, times)
