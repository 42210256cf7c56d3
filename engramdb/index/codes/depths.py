"""How deep a search of codes must look: depths, and the ranks that they are measured by.

Codes order the rows nearly as their vectors do. The depth for a limit is how many of the best by
the codes hold the `limit` best rows, up to the recall wanted.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Depths = tuple[tuple[int, int], ...]
"""((limit, depth), ...), ascending by limit."""

LIMITS: Final = (10, 100, 1_000)  # for which depths are measured


def depth_for(depths: Depths, limit: int) -> int:
    """The depth for any limit from those that were measured.

    As many as for the next one above, or as many times the limit as for the next one below,
    whatever is less. (That ratio falls as the limit grows: the rows lie the denser, the worse they
    are, but less so than there are more of them.)
    """
    deep = depths[0][1]
    for measured, depth in depths:
        if limit <= measured:
            return max(limit, min(depth, deep))
        deep = -(-limit * depth // measured)
    return max(limit, deep)


def depth_of(ranks: Rows, recall_target: float) -> int:
    """The least depth at which that share of the ranks (from 0) is found; 1 if there are none."""
    if not ranks.size:
        return 1
    ordered = np.sort(ranks, axis=None)
    needed = math.ceil(recall_target * ordered.size - 1e-9)
    return int(ordered[max(0, needed - 1)]) + 1


def ranks_of(scores: Floats32, slots: Rows, truth: Rows) -> Rows:
    """The rank of each true row (m, limit) among the slots (m, depth), which stand best first, or
    the depth if it is not there. Equal scores share the best of their ranks."""
    queries, depth = slots.shape
    if not depth:
        return np.zeros(truth.shape, np.int64)
    places = np.tile(np.arange(depth, dtype=np.int64), (queries, 1))
    is_new = np.ones(scores.shape, np.bool_)
    is_new[:, 1:] = scores[:, 1:] < scores[:, :-1]
    shared = np.maximum.accumulate(np.where(is_new, places, 0), axis=1)
    stride = int(max(slots.max(), truth.max(initial=0))) + 2  # so that -1 finds nothing
    base = np.arange(queries, dtype=np.int64)[:, np.newaxis] * stride + 1
    keys = (slots + base).ravel()
    order = np.argsort(keys)
    wanted = (truth + base).ravel()
    at = order[np.minimum(np.searchsorted(keys, wanted, sorter=order), keys.size - 1)]
    ranks: Rows = np.where(keys[at] == wanted, shared.ravel()[at], depth)
    return ranks.reshape(truth.shape)


def are_depths(value: object) -> bool:
    """Whether these are pairs of a limit and a depth, ascending by limit, as an array."""
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.int64
        and value.ndim == 2
        and value.shape[1] == 2
        and len(value) > 0
        and bool((value > 0).all())
        and bool((np.diff(value[:, 0]) > 0).all())
    )
