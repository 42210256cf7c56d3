"""The nearest memories in a named space, where each may have several vectors: by codes where there
are some, else by scans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from engramdb.index import chosen, late_interaction, lists
from engramdb.index.approximate import Codes
from engramdb.index.metric import COSINE, Metric
from engramdb.index.top import Hit
from engramdb.indexing.indexer import Indexer
from engramdb.indexing.nearest import by_codes
from engramdb.lsm import VectorRun
from engramdb.lsm.keys import KeyMatrix

Floats32 = npt.NDArray[np.float32]


def search(
    indexer: Indexer | None,
    runs: Sequence[VectorRun],
    seq: int,
    queries: Floats32,
    limit: int,
    threshold: float,
    metric: Metric,
    space: str,
) -> list[Hit]:
    """The best memories for (q, d) query vectors, one of them unless the metric is cosine. Without
    an indexer: late_interaction.search()."""
    if indexer is not None and any(run.file in indexer.codes() for run in runs):
        kept = indexer.interaction

        def by_lists(codes: Codes) -> list[Hit]:
            if len(queries) == 1 or metric != COSINE:
                return lists.nearest(runs, seq, queries[0], limit, threshold, metric, codes)
            return lists.interacting(
                runs, seq, queries, limit, threshold, codes, kept.owners, kept.chance(space)
            )

        found = by_codes(indexer, by_lists, space, queries)
        if found is not None:
            return found
    return late_interaction.search(runs, seq, queries, limit, threshold, metric)


def owned(
    indexer: Indexer | None, runs: Sequence[VectorRun], keys: KeyMatrix, *, by_these: bool
) -> list[VectorRun]:
    """The runs, with only the vectors of these memories, or with only those of all others."""
    if indexer is None:
        return chosen.owned(runs, keys, by_these=by_these)
    return chosen.owned(
        runs,
        keys,
        by_these=by_these,
        known=indexer.interaction.owners,
        coded=indexer.codes().keys(),
    )
