"""A database past 4 GiB: offsets that do not fit 32 bits, in a vector file and in a segment."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

import numpy as np

import engramdb
from tests.soak.parts import Broken, Figures, bytes_in, check, check_sound, options, spread_id

_SPARE_BYTES = 8 * 2**30


def _need(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if free < needed + _SPARE_BYTES:
        raise Broken(f"{needed:,} bytes are needed, and {free:,} are free: name another directory")


def vectors(directory: Path, size: int, seed: int) -> Figures:
    """One vector file of so many bytes. Row i is i in all columns but one."""
    dimension = 1024
    rows = size // (4 * dimension) + 1
    _need(directory, 2 * size)
    matrix = np.empty((rows, dimension), np.float32)
    matrix[:] = np.arange(rows, dtype=np.float32)[:, None] % 1000 + 1
    matrix[np.arange(rows), np.arange(rows) % dimension] = -1.0 - np.arange(rows) // dimension
    ids = [spread_id(i) for i in range(rows)]
    rng = random.Random(f"vectors {seed}")
    db = engramdb.Database.file_based(directory / "db")
    with options(bulk_bytes_min=1):
        db.save_columns(ids, matrix)
    for round_ in range(2):
        for i in (0, rows // 2, rows - 1, *(rng.randrange(rows) for _ in range(50))):
            vector = db.load(ids[i]).embeddings
            assert vector is not None
            check((vector == matrix[i]).all(), f"row {i} reads as another vector")
        for i in (0, rows - 1):
            hits = db.search_similar(matrix[i], 3)
            check(ids[i] in [found for found, _ in hits], f"row {i} is not found")
        check_sound(db)
        if round_ == 0:
            db.close()
            db = engramdb.Database.open(directory / "db")
    total = bytes_in(directory)
    check(total > size, f"{total:,} bytes on the disk")
    db.close()
    return {"vectors: bytes on disk": total, "vectors: rows": rows}


def payloads(directory: Path, size: int, seed: int) -> Figures:
    """One segment with so many bytes of attributes that do not compress."""
    each, batch = 2**16, 1024
    rows = size // each + 1
    _need(directory, 3 * size)
    ids = [spread_id(i) for i in range(rows)]
    db = engramdb.Database.file_based(directory / "db")
    for start in range(0, rows, batch):
        part = range(start, min(start + batch, rows))
        db.save_columns(
            [ids[i] for i in part], None, {"data": [_noise(seed, i, each) for i in part]}
        )
    db.compact()
    check(db.stats()["segments"] == 1, "one segment after compact()")
    rng = random.Random(f"payloads {seed}")
    for round_ in range(2):
        for i in (0, rows // 2, rows - 1, *(rng.randrange(rows) for _ in range(30))):
            said = db.load(ids[i]).get_attribute("data")
            check(said == _noise(seed, i, each), f"row {i} reads as other attributes")
        check_sound(db)
        if round_ == 0:
            db.close()
            db = engramdb.Database.open(directory / "db")
    total = bytes_in(directory)
    check(total > size, f"{total:,} bytes on the disk")
    db.close()
    return {"attributes: bytes on disk": total, "attributes: rows": rows}


def _noise(seed: int, i: int, length: int) -> bytes:
    return np.random.default_rng((seed, i)).bytes(length)
