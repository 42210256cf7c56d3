"""Similarity search in a named space, as callers use it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from engramdb import Database, InvalidInputError, MemoryNode

TITLE = [1.0, 0.0, 0.0]
TOKENS = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0]], np.float32)


@pytest.fixture
def db() -> Iterator[Database]:
    with Database.in_memory(background=False) as opened:
        yield opened


def test_search_in_a_space(db: Database) -> None:
    ids = [
        db.save(MemoryNode(vectors={"title": row}, attributes={"n": n}))
        for n, row in enumerate(np.eye(3).tolist())
    ]
    assert db.search_similar([1, 0.5, 0], 2, space="title") == [
        (ids[0], pytest.approx(1 / 1.25**0.5)),
        (ids[1], pytest.approx(0.5 / 1.25**0.5)),
    ]
    assert db.search_similar([1, 0.5, 0], 1, where={"n": {"$gt": 0}}, space="title")[0][0] == ids[1]
    many = db.search_many(np.eye(3), 1, space="title")
    assert [hits[0] for hits in many] == [(each, 1.0) for each in ids]
    assert db.search_many([], space="title") == []
    db.delete(ids[0])
    assert [each for each, _ in db.search_similar([1, 0.5, 0], space="title")] == ids[1:]


def test_late_interaction(db: Database) -> None:
    near = db.save(MemoryNode(vectors={"tokens": TOKENS}))
    far = db.save(MemoryNode(vectors={"tokens": TOKENS[:1]}))
    db.flush()
    other = db.save(MemoryNode(vectors={"tokens": TOKENS[1]}))  # a single vector beside them
    hits = db.search_similar(TOKENS, space="tokens")
    assert hits == [(near, 1.0), *sorted([(far, 0.5), (other, 0.5)])]
    assert db.search_similar(TOKENS[0], 3, -1.0, space="tokens") == [
        *sorted([(near, 1.0), (far, 1.0)]),
        (other, 0.0),
    ]
    assert db.search_similar(TOKENS, 1, 0.9, space="tokens") == [(near, 1.0)]


@pytest.mark.parametrize(
    ("vector", "changes", "argument"),
    [
        (TITLE, {"space": "none"}, "space"),
        (TITLE, {"space": 3}, "space"),
        (TITLE, {"space": None}, "space"),
        ([1.0], {"space": "title"}, "vector"),
        ([[1.0] * 4], {"space": "title"}, "vector"),
        (TITLE, {"space": "title", "limit": 0}, "limit"),
        (TITLE, {"space": "title", "threshold": "x"}, "threshold"),
        (TITLE, {"space": "title", "exact": 1}, "exact"),
        (TITLE, {"space": "title", "where": 1}, "where"),
        ([1.0, float("nan"), 0.0], {"space": "title"}, "vector"),
        ([[1.0, 2.0]], {}, "vector"),
    ],
)
def test_what_search_refuses(db: Database, vector: Any, changes: Any, argument: str) -> None:
    db.save(MemoryNode([1.0, 2.0], vectors={"title": TITLE, "tokens": TOKENS}))
    with pytest.raises(InvalidInputError) as error:
        db.search_similar(vector, **changes)
    assert error.value.argument == argument
    if argument == "space":
        assert "'title', 'tokens'" in str(error.value)


def test_a_database_without_spaces_says_so(db: Database) -> None:
    with pytest.raises(InvalidInputError, match="there are: none"):
        db.search_similar(TITLE, space="title")
    with pytest.raises(InvalidInputError, match="there are: none"):
        db.search_many([TITLE], space="title")
