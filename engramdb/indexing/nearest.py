"""The nearest vectors: by codes where there are some, else by scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engramdb.errors import CorruptionError
from engramdb.index import approximate, exact
from engramdb.index.metric import Metric
from engramdb.index.top import Hit, Part
from engramdb.indexing.indexer import Indexer
from engramdb.lsm import VectorRun
from engramdb.lsm.records import DEFAULT_SPACE

Floats32 = npt.NDArray[np.float32]


def search(
    indexer: Indexer | None,
    runs: Sequence[VectorRun],
    seq: int,
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
    space: str = DEFAULT_SPACE,
) -> list[Hit]:
    """The best of all visible rows. Without an indexer: exact.search()."""
    codes = None if indexer is None else indexer.codes()
    if indexer is not None and codes:
        indexer.asked(space, query)
        try:
            return approximate.search(runs, seq, query, limit, threshold, metric, codes)
        except CorruptionError as error:
            if not indexer.forget_damaged(error):
                raise
    return exact.search(runs, seq, query, limit, threshold, metric)


def search_many(
    indexer: Indexer | None,
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
    space: str = DEFAULT_SPACE,
) -> list[list[Hit]]:
    """The same for each of the queries."""
    codes = None if indexer is None else indexer.codes()
    if indexer is not None and codes:
        for query in queries:
            indexer.asked(space, query)
        try:
            return approximate.search_many(runs, seq, queries, limit, threshold, metric, codes)
        except CorruptionError as error:
            if not indexer.forget_damaged(error):
                raise
    return exact.search_many(runs, seq, queries, limit, threshold, metric)


def search_among(
    indexer: Indexer | None,
    parts: Sequence[Part],
    query: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
) -> list[Hit]:
    """The best of these rows."""
    codes = None if indexer is None else indexer.codes()
    if indexer is not None and codes:
        try:
            return approximate.search_among(parts, query, limit, threshold, metric, codes)
        except CorruptionError as error:
            if not indexer.forget_damaged(error):
                raise
    return exact.search_among(parts, query, limit, threshold, metric)
