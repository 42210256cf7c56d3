"""Codes are made without holding the vectors, or the codes, in memory."""

from __future__ import annotations

import tracemalloc
from math import gcd
from pathlib import Path

import pytest

from engramdb.index.codes import build, calibration, file_codes, truth
from engramdb.lsm.container import CHUNK_BYTES
from engramdb.lsm.environment import PosixEnvironment
from tests.unit.codes_support import (
    gaussian,
    indexer_of,
    open_database,
    save,
    searched,
    small_files_have_codes,
)

ROWS, DIMENSION = 40_000, 128
MATRIX_BYTES = 4 * ROWS * DIMENSION


def whole_chunks(width: int) -> int:
    """As few rows as fill whole chunks."""
    return CHUNK_BYTES // gcd(CHUNK_BYTES, 4 * width)


def test_a_build_holds_samples_and_not_the_matrix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Samples are smaller here than they are in earnest, as the file is."""
    monkeypatch.setattr(build, "_SAMPLE_FOR_AXES", 2_000)
    monkeypatch.setattr(build, "_ROWS_PER_CENTRE", 4)
    monkeypatch.setattr(
        build, "rows_per_part", lambda width: CHUNK_BYTES // gcd(CHUNK_BYTES, width)
    )
    monkeypatch.setattr(calibration, "NEIGHBOURS", 100)
    monkeypatch.setattr(truth, "_SCORES_AT_ONCE", 2**15)
    monkeypatch.setattr(truth, "_WAITING_MAX", 2**15)
    monkeypatch.setattr(calibration, "LIMITS", (10,))
    monkeypatch.setattr(file_codes, "LIMITS", (10,))
    with (
        small_files_have_codes(),
        open_database(PosixEnvironment(), str(tmp_path / "db"), recall_target=0.9) as db,
    ):
        for first in range(0, ROWS, 10_000):
            save(db, gaussian(10_000, DIMENSION, seed=first), first)
        db.flush()
        tracemalloc.start()
        try:
            db.build_index()
            peak = tracemalloc.get_traced_memory()[1]
            (codes,) = indexer_of(db)._codes.values()
            held = codes.resident_bytes
            assert searched(db) == ["clusters"]
        finally:
            tracemalloc.stop()
        assert codes.codes.codes.nbytes > MATRIX_BYTES / 4, "they are mapped"
        assert held < MATRIX_BYTES / 8
        assert peak < 0.75 * MATRIX_BYTES
