"""After a purge nothing of the memory, or of what was asked, is left in codes, which come back."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np
import pytest

from engramdb.indexing import keeper
from engramdb.lsm.environment.simulated import SimulatedDisk
from tests.erasure.scan import Needles, files_of, traces
from tests.unit.codes_support import (
    PATH,
    Floats32,
    gaussian,
    id_of,
    indexer_of,
    open_database,
    save,
    searched,
    small_files_have_codes,
)

VECTORS = gaussian(60, 8)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("engramdb.index.codes.calibration._ROWS_PER_LIMIT", 1)
    monkeypatch.setattr("engramdb.index.codes.calibration.LIMITS", (10,))
    with small_files_have_codes():
        yield


def coded(vector: Floats32, disk: SimulatedDisk) -> bytes:
    """A vector as its codes stand in a file."""
    with open_database(disk) as db:
        indexer_of(db)._load()
        codes = next(iter(indexer_of(db)._codes.values())).codes
        rows = codes.codes.view(np.uint8).reshape(codes.rows, -1)
        near = int(np.abs(codes.codes - vector @ codes.axes[:, : codes.width]).sum(axis=1).argmin())
        return rows[near].tobytes()


@pytest.mark.parametrize("where", ["in the file with codes", "in memory"])
def test_no_trace_is_left_in_codes(where: str) -> None:
    disk, secret = SimulatedDisk(), id_of(7)
    with open_database(disk) as db:
        save(db, VECTORS)
        if where == "in memory":
            db.delete(secret)
            db.flush()
            save(db, VECTORS[7:8], 7)
        else:
            db.flush()
        for query in (*VECTORS[:40], *[VECTORS[7]] * 60):
            indexer_of(db).asked("", query)
        db.build_index()
        assert len(indexer_of(db)._codes) >= 1
    code = coded(VECTORS[7], disk)
    needles = Needles()
    needles.add_vector(VECTORS[7])
    needles.strings |= {code[start : start + 8] for start in range(0, len(code), 8)}
    assert any("codes-" in each for each in traces(files_of(disk, PATH), needles)), (
        "what was never there cannot be erased"
    )
    with open_database(disk) as db:
        for query in (VECTORS[7], VECTORS[8]):
            db.search_similar(query)
        db.purge(secret)
        assert db.stats()["index"]["queries_kept"] == 0
        assert traces(files_of(disk, PATH), needles) == []
        assert not db._engine.derived.names("codes-")
        assert secret not in dict(db.search_similar(VECTORS[7], 60, -1.0))
        db.build_index()
        assert db._engine.derived.names("codes-") and "scan" not in searched(db)
        assert traces(files_of(disk, PATH), needles) == []
        left = disk.crash()
        assert traces(files_of(left, PATH), needles) == []
        assert len(db.search_similar(VECTORS[7], 60, -1.0)) == 59


def test_codes_that_were_being_built_are_given_up_and_built_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The purge of a memory that is in no file with codes begins while they are being written."""
    disk, real = SimulatedDisk(), keeper.build
    with open_database(disk) as db:
        save(db, VECTORS)
        db.flush()
        save(db, gaussian(1, 8, seed=9), 100)
        indexer, purged = indexer_of(db), []

        def build(*given: object) -> object:
            made = real(*given)  # type: ignore[arg-type]
            if not purged:
                purged.append(db.purge(id_of(100)))
            return made

        monkeypatch.setattr(keeper, "build", build)
        with indexer._working:
            indexer._step()
        assert purged and not db._engine.derived.names("codes-")
        assert searched(db) == ["scan"]
        while indexer._step():  # what its thread would do when it is woken
            pass
        assert searched(db) == ["clusters"] and db._engine.derived.names("codes-")


def test_a_thread_builds_them_again() -> None:
    with open_database(SimulatedDisk(), background=True) as db:
        save(db, VECTORS)
        db.flush()
        db.build_index()
        indexer = indexer_of(db)
        built = indexer.built
        db.purge(id_of(3))
        for _ in range(3000):
            if indexer.built > built and len(db._engine.derived.names("codes-")) == 2:
                break
            time.sleep(0.005)
        assert indexer.built > built and searched(db) == ["clusters"]
