"""What searches by codes got wrong once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest

import engramdb
from engramdb.index import approximate
from engramdb.index.codes.calibration import TURBOVEC
from engramdb.index.codes.clusters import Effort
from engramdb.index.codes.turbo import available
from engramdb.index.metric import Metric
from engramdb.lsm.environment import MemoryEnvironment
from tests.unit.codes_support import (
    Floats32,
    file_codes_of,
    gaussian,
    indexer_of,
    mixture,
    open_database,
    planned,
    questions,
    save_with_codes,
    searched,
    small_files_have_codes,
    unit,
)

needs_turbovec = pytest.mark.skipif(not available(), reason="turbovec is not installed")


@pytest.fixture(autouse=True)
def _small_files_have_codes() -> Iterator[None]:
    with small_files_have_codes():
        yield


def database_of(vectors: Floats32, index: str = "numpy") -> engramdb.Database:
    """With one file of these vectors, which is searched by codes."""
    db = open_database(MemoryEnvironment(), index=index)
    save_with_codes(db, vectors.astype(np.float32))
    assert searched(db) != ["scan"]
    return db


def with_a_zero_vector() -> Floats32:
    """It is nearer than any other to whatever lies at an angle of more than 60 degrees to all."""
    vectors = gaussian(3000, 64)
    vectors[777] = 0
    return vectors


def only_turbovec(db: engramdb.Database) -> None:
    """As if clusters did not meet the target."""
    codes = indexer_of(db)._codes
    for number, file in codes.items():
        calibrated = tuple(each for each in file.calibrated if each.kind == TURBOVEC)
        assert any(each.serves for each in calibrated)
        codes[number] = replace(file, calibrated=calibrated)


@needs_turbovec
@pytest.mark.parametrize("metric", ["euclidean", "dot", "cosine"])
def test_batches_by_turbovec_find_zero_vectors(metric: Metric) -> None:
    """They have no code: a batch left them out, although nothing was nearer by distance."""
    queries = gaussian(16, 64, seed=3)
    with database_of(with_a_zero_vector(), "auto") as db:
        only_turbovec(db)
        with mock.patch.object(approximate, "_BATCH_CELL_NS", 1e9):  # a product never pays
            found = db.search_many(queries, 1, metric=metric)
        assert found == db.search_many(queries, 1, metric=metric, exact=True)


@needs_turbovec
def test_filters_by_turbovec_find_zero_vectors() -> None:
    """The same with a filter, where clusters did not meet the target."""
    everything = np.arange(3000)
    with database_of(with_a_zero_vector(), "auto") as db:
        only_turbovec(db)
        (file,) = indexer_of(db)._codes.values()
        file = replace(file, calibrated=tuple(replace(c, seconds=0.0) for c in file.calibrated))
        rows = file.among(gaussian(1, 64, seed=3)[0], 1, everything, known=-2.0, floor=-2.0)
        assert rows is not None and len(rows) < 3000 and 777 in rows


@pytest.mark.parametrize("size", [1e-40, 2e37])
def test_extreme_vectors_do_not_count_as_zero(size: float) -> None:
    """The codes of vectors too short or too long for a float32 norm were those of zero vectors,
    and took the places of what is nearer than they are."""
    random = np.random.default_rng(1)
    axis = unit(np.ones(64))
    vectors = unit(random.standard_normal((3000, 64)) + 24 * axis)
    vectors[:40] = np.float32(size)  # on the axis, and the others at angles to it
    with database_of(vectors) as db:
        for query in unit(0.05 * random.standard_normal((8, 64)) - axis):
            found = db.search_similar(query, 10, -1.0)
            assert found == db.search_similar(query, 10, -1.0, exact=True)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_small_differences_of_length_decide_where_directions_hardly_differ(metric: Metric) -> None:
    """Lengths that differ by a ten thousandth passed for equal, but in a plane thousands of vectors
    differ by less in their directions: searches by dot found 85%."""
    random = np.random.default_rng(1)
    vectors = gaussian(8_000, 2) * (1 + 9e-5 * random.random((8_000, 1)))
    with database_of(vectors) as db:
        for query in gaussian(20, 2, seed=2):
            found = db.search_similar(query, 10, metric=metric)
            assert found == db.search_similar(query, 10, metric=metric, exact=True)


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_lengths_that_differ_by_rounding_are_equal(metric: Metric) -> None:
    """As those of all vectors that were scaled to length 1 in float32."""
    random = np.random.default_rng(1)
    vectors = gaussian(8_000, 2) * (1 + 1e-6 * random.random((8_000, 1)))
    with database_of(vectors) as db:
        (file,) = indexer_of(db)._codes.values()
        assert file.serve_all(1.0)
        for query in gaussian(20, 2, seed=2):
            found = db.search_similar(query, 10, metric=metric)
            assert found == db.search_similar(query, 10, metric=metric, exact=True)


def test_what_lies_just_below_hidden_rows_is_found() -> None:
    """A filter that hides the nearest rows leaves others that lie just below a border, and the
    codes of some of them are too low for it: 80% were found."""
    random = np.random.default_rng(5)
    vectors = mixture(8000, 96, seed=5)
    found = wanted = 0
    with database_of(vectors) as db:
        (file,) = indexer_of(db)._codes.values()
        for query in questions(vectors, 40, seed=6):
            cosines = vectors @ query
            rows = np.sort(np.argsort(cosines)[: random.integers(2000, 4000)])
            mask = np.zeros(len(vectors), np.bool_)
            mask[rows] = True
            least = np.sort(cosines[rows])[-10] - 1e-6
            seen = file.candidates(query, 10, known=-2.0, floor=-2.0, visible=mask.__getitem__)
            assert seen is not None and mask[seen].all()
            found += min(10, int(np.count_nonzero(cosines[seen] >= least)))
            wanted += 10
    assert found >= 0.97 * wanted


def test_codes_that_miss_the_ten_nearest_do_not_serve_for_more() -> None:
    """A hundred neighbours that are nearly all alike were found, whichever of them, and so codes
    served for eleven that missed most of them."""
    effort = Effort((0.0, 0.0), 0.0, 0.0, 0.0, 0.0, 64)
    ten, hundred = planned(effort)
    missed = replace(ten, effort=None)
    assert file_codes_of(gaussian(3000, 8), calibrated=(ten, hundred)).plan(11) == hundred
    assert file_codes_of(gaussian(3000, 8), calibrated=(missed, hundred)).plan(11) is None
