"""What the tests of the codes share: vectors, exact answers, codes of vectors, and databases that
are small and search by codes all the same."""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Final
from unittest import mock

import numpy as np
import numpy.typing as npt

import engramdb
from engramdb.index.codes.build import build
from engramdb.index.codes.calibration import CLUSTERS, LIMITS, Calibrated
from engramdb.index.codes.clusters import ClusterCodes, Effort
from engramdb.index.codes.file_codes import FileCodes
from engramdb.index.codes.recall import Recall
from engramdb.indexing import indexer, keeper
from engramdb.indexing.indexer import Indexer
from engramdb.indexing.keeper import Keeper
from engramdb.lsm.environment import Environment

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

EVERYTHING: Final = Effort((1e9, 1e9), 0.0, 1e9, 1e9, 1e9, 8)
"""How far a search goes that can miss nothing."""


def unit(vectors: npt.NDArray[Any]) -> Floats32:
    """The same directions at length 1, worked out in float64; zeros stay zeros."""
    wide = np.asarray(vectors, np.float64)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled: Floats32 = (wide / np.where(norms == 0, 1, norms)).astype(np.float32)
    return scaled


def gaussian(rows: int, dimension: int, seed: int = 0) -> Floats32:
    """One cloud without any structure: the hardest there is for clusters."""
    return unit(np.random.default_rng(seed).standard_normal((rows, dimension)))


def mixture(rows: int, dimension: int, seed: int = 0, spread: float = 0.7) -> Floats32:
    """Topics, some of them larger than others, and vectors around them."""
    random = np.random.default_rng(seed)
    centres = unit(random.standard_normal((max(1, rows // 40), dimension)))
    topics = (len(centres) * random.random(rows) ** 2).astype(int)
    noise = random.standard_normal((rows, dimension)) * spread / math.sqrt(dimension)
    return unit(centres[topics] + noise)


def questions(vectors: Floats32, count: int, seed: int = 1, likeness: float = 0.7) -> Floats32:
    """Vectors that are about as near to some of these as a question is to its answer."""
    random = np.random.default_rng(seed)
    chosen = vectors[random.integers(0, len(vectors), count)]
    noise = unit(random.standard_normal(chosen.shape))
    return unit(likeness * chosen + math.sqrt(1 - likeness**2) * noise)


def take_of(vectors: Floats32) -> Callable[[Rows], Floats32]:
    """What gives them by their numbers."""
    return lambda rows: vectors.take(rows, axis=0)


def no_pause() -> None:
    """Nobody else wants the machine."""


def codes_of(vectors: Floats32, queries: Floats32 | None = None) -> ClusterCodes:
    """Codes of (n, d) unit vectors, in memory."""
    asked = np.empty((0, vectors.shape[1]), np.float32) if queries is None else queries
    return build(len(vectors), take_of(vectors), no_pause, asked).codes(no_pause)


def cosines_of(vectors: Floats32, query: Floats32) -> npt.NDArray[np.float64]:
    """Of unit vectors, in float64."""
    cosines: npt.NDArray[np.float64] = vectors.astype(np.float64) @ query.astype(np.float64)
    return cosines


def planned(effort: Effort | None, seconds: float = 0.0) -> tuple[Calibrated, ...]:
    """A plan for every limit that there can be one for."""
    recall = Recall(1.0, 1.0, 96)
    return tuple(Calibrated(CLUSTERS, limit, effort, 0, recall, seconds) for limit in LIMITS)


def file_codes_of(
    vectors: Floats32, effort: Effort | None = EVERYTHING, aside: Sequence[int] = (), **more: Any
) -> FileCodes:
    """What is known of a file of these unit vectors."""
    fields: dict[str, Any] = {
        "codes": codes_of(vectors),
        "turbo": None,
        "dimension": vectors.shape[1],
        "aside": np.array(aside, np.int64),
        "calibrated": planned(effort),
        "target": 0.99,
        "asked": 0,
        "scan_seconds": 1.0,
        "shortest": 1.0,
        "longest": 1.0,
    }
    return FileCodes(**(fields | more))


# Databases

PATH: Final = "/database"


@contextmanager
def small_files_have_codes(effort: Effort | None = None) -> Iterator[None]:
    """Every file of a database that is opened within gets codes, however small it is, and is
    searched by them if their calibration says so. With an effort that is not calibrated but given,
    so are files that are too small to be calibrated."""

    with ExitStack() as stack:
        stack.enter_context(mock.patch.dict(_defaults(), cells_min=0))
        stack.enter_context(mock.patch.object(indexer, "_ROWS_MIN", 1))
        stack.enter_context(mock.patch.object(Keeper, "_scan_seconds", lambda _: math.inf))
        if effort is not None:
            given = mock.Mock(return_value=list(planned(effort)))
            stack.enter_context(mock.patch.object(Keeper, "_trial"))
            stack.enter_context(mock.patch.object(keeper, "calibrate_clusters", given))
        yield


def _defaults() -> dict[str, Any]:
    defaults = Indexer.__init__.__kwdefaults__
    assert "cells_min" in defaults
    return defaults


def indexer_of(db: engramdb.Database) -> Indexer:
    """Its insides, for what no caller can see."""
    assert db._indexer is not None
    return db._indexer


def open_database(environment: Environment, path: str = PATH, **options: Any) -> engramdb.Database:
    """A database without threads of its own, so that nothing happens by itself."""
    options.setdefault("background", False)
    options.setdefault("index", "numpy")
    config = engramdb.DatabaseConfig(storage_dir=path, **options)
    return engramdb.Database(config, environment)


def id_of(number: int) -> str:
    """The id of a memory that is known by a number; numbers ascend as ids do."""
    return str(uuid.UUID(int=number + 1))


def save(db: engramdb.Database, vectors: Floats32, first: int = 0) -> None:
    """Save memories numbered from `first` on, in one commit."""
    ids = [id_of(first + number) for number in range(len(vectors))]
    attributes = [{"third": (first + number) % 3} for number in range(len(vectors))]
    db.save_columns(ids, vectors, attributes)


def save_with_codes(db: engramdb.Database, vectors: Floats32, first: int = 0) -> None:
    """Save them into a file of their own that has codes."""
    save(db, vectors, first)
    db.flush()
    db.build_index()


def searched(db: engramdb.Database) -> list[str]:
    """How each of the files is searched."""
    return [file["searched"] for file in db.stats()["index"]["files"]]


def recall_of(db: engramdb.Database, queries: Floats32, limit: int = 10, **more: Any) -> float:
    """The share of the exact answers' scores that are found."""
    found = wanted = 0
    for query in queries:
        best = db.search_similar(query, limit, -1.0, exact=True, **more)
        least = best[-1][1]
        got = db.search_similar(query, limit, -1.0, **more)
        assert len(got) == len(best)
        found += sum(score >= least for _, score in got)
        wanted += len(best)
    return found / wanted
