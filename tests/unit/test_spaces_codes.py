"""Named spaces by codes: the answers are those of a scan, with codes that cannot miss anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engramdb import CorruptionError, Database, MemoryNode
from engramdb.index import late_interaction, lists
from engramdb.index.codes import file_codes
from engramdb.index.codes.calibration import CLUSTERS, Calibrated
from engramdb.index.codes.clusters import Effort
from engramdb.index.codes.recall import Recall
from engramdb.indexing import indexer, keeper

Floats = npt.NDArray[np.float32]

SPACE = "tokens"
DIMENSION = 6
UNLIMITED = Effort((1e9, 1e9), 0.0, 1e9, 1e9, 1e9, 1)


@pytest.fixture
def patched() -> Iterator[pytest.MonkeyPatch]:
    """Codes for every file, however small, that look at every row."""
    with pytest.MonkeyPatch.context() as patch:
        force_codes(patch)
        yield patch


def force_codes(patch: pytest.MonkeyPatch, limits: tuple[int, int] = (10, 100)) -> None:
    """With an effort that finds everything, said to take no time."""
    plans = [
        Calibrated(CLUSTERS, limit, UNLIMITED, 0, Recall(1.0, 1.0, 100), 0.0) for limit in limits
    ]
    for module in (file_codes, lists):
        patch.setattr(module, "LIMITS", limits)
    patch.setattr(lists, "_LIST_NS", 0.0)
    patch.setattr(lists, "gather_ns", lambda *_: 0.0)
    patch.setattr(indexer, "_ROWS_MIN", 1)
    patch.setattr(keeper, "_ASIDE_MAX", 0.9)
    patch.setattr(keeper, "calibrate_clusters", lambda *_: plans)


def opened() -> Database:
    db = Database.in_memory(background=False)
    assert db._indexer is not None
    db._indexer._cells_min = 0
    return db


def build(db: Database) -> None:
    """Codes of all that is there."""
    db.flush()
    db.build_index()


def coded(db: Database) -> int:
    """How many files have codes."""
    assert db._indexer is not None
    return len(db._indexer.codes())


def calls(patch: pytest.MonkeyPatch, module: Any, name: str) -> list[Any]:
    """What a function has returned from now on."""
    real: Callable[..., Any] = getattr(module, name)
    made: list[Any] = []

    def counting(*arguments: Any, **named: Any) -> Any:
        made.append(real(*arguments, **named))
        return made[-1]

    patch.setattr(module, name, counting)
    return made


def topics(count: int, vectors: int, seed: int = 3) -> Floats:
    """(count, vectors, DIMENSION): each memory's vectors lie around one of its own."""
    random = np.random.default_rng(seed)
    gist = random.standard_normal((count, 1, DIMENSION))
    noise = 0.2 * random.standard_normal((count, vectors, DIMENSION))
    return (gist + noise).astype(np.float32)


numbers = st.one_of(st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-20, 1e20]), st.floats(-4, 4, width=32))
rows = st.lists(numbers, min_size=3, max_size=3)
matrices = st.lists(rows, min_size=1, max_size=3)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[str, Any, Any]]:
    """What is done, one after the other: saves, overwrites, deletions, flushes."""
    steps: list[tuple[str, Any, Any]] = []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["save", "save", "save", "overwrite", "delete", "flush"]))
        steps.append((kind, draw(matrices), draw(st.integers(0, 2))))
    return steps


def play(db: Database, steps: list[tuple[str, Any, Any]]) -> None:
    ids: list[str] = []
    for kind, vectors, n in steps:
        if kind == "flush":
            db.flush()
        elif kind == "save" or not ids:
            node = MemoryNode(vectors={SPACE: np.array(vectors, np.float32)}, attributes={"n": n})
            ids.append(db.save(node))
        elif kind == "overwrite":
            node = db.load(ids[n % len(ids)])
            node.set_vector(SPACE, np.array(vectors, np.float32))
            db.save(node)
        else:
            db.delete(ids.pop(n % len(ids)))


@settings(deadline=None, max_examples=60)
@given(
    histories(),
    histories(),
    matrices,
    st.integers(1, 6),
    st.sampled_from([-1.0, 0.0, 0.5]),
    st.sampled_from([None, {"n": 1}, {"n": {"$lt": 2}}]),
    st.sampled_from([(1, 2), (2, 4), (10, 100)]),
)
def test_as_a_scan(
    before: Any,
    after: Any,
    queries: Any,
    limit: int,
    threshold: float,
    where: Any,
    depths: tuple[int, int],
) -> None:
    asked = np.array(queries, np.float32)
    with pytest.MonkeyPatch.context() as patch, opened() as db:
        force_codes(patch, depths)
        db.save(MemoryNode(vectors={SPACE: [1.0, 2.0, 3.0]}, attributes={"n": 1}))
        play(db, before)
        build(db)
        past = db.last_seq
        play(db, after)
        for query in (asked, asked[0]):
            for as_of in (None, past):
                wish: Any = {"where": where, "as_of": as_of, "space": SPACE}
                exactly = db.search_similar(query, limit, threshold, exact=True, **wish)
                assert db.search_similar(query, limit, threshold, **wish) == exactly
        for metric in ("dot", "euclidean"):
            wish = {"where": where, "metric": metric, "space": SPACE}
            exactly = db.search_similar(asked[0], limit, exact=True, **wish)
            assert db.search_similar(asked[0], limit, **wish) == exactly


@pytest.fixture
def db(patched: pytest.MonkeyPatch) -> Iterator[Database]:
    """800 memories with three vectors each, in a file with codes; then some changes."""
    with opened() as made:
        ids = made.save_many(
            [
                MemoryNode(vectors={SPACE: each}, attributes={"n": n % 10, "all": 1})
                for n, each in enumerate(topics(800, 3))
            ]
        )
        build(made)
        assert coded(made) == 1
        made.delete(ids[7])
        made.save_many([MemoryNode(vectors={SPACE: each}) for each in topics(20, 2, seed=4)])
        yield made


def both(db: Database, query: Floats, limit: int = 10, **wish: Any) -> tuple[Any, Any]:
    """What is found with codes, and without."""
    return tuple(
        db.search_similar(query, limit, space=SPACE, exact=exact, **wish) for exact in (False, True)
    )


def test_lists_are_enough_for_vectors_that_belong_together(
    db: Database, patched: pytest.MonkeyPatch
) -> None:
    scans = calls(patched, late_interaction, "search")
    tried = calls(patched, lists, "_by_lists")
    for query in topics(5, 4, seed=5):
        hits, exactly = both(db, query)
        assert hits == exactly and len(hits) == 10
    assert sum(found is not None for found in tried) >= 4
    assert len(tried) == 5 and len(scans) == 5 + 5 + tried.count(None)  # lists end in one, too


def test_vectors_that_have_nothing_in_common_are_scanned_before_long(
    db: Database, patched: pytest.MonkeyPatch
) -> None:
    assert db._indexer is not None
    tried = calls(patched, lists, "_by_lists")
    random = np.random.default_rng(8)
    costs = lists._costs
    patched.setattr(lists, "_costs", lambda *each: (costs(*each) or (0, 0))[1:] * 2)
    for count in range(3):  # nothing saved for sure: never tried
        query = random.standard_normal((8, DIMENSION)).astype(np.float32)
        hits, exactly = both(db, query)
        assert hits == exactly and len(tried) == 0, count
    patched.setattr(lists, "_costs", lambda *_: (1.0, 2.0))
    for _ in range(60):
        query = random.standard_normal((16, DIMENSION)).astype(np.float32)
        hits, exactly = both(db, query)
        assert hits == exactly
    assert 5 <= tried.count(None) == len(tried) <= 12  # and sometimes again


def test_a_high_threshold_needs_no_scan(db: Database, patched: pytest.MonkeyPatch) -> None:
    tried = calls(patched, lists, "_by_lists")
    query = topics(1, 3, seed=3)[0]  # those of the first memory
    hits, exactly = both(db, query, threshold=0.999)
    assert hits == exactly and len(hits) < 10
    assert len(tried) == 1 and tried[0] == [(each, score) for each, score in tried[0]]


@pytest.mark.parametrize("queries", [1, 3])
@pytest.mark.parametrize("where", [{"n": 3}, {"n": {"$gt": 0}}, {"all": 1}, {"n": 99}])
def test_filters(db: Database, queries: int, where: Any) -> None:
    for query in topics(4, queries, seed=6):
        hits, exactly = both(db, query, where=where)
        assert hits == exactly


def test_what_was_just_written_is_found_and_what_was_deleted_is_not(db: Database) -> None:
    new = topics(1, 3, seed=9)[0]
    made = db.save(MemoryNode(vectors={SPACE: new}))
    assert both(db, new, 1)[0] == [(made, 1.0)]
    assert both(db, new[1], 1)[0] == [(made, 1.0)]
    before = db.last_seq
    db.delete(made)
    for query in (new, new[1]):
        assert made not in dict(both(db, query, 50)[0])
        assert both(db, query, 1, as_of=before)[0] == [(made, 1.0)]


def test_a_memory_with_many_near_vectors_counts_once(patched: pytest.MonkeyPatch) -> None:
    with opened() as db:
        same = np.tile(np.eye(DIMENSION, dtype=np.float32)[0], (150, 1))
        one = db.save(MemoryNode(vectors={SPACE: same}))
        others = db.save_many([MemoryNode(vectors={SPACE: each}) for each in topics(30, 2)])
        build(db)
        assert coded(db) == 1
        for query in (same[0], same[:2]):
            hits, exactly = both(db, query, 5, threshold=-1.0)
            assert hits == exactly and hits[0] == (one, 1.0)
            assert len(hits) == 5 and {each for each, _ in hits[1:]} <= set(others)


def test_many_at_once_and_limits_above_all(db: Database) -> None:
    queries = topics(6, 1, seed=11)[:, 0]
    many = db.search_many(queries, 5, space=SPACE)
    assert many == db.search_many(queries, 5, space=SPACE, exact=True)
    for query in topics(2, 3, seed=12):
        hits, exactly = both(db, query, 2000, threshold=-1.0)
        assert hits == exactly and len(hits) == 819


@pytest.mark.parametrize("metric", ["dot", "euclidean"])
def test_other_metrics(patched: pytest.MonkeyPatch, metric: Any) -> None:
    """Of equally long vectors codes serve these, too."""
    vectors = topics(300, 2)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    with opened() as db:
        db.save_many([MemoryNode(vectors={SPACE: each}) for each in vectors])
        build(db)
        for query in vectors[:5, 0]:
            hits, exactly = both(db, query, metric=metric)
            assert hits == exactly and len(hits) == 10


def test_extreme_vectors_do_not_crowd_out_others(patched: pytest.MonkeyPatch) -> None:
    with opened() as db:
        long = db.save(MemoryNode(vectors={SPACE: [1.0, 2.0, 3.0]}))
        db.save(MemoryNode(vectors={SPACE: [0.0, 1e-20, 0.0]}))
        build(db)
        assert coded(db) == 1
        query = np.array([0, 1, 0], np.float32)
        assert both(db, query, 1, metric="dot")[0] == [(long, 2.0)]


def test_queries_with_a_filter_rank_by_codes(db: Database, patched: pytest.MonkeyPatch) -> None:
    lists_made = calls(patched, lists, "nearest")
    query = topics(1, 1, seed=13)[0, 0]

    def ranked(*, exact: bool) -> list[str]:
        asked = db.query().with_vector(query, space=SPACE, exact=exact)
        return asked.with_attribute_filter({"n": {"$gt": 0}}).with_limit(10).ids()

    assert ranked(exact=False) == ranked(exact=True)
    assert len(lists_made) == 1


def test_damaged_codes_are_forgotten(db: Database, patched: pytest.MonkeyPatch) -> None:
    query = topics(1, 3, seed=14)[0]
    exactly = both(db, query)[1]
    number = next(iter(db._indexer.codes()))  # type: ignore[union-attr]

    def damaged(*_: Any) -> Any:
        raise CorruptionError(f"x/derived/codes-{number}.idx", 0, "codes", "noise")

    patched.setattr(lists.approximate, "search_many", damaged)
    with pytest.warns(RuntimeWarning, match="codes, not memories"):
        assert db.search_similar(query, space=SPACE) == exactly
    assert coded(db) == 0
