"""When codes are built, loaded, kept and dropped."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engramdb
from engramdb.errors import ClosedError, EngramError, InvalidInputError
from engramdb.indexing import indexer as indexer_module
from engramdb.indexing import keeper
from engramdb.lsm.environment import MemoryEnvironment
from tests.unit.codes_support import (
    PATH,
    id_of,
    indexer_of,
    mixture,
    open_database,
    questions,
    recall_of,
    save,
    save_with_codes,
    searched,
    small_files_have_codes,
)

VECTORS = mixture(1500, 24)


@pytest.fixture(autouse=True)
def small() -> Iterator[None]:
    with small_files_have_codes():
        yield


def thread_of(db: engramdb.Database) -> threading.Thread | None:
    return indexer_of(db)._thread


def settled(db: engramdb.Database) -> engramdb.Database:
    """The same, when its thread has done what there was to do."""
    condition, indexer = threading.Event(), indexer_of(db)
    for _ in range(2000):
        with indexer._working:
            done = not indexer._wake.is_set() and not indexer._missing
        if done and all(
            f.number in indexer._codes.keys() | indexer._scanned for f in indexer._files()
        ):
            return db
        condition.wait(0.01)
    raise AssertionError("it does not come to rest")


def index_of(db: engramdb.Database) -> dict[str, Any]:
    found: dict[str, Any] = db.stats()["index"]
    return found


def test_codes_come_in_the_background_after_a_flush_and_after_a_compaction() -> None:
    with open_database(MemoryEnvironment(), background=True) as db:
        save(db, VECTORS[:700])
        db.flush()
        assert searched(settled(db)) == ["clusters"]
        save(db, VECTORS[700:], 700)
        db.flush()
        assert searched(settled(db)) == ["clusters"] * 2
        before = set(indexer_of(db)._codes)
        db.compact()
        settled(db)
        after = set(indexer_of(db)._codes)
        if not before & after:  # they were merged into one
            assert len(after) == 1
        assert set(db._engine.derived.names("codes-")) == {
            f"codes-{number}{end}" for number in after for end in ("", "-effort")
        }, "codes of files that are gone are gone"
        assert recall_of(db, questions(VECTORS, 50)) > 0.97


def test_without_a_background_nothing_happens_by_itself() -> None:
    before = threading.active_count()
    with open_database(MemoryEnvironment()) as db:
        save(db, VECTORS)
        db.flush()
        db.search_similar(VECTORS[0])
        db.compact()
        assert searched(db) == ["scan"] and index_of(db)["built"] == 0
        db.build_index()
        assert searched(db) == ["clusters"] and index_of(db)["built"] == 1
        db.build_index()
        assert index_of(db)["built"] == 1
        assert thread_of(db) is None and threading.active_count() == before


@pytest.mark.parametrize("background", [False, True])
def test_what_was_built_is_loaded_when_it_is_opened_again(background: bool) -> None:
    disk = MemoryEnvironment()
    with open_database(disk) as db:
        save_with_codes(db, VECTORS)
        expected = [db.search_similar(query) for query in VECTORS[:20]]
    with open_database(disk, background=background) as db:
        assert [db.search_similar(query) for query in VECTORS[:20]] == expected
        assert searched(db) == ["clusters"], "at the first search"
        if background:
            settled(db)
        db.build_index()
        assert index_of(db)["built"] == index_of(db)["damaged"] == 0


def test_another_target_is_met_before_codes_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    disk = MemoryEnvironment()
    with open_database(disk, recall_target=0.6) as db:
        save_with_codes(db, VECTORS)
        assert searched(db) == ["clusters"]
    for read_only in (True, False):
        with open_database(disk, recall_target=0.99, read_only=read_only) as db:
            assert recall_of(db, VECTORS[:50]) == 1.0
            assert searched(db) == ["scan"], "nobody has shown that they find so much"
            db.build_index()
            assert index_of(db)["built"] == 0, "they are the same, calibrated anew"
            assert searched(db) == ["scan" if read_only else "clusters"]
            recall = index_of(db)["files"][0]["recall"]
            assert read_only or recall["lower_95"] >= 0.99
    with open_database(disk, recall_target=0.6, read_only=True) as db:
        db.search_similar(VECTORS[0])
        assert searched(db) == ["clusters"], "more than was asked for"


def test_readers_load_and_never_write() -> None:
    disk = MemoryEnvironment()
    with open_database(disk) as db:
        save_with_codes(db, VECTORS)
        save(db, VECTORS[:900], 5000)
        db.flush()  # a file without codes
    before = sorted(disk.list(f"{PATH}/derived"))
    with open_database(disk, read_only=True, background=True) as db:
        recall_of(db, VECTORS[:5])
        db.build_index()
        assert searched(db) == ["scan", "clusters"] and index_of(db)["built"] == 0
        assert sorted(disk.list(f"{PATH}/derived")) == before
    assert sorted(disk.list(f"{PATH}/derived")) == before


def test_a_fork_and_a_checkpoint_have_no_codes_and_build_their_own() -> None:
    disk = MemoryEnvironment()
    with open_database(disk) as db:
        save_with_codes(db, VECTORS)
        db.checkpoint("/copy")
        with db.fork("/fork") as fork:
            assert searched(fork) == ["scan"] and index_of(fork)["waiting"] == 1
            fork.build_index()
            assert searched(fork) == ["clusters"] and recall_of(fork, VECTORS[:20]) == 1.0
    assert not disk.exists("/copy/derived")
    with open_database(disk, "/copy") as copy:
        assert recall_of(copy, VECTORS[:20]) == 1.0 and searched(copy) == ["scan"]
        copy.build_index()
        assert searched(copy) == ["clusters"]


class Slow:
    """A build that waits until it is let go on, or stopped."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()
        real = keeper.build

        def build(rows: int, take: Any, pause: Any, queries: Any) -> Any:
            made = real(rows, take, pause, queries)
            parts = made.parts

            class Built(type(made)):  # type: ignore[misc]
                def parts(self, pause: Any) -> Iterator[Any]:
                    outer.begun.set()
                    while not outer.go_on.wait(0.001):
                        pause()
                    yield from parts(pause)

            return Built(*made)

        outer = self
        monkeypatch.setattr(keeper, "build", build)


def test_closing_stops_a_build_and_leaves_no_temporary_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    slow = Slow(monkeypatch)
    path = str(tmp_path / "db")
    db = engramdb.Database.file_based(path, index="numpy")
    save(db, VECTORS)
    db.flush()
    assert slow.begun.wait(30)
    assert list((tmp_path / "db" / "tmp").iterdir()), "it is just being written"
    thread = thread_of(db)
    db.close()
    assert thread is not None and not thread.is_alive()
    assert not list((tmp_path / "db" / "tmp").iterdir())
    assert not list((tmp_path / "db" / "derived").glob("codes*"))


def test_closing_stops_a_build_that_another_thread_asked_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, errors = Slow(monkeypatch), []
    db = open_database(MemoryEnvironment())
    save(db, VECTORS)
    db.flush()

    def build() -> None:
        try:
            db.build_index()
        except EngramError as error:
            errors.append(error)

    thread = threading.Thread(target=build)
    thread.start()
    assert slow.begun.wait(30)
    db.close()
    thread.join(30)
    assert not thread.is_alive() and [type(error) for error in errors] == [ClosedError]


@pytest.mark.parametrize("error", [MemoryError(), EngramError("no"), ValueError("singular")])
@pytest.mark.parametrize("background", [False, True])
def test_an_error_of_the_builder_is_told_and_searches_are_scans(
    error: Exception, background: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(keeper, "build", build)
        db = open_database(MemoryEnvironment(), background=background)
        save(db, VECTORS)
        db.flush()
        if background:
            settled(db)
        else:
            db.build_index()
        assert type(error).__name__ in index_of(db)["failure"] and index_of(db)["built"] == 0
        assert searched(db) == ["scan"] and recall_of(db, VECTORS[:10]) == 1.0
    db.build_index()
    assert searched(db) == ["clusters"]
    db.close()


def test_files_that_are_mostly_zeros_get_no_codes() -> None:
    vectors = VECTORS.copy()
    vectors[::10] = 0
    with open_database(MemoryEnvironment()) as db:
        save_with_codes(db, vectors)
        assert searched(db) == ["scan"] and index_of(db)["built"] == 0
        assert len(db.search_similar(VECTORS[1], 1500, -1.0)) == 1500


def test_small_files_are_scanned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexer_module, "_ROWS_MIN", 1_501)
    with open_database(MemoryEnvironment()) as db:
        save_with_codes(db, VECTORS)
        assert index_of(db)["files"] == [] and db.search_similar(VECTORS[0], 1)[0][0] == id_of(0)


@pytest.mark.parametrize("target", [0, -0.1, 1.01, True, "0.9", None, float("nan"), float("inf")])
def test_targets_that_are_none(target: Any) -> None:
    with pytest.raises(InvalidInputError, match="recall_target"):
        engramdb.DatabaseConfig(use_memory_storage=True, recall_target=target)


@pytest.mark.parametrize(
    ("name", "value"),
    [("adaptive", 1), ("adaptive", None), ("index", "fast"), ("index_memory", -1)],
)
def test_other_settings_that_are_none(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        engramdb.DatabaseConfig(use_memory_storage=True, **{name: value})


def test_exact_is_the_scan_of_brute_force() -> None:
    with open_database(MemoryEnvironment(), recall_target=0.3) as db:
        save_with_codes(db, VECTORS)
        for query in questions(VECTORS, 20):
            cosines = VECTORS.astype(np.float64) @ query.astype(np.float64)
            best = [id_of(row) for row in np.argsort(-cosines)[:10].tolist()]
            got = db.search_similar(query, 10, -1.0, exact=True)
            assert [name for name, _ in got] == best
            assert db.search_many(query[None], 10, -1.0, exact=True) == [got]


def test_threads_search_while_files_change_under_them() -> None:
    with open_database(MemoryEnvironment(), background=True) as db:
        save(db, VECTORS[:800])
        db.flush()
        stop, failures, asked = threading.Event(), [], questions(VECTORS[:800], 40)
        best = {query.tobytes(): db.search_similar(query, 1, exact=True)[0] for query in asked}

        def search() -> None:
            while not stop.is_set():
                for query in asked:
                    found = db.search_similar(query, 10)
                    ids = [name for name, _ in found]
                    if len(found) != 10 or len(set(ids)) != 10 or best[query.tobytes()] < found[0]:
                        failures.append(found)

        def guarded() -> None:
            try:
                search()
            except Exception as error:
                failures.append(error)

        threads = [threading.Thread(target=guarded) for _ in range(2)]
        for thread in threads:
            thread.start()
        with suppress(engramdb.MemoryNotFoundError):
            for step in range(4):
                # far from what is asked, so that the best stay the best
                save(db, -VECTORS[:300] * np.float32(2), 10_000 + 300 * step)
                db.flush()
                if step % 2:
                    db.compact()
                    db.purge(id_of(10_000 + step))
        settled(db)
        stop.set()
        for thread in threads:
            thread.join(30)
        assert failures == [] and index_of(db)["failure"] == ""
