"""The queries that were asked: how many are kept, and what they change."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest

from engramdb.index.codes.clusters import Effort
from engramdb.indexing import indexer as indexer_module
from engramdb.indexing.asked import KEPT, Asked
from engramdb.lsm.environment import MemoryEnvironment
from tests.unit.codes_support import (
    gaussian,
    indexer_of,
    mixture,
    open_database,
    planned,
    questions,
    recall_of,
    save_with_codes,
    searched,
    small_files_have_codes,
)

VECTORS = mixture(3000, 56, spread=0.4)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(indexer_module, "_INTERVAL_S", 0.0)
    monkeypatch.setattr(indexer_module, "_REST", 0)
    with small_files_have_codes():
        yield


def test_the_first_queries_are_kept_and_then_every_eighth_of_the_latest() -> None:
    asked = Asked()
    for number in range(1, 257):
        asked.record(np.array([number, 0], np.float32))
    assert asked.count == len(asked.queries()) == 256
    for number in range(257, 20_001):
        asked.record(np.array([number, 0], np.float32))
    assert asked.count == 20_000 and len(asked.queries()) == KEPT
    assert [row[0] for row in list(asked._kept)[-2:]] == [19_992, 20_000]


def test_they_are_of_unit_length_and_a_zero_vector_is_none() -> None:
    asked = Asked()
    assert asked.queries().shape[0] == 0
    huge, tiny = np.array([3e38, 3e38], np.float32), np.array([0, 1e-44], np.float32)
    for query in (np.array([3, 4], np.float32), np.zeros(2, np.float32), huge, tiny):
        asked.record(query)
    half = math.sqrt(0.5)
    assert asked.queries() == pytest.approx(np.array([[0.6, 0.8], [half, half], [0, 1]]))
    assert asked.queries().dtype == np.float32


def test_a_query_that_changes_after_it_was_asked_is_kept_as_it_was() -> None:
    asked, query = Asked(), np.array([1, 0], np.float32)
    asked.record(query)
    query[:] = 7
    assert asked.queries().tolist() == [[1, 0]]


@pytest.mark.parametrize("adaptive", [True, False])
def test_queries_are_kept_only_if_that_is_wanted(adaptive: bool) -> None:
    with open_database(MemoryEnvironment(), adaptive=adaptive) as db:
        save_with_codes(db, VECTORS)
        for query in VECTORS[:30]:
            db.search_similar(query)
        db.search_many(VECTORS[:10])
        db.search_similar(VECTORS[0], exact=True)
        assert db.stats()["index"]["queries_kept"] == (40 if adaptive else 0)
        db.build_index()
        assert db.stats()["index"]["files"][0]["asked_recall"] is None, "they are too few"


@pytest.mark.parametrize("adaptive", [True, False])
def test_queries_that_find_too_little_lead_to_a_new_calibration(adaptive: bool) -> None:
    """Of codes whose effort is far too small for what is asked."""
    with open_database(MemoryEnvironment(), adaptive=adaptive) as db:
        save_with_codes(db, VECTORS)
        indexer = indexer_of(db)
        ((number, codes),) = indexer._codes.items()
        object.__setattr__(codes, "calibrated", planned(Effort((0, 0), 0.0, 0, 0, 0, 256)))
        codes.__dict__.pop("_plans", None)
        asked = questions(VECTORS, 300, likeness=0.3)
        assert recall_of(db, asked[:100]) < 0.9
        for query in asked:
            db.search_similar(query, 10, -1.0)
        db.build_index()
        again = indexer._codes[number]
        assert db.stats()["index"]["built"] == 1, "the codes are the same"
        if not adaptive:
            assert again is codes
            return
        assert again is not codes and again.asked >= 200
        found = db.stats()["index"]["files"][0]
        if searched(db) == ["clusters"]:
            assert found["asked_recall"]["lower_95"] >= 0.98
        assert recall_of(db, questions(VECTORS, 100, seed=7, likeness=0.3)) >= 0.97
        db.build_index()
        assert indexer._codes[number] is again, "nothing was asked meanwhile"


def test_after_an_erasure_recall_is_watched_as_before() -> None:
    with open_database(MemoryEnvironment()) as db:
        save_with_codes(db, VECTORS)
        for query in VECTORS[:300]:
            db.search_similar(query)
        db.build_index()
        db.purge(db.search_similar(VECTORS[0], 1)[0][0])
        assert db.stats()["index"]["queries_kept"] == 0
        db.build_index()
        for query in gaussian(100, 56):
            db.search_similar(query, 10, -1.0)
        db.build_index()
        assert db.stats()["index"]["files"][0]["asked_recall"] is not None or searched(db) == [
            "scan"
        ]
