"""Puts a selection in order: whole columns of signals, a partial sort, and exact scores at the top.

Cosines of all rows are float32 and may be wrong by a known margin; whoever could be among the best
in spite of that gets an exact cosine before the last sort; scores by other metrics are exact from
the start. So the answer does not depend on how the vectors lie in files. Ties are in the order of
the keys.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np

from engramdb.index import exact
from engramdb.index.metric import COSINE, Metric
from engramdb.lsm.keys import Rows, split, to_list
from engramdb.lsm.records import DEFAULT_SPACE
from engramdb.model.vectors import Vector
from engramdb.query.attribute_filter import ABSENT
from engramdb.query.explanation import Trace
from engramdb.query.order import ACTIVATION, RECENCY, SIMILARITY, Order
from engramdb.query.selection import Selection
from engramdb.query.signals import Floats, Signals, similar_in
from engramdb.query.sorting import sorted_by_value
from engramdb.query.source import Reader, Source
from engramdb.query.vectors import Located, locate

Match = tuple[bytes, float | None]
"""A key, and its score if there is one."""

_DECIMALS: Final = 12  # below them there is only noise
_ROUNDED_MAX: Final = 1e3  # larger numbers have no digits to lose below _DECIMALS
_TERM_MAX: Final = 1e300  # of a sum: so that it is finite, and infinity minus infinity is zero
_EXACT_INTEGERS: Final = 2.0**53  # larger ones are not all float64 numbers


class Wish(NamedTuple):
    """What the answer has to look like. `limit` None: all of it."""

    order: Order | None
    vector: Vector | None
    metric: Metric
    space: str
    threshold: float | None
    limit: int | None
    now_us: int
    exact: bool


def rank(
    selection: Selection,
    wish: Wish,
    source: Source,
    reader: Reader,
    trace: Trace,
) -> list[Match]:
    """The best of the selection, in order."""
    count, order = selection.count, wish.order
    if wish.vector is None and order is None:
        matches = _by_key(selection, wish.limit)
        trace.plan = "no vector: the matching rows in the order of their ids"
        trace.stage("order", count, len(matches), "by id")
    elif wish.vector is not None and (order is None or _is_plain_similarity(order)):
        if wish.space == DEFAULT_SPACE:
            matches = _by_similarity(selection, wish, source, wish.vector, reader, trace)
        else:
            indexer = None if wish.exact else reader._indexer
            matches = similar_in(
                selection,
                source,
                wish.space,
                wish.vector,
                wish.limit,
                wish.threshold,
                wish.metric,
                indexer,
            )
            trace.plan = "searched the vectors of those that match in the space"
            trace.stage(
                "similarity", count, len(matches), f"{wish.metric}, in the space {wish.space!r}"
            )
    else:
        assert order is not None
        matches = _by_signals(selection, wish, order, source, reader, trace)
    return matches


def _is_plain_similarity(order: Order) -> bool:
    return not order.is_sum and order.descending and order.uses(SIMILARITY)


def _by_key(selection: Selection, count: int | None) -> list[Match]:
    if count is not None:
        selection = selection.first(count)
    keys = selection.keys()
    high, low = split(keys)
    return [(key, None) for key in to_list(keys[np.lexsort((low, high))[:count]])]


def _by_similarity(
    selection: Selection,
    wish: Wish,
    source: Source,
    vector: Vector,
    reader: Reader,
    trace: Trace,
) -> list[Match]:
    runs = source.vector_runs()
    places = locate(selection.vectors(), runs)
    found = sum(len(place.rows) for place in places)
    trace.stage("vectors", selection.count, found, f"{len(places)} of {len(runs)} runs")
    hits = reader._nearest_among(
        [(place.run, place.rows) for place in places],
        vector,
        found if wish.limit is None else wish.limit,
        -math.inf if wish.threshold is None else wish.threshold,
        wish.metric,
        wish.exact,
    )
    trace.plan = how(places)
    scored = sum(map(_scored, places))
    trace.stage("similarity", scored, len(hits), f"exact {wish.metric}")
    return list(hits)


def _is_scanned(place: Located) -> bool:
    """Whether exact.search_among() does so."""
    return exact.is_dense(len(place.rows), place.run.rows, place.run.dimension)


def _scored(place: Located) -> int:
    return place.run.rows if _is_scanned(place) else len(place.rows)


def how(places: list[Located], may_scan: bool = True) -> str:
    """What a search among these rows does, and why."""
    scanned = [may_scan and _is_scanned(place) for place in places]
    rows = sum(place.run.rows for place, is_all in zip(places, scanned, strict=True) if is_all)
    gathered = sum(
        len(place.rows) for place, is_all in zip(places, scanned, strict=True) if not is_all
    )
    parts = []
    if rows:
        parts.append(f"scanned {rows:,} rows and masked the others, as most match")
    if gathered:
        parts.append(f"scored only the rows that match: {gathered:,}")
    return "; ".join(parts) or "nothing to score"


def _by_signals(
    selection: Selection,
    wish: Wish,
    order: Order,
    source: Source,
    reader: Reader,
    trace: Trace,
) -> list[Match]:
    signals = Signals(selection, wish.now_us, reader._activation)
    if wish.vector is not None:
        signals.compare(wish.vector, wish.threshold, source, wish.space, wish.metric)
        trace.stage("vectors", selection.count, signals.selection.count, wish.metric)
        trace.plan = how(signals.places, wish.metric == COSINE)
    else:
        trace.plan = "no vector: every matching row gets its signals"
    name, count = order.weights[0][0], wish.limit
    scores: Floats | None = None
    if order.is_sum:
        positions, scores = _by_sum(signals, order, count, wish.metric)
    elif name in (SIMILARITY, RECENCY, ACTIVATION):
        positions, scores = _by_signal(signals, name, order, count)
    else:
        positions = _by_attribute(signals, name, order, count)
        if wish.vector is not None:
            scores = signals.exact_scores(positions)
    keys = to_list(signals.selection.keys_at(positions))
    detail = " + ".join(f"{weight:g} {name}" for name, weight in order.weights)
    trace.stage("order", signals.selection.count, len(keys), f"by {detail}")
    return list(zip(keys, [None] * len(keys) if scores is None else scores.tolist(), strict=True))


def _by_sum(
    signals: Signals, order: Order, count: int | None, metric: Metric
) -> tuple[Rows, Floats]:
    rest = np.zeros(signals.selection.count)  # of the score: everything but similarity
    similarity = 0.0
    for name, weight in order.weights:
        if name == SIMILARITY:
            similarity = weight
            continue
        values = signals.of(name, order)
        with np.errstate(over="ignore"):  # of what was never used: 1 / (1 + inf)
            if name == ACTIVATION:
                values = 1.0 / (1.0 + np.exp(-values))
            values = np.clip(np.nan_to_num(values, nan=0.0), -_TERM_MAX, _TERM_MAX)
            rest += np.clip(weight * values, -_TERM_MAX, _TERM_MAX)
    near = rest + similarity * signals.similarities if similarity else rest
    best = _candidates(near, order, count, 2 * abs(similarity) * signals.margin)
    scores = rest[best]
    if similarity:  # not as a correction of `near`: equal memories have to have equal scores
        scores = scores + similarity * signals.exact_scores(best)
        if metric == COSINE:  # the others have no size of their own: 1e-20 may be much
            scores = _rounded(scores)
    places = _sorted(signals, best, scores, order, count)
    return best[places], scores[places]


def _rounded(scores: Floats) -> Floats:
    """To 12 decimals, where a float64 has them."""
    small = np.abs(scores) < _ROUNDED_MAX
    rounded: Floats = np.where(small, np.round(np.where(small, scores, 0.0), _DECIMALS), scores)
    return rounded


def _by_signal(signals: Signals, name: str, order: Order, count: int | None) -> tuple[Rows, Floats]:
    if name == RECENCY:  # by time itself: the recency of what is very old is 0
        ranks = signals.selection.times().astype(np.float64)
    else:
        ranks = signals.of(name, order)
    best = _candidates(ranks, order, count, 2 * signals.margin if name == SIMILARITY else 0.0)
    chosen = signals.exact_scores(best) if name == SIMILARITY else ranks[best]
    places = _sorted(signals, best, chosen, order, count)
    best = best[places]
    return best, signals.of(RECENCY, order)[best] if name == RECENCY else chosen[places]


def _by_attribute(signals: Signals, name: str, order: Order, count: int | None) -> Rows:
    """What has no such attribute, or one without an order, comes last, whichever way."""
    numbers = signals.numbers(name)
    missing = np.isnan(numbers)
    is_plain = not bool((np.abs(numbers[~missing]) >= _EXACT_INTEGERS).any()) and all(
        value is ABSENT for value in signals.values(name, np.flatnonzero(missing))
    )
    if not is_plain:
        positions = np.arange(signals.selection.count)
        keys = to_list(signals.selection.keys())
        return sorted_by_value(signals.values(name, positions), keys, order.descending)[:count]
    ranks = np.where(missing, -np.inf if order.descending else np.inf, numbers)
    best = _candidates(ranks, order, count, 0.0)
    return best[_sorted(signals, best, ranks[best], order, count)]


def _candidates(ranks: Floats, order: Order, count: int | None, slack: float) -> Rows:
    """The positions that may be among the first `count`, ascending."""
    if count is None or count >= len(ranks):
        return np.arange(len(ranks))
    place = len(ranks) - count if order.descending else count - 1
    bound = float(np.partition(ranks, place)[place])
    if slack:  # and what the addition to large numbers has rounded away
        slack += 4 * float(np.spacing(abs(bound)))
    if order.descending:
        return np.flatnonzero(ranks >= bound - slack)
    return np.flatnonzero(ranks <= bound + slack)


def _sorted(
    signals: Signals, positions: Rows, ranks: Floats, order: Order, count: int | None
) -> Rows:
    """The places among the positions, by rank and then by key."""
    high, low = split(signals.selection.keys_at(positions))
    return np.lexsort((low, high, -ranks if order.descending else ranks))[:count]
