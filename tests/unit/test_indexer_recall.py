"""The recall that is promised is found: on topics and on a cloud without any structure, by every
metric, in one file and in many, through filters, in the past, and with either kind of codes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from engramdb.index.codes import turbo
from engramdb.index.metric import Metric
from engramdb.lsm.environment import MemoryEnvironment
from tests.unit.codes_support import (
    Floats32,
    gaussian,
    id_of,
    mixture,
    open_database,
    questions,
    recall_of,
    save,
    save_with_codes,
    searched,
    small_files_have_codes,
)

ROWS, DIMENSION = 6000, 56


@pytest.mark.parametrize("kind", ["mixture", "gaussian"])
def test_the_target_is_met(kind: str) -> None:
    vectors = {"mixture": mixture, "gaussian": gaussian}[kind](ROWS, DIMENSION)
    with small_files_have_codes(), open_database(MemoryEnvironment()) as db:
        save_with_codes(db, vectors)
        assert searched(db) == ["clusters"]
        recall = db.stats()["index"]["files"][0]["recall"]
        assert recall["lower_95"] >= 0.99 and recall["mean"] >= recall["lower_95"]
        assert recall_of(db, questions(vectors, 200)) >= 0.98
        assert recall_of(db, questions(vectors, 60, seed=2), 100) >= 0.98
        assert recall_of(db, vectors[:100]) >= 0.98


def test_a_bound_that_passes_from_file_to_file_costs_no_recall() -> None:
    vectors = mixture(ROWS, DIMENSION)
    with small_files_have_codes(), open_database(MemoryEnvironment()) as db:
        for first in range(0, ROWS, 1500):
            save(db, vectors[first : first + 1500], first)
            db.flush()
        db.build_index()
        assert searched(db) == ["clusters"] * 4
        save(db, gaussian(300, DIMENSION, seed=9), ROWS)
        asked = questions(vectors, 100)
        assert recall_of(db, asked) >= 0.98
        assert recall_of(db, asked[:50], where={"third": 1}) >= 0.98
        for number in range(0, ROWS, 2):
            db.delete(id_of(number))
        assert recall_of(db, asked) >= 0.97
        assert recall_of(db, asked, as_of=2) >= 0.98
        found = db.search_many(asked, 10, -1.0)
        best = db.search_many(asked, 10, -1.0, exact=True)
        hits = [len(set(a) & set(b)) for a, b in zip(found, best, strict=True)]
        assert sum(hits) >= 0.97 * 10 * len(asked)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
@pytest.mark.parametrize("lengths", ["one", "all", "nearly one"])
def test_other_metrics_find_what_they_should(metric: Metric, lengths: str) -> None:
    """Whether vectors are equally long, so that codes serve, or not."""
    vectors, random = mixture(3000, 40), np.random.default_rng(2)
    asked: Floats32 = questions(vectors, 100)
    if lengths == "all":
        vectors *= np.exp(random.normal(0, 1, (3000, 1))).astype(np.float32)
    elif lengths == "nearly one":  # not by more than float32 makes of a length
        vectors *= (1 + 1e-6 * random.standard_normal((3000, 1))).astype(np.float32)
    with small_files_have_codes(), open_database(MemoryEnvironment()) as db:
        save_with_codes(db, vectors)
        given: dict[str, Any] = {"metric": metric}
        for query in asked[:5]:
            best = dict(db.search_similar(query, 10, None, exact=True, **given))
            found = dict(db.search_similar(query, 10, None, **given))
            assert found.keys() & best.keys() and all(
                score == best[name] for name, score in found.items() if name in best
            )
        hits = wanted = 0
        for query in asked:
            best = dict(db.search_similar(query, 10, None, exact=True, **given))
            hits += len(best.keys() & dict(db.search_similar(query, 10, None, **given)).keys())
            wanted += len(best)
        assert hits >= (1.0 if lengths == "all" else 0.98) * wanted


@pytest.mark.skipif(not turbo.available(), reason="needs turbovec")
def test_codes_of_turbovec_meet_the_target_too() -> None:
    vectors = mixture(ROWS, 64)
    with small_files_have_codes(), open_database(MemoryEnvironment(), index="auto") as db:
        save_with_codes(db, vectors)
        files = db._indexer._codes.values()  # type: ignore[union-attr]
        assert all(codes.turbo is not None for codes in files)
        assert recall_of(db, questions(vectors, 100)) >= 0.98
        for number in range(0, ROWS, 3):
            db.delete(id_of(number))
        assert recall_of(db, questions(vectors, 100)) >= 0.97


def test_a_low_target_looks_at_less_and_a_target_of_one_is_a_scan() -> None:
    vectors = mixture(ROWS, DIMENSION)
    with (
        small_files_have_codes(),
        open_database(MemoryEnvironment(), recall_target=0.5) as db,
        open_database(MemoryEnvironment(), recall_target=1.0) as exact,
    ):
        for each in (db, exact):
            save_with_codes(each, vectors)
        asked = questions(vectors, 100)
        assert 0.45 < recall_of(db, asked) < 0.999
        assert "index" not in exact.stats() and recall_of(exact, asked) == 1.0
