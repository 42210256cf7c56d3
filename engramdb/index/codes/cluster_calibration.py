"""How far searches in clusters have to go: the reach and the slack that true neighbours need."""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.index.codes.calibration import CLUSTERS, Calibrated, Group, Search, Trial
from engramdb.index.codes.clusters import NO_BOUND, ClusterCodes, Effort
from engramdb.index.codes.recall import Recall

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]

_SHARES_MISSED: Final = (1.0, 0.5, 0.25, 0.1, 0.03)  # of what may be missed
_PARTS_BEYOND_REACH: Final = (0.8, 0.5, 0.2)  # of these; the others are lost by their codes
_FIRST_SHARE: Final = 0.005
_FIRST_MIN: Final = 256
_SMALL: Final = 1e-6  # no division by less
_HIDDEN: Final = 5  # so many times as many neighbours as wanted are taken for hidden


def calibrate_clusters(trial: Trial, codes: ClusterCodes, target: float) -> list[Calibrated]:
    """What to do for each of the trial's limits: with the quickest effort that meets the target."""
    return [_calibrated(trial, codes, limit, target) for limit in trial.limits]


def search_with(codes: ClusterCodes, limit: int, effort: Effort) -> Search:
    """Searches as a trial wants them."""
    return lambda query, known: codes.candidates(query, limit, effort, known, NO_BOUND, None)


def _calibrated(trial: Trial, codes: ClusterCodes, limit: int, target: float) -> Calibrated:
    needs = [_needs(trial, codes, group, limit) for group in trial.groups]
    turn = float(np.median(np.concatenate([need.bound for need in needs])))
    first = max(_FIRST_MIN, 4 * limit, round(_FIRST_SHARE * codes.rows))
    recall = Recall(0.0, 0.0, 0)
    for share in _SHARES_MISSED:
        found: list[Calibrated] = []
        for part in _PARTS_BEYOND_REACH:
            beyond = (1.0 - target) * share * part
            unseen = (1.0 - target) * share * (1 - part)
            effort = Effort(
                (
                    max(_quantile(need.reach[need.bound < turn], beyond) for need in needs),
                    max(_quantile(need.reach[need.bound >= turn], beyond) for need in needs),
                ),
                turn,
                max(_quantile(need.slack, unseen) for need in needs),
                max(_quantile(need.border_reach, beyond) for need in needs),
                max(_quantile(need.border_slack, unseen) for need in needs),
                first,
                max(_quantile(need.deep_reach, beyond) for need in needs),
                max(_quantile(need.deep_slack, unseen) for need in needs),
            )
            recall, seconds, is_met = trial.run(search_with(codes, limit, effort), limit, target)
            if is_met:
                found.append(Calibrated(CLUSTERS, limit, effort, 0, recall, seconds))
        if found:
            return min(found, key=lambda each: each.seconds)
    return Calibrated(CLUSTERS, limit, None, 0, recall, math.inf)


class _Needs(NamedTuple):
    """For every second query and each of its neighbours: the bound that a search finds itself, the
    reach and the slack that it takes to find it with this bound, and with one just below it; and
    for its next neighbours, as if those before them were hidden."""

    bound: Floats32
    reach: Floats32
    slack: Floats32
    border_reach: Floats32
    border_slack: Floats32
    deep_reach: Floats32
    deep_slack: Floats32


def _needs(trial: Trial, codes: ClusterCodes, group: Group, limit: int) -> _Needs:
    parts: list[tuple[Floats32, ...]] = []
    for query, rows, cosines in zip(
        group.queries[::2], group.rows[::2], group.cosines[::2], strict=True
    ):
        asked = query @ codes.axes
        cluster = codes.cluster[rows]
        lifts = cosines - codes.centres[cluster] @ asked  # how far each lies above its centre
        spread = np.maximum(codes.spread[cluster], _SMALL)
        scores = codes.scores_of(rows, asked)
        inside = asked[: codes.width]
        outside = math.sqrt(max(_SMALL, 1.0 - float(inside @ inside)))
        first = _Part(slice(limit), cosines, lifts, spread, scores)
        later = _Part(slice(_HIDDEN * limit, (_HIDDEN + 1) * limit), cosines, lifts, spread, scores)
        parts.append(
            (
                np.full(limit, cosines[limit - 1]),
                first.reach(),
                first.slack() / outside,
                (lifts / spread)[:limit],
                (cosines - scores)[:limit] / outside,
                later.reach(),
                later.slack() / outside,
            )
        )
        trial.pause()
    return _Needs(*(np.concatenate(each) for each in zip(*parts, strict=True)))


class _Part(NamedTuple):
    """Some of the neighbours of a query, for whom those before them are hidden, and all of them."""

    mine: slice
    cosines: Floats32
    lifts: Floats32
    spread: Floats32
    scores: Floats32

    def reach(self) -> Floats32:
        """In spreads: what a cluster needs to be scored, when the last of these is the bound."""
        cosines = self.cosines[self.mine]
        if not len(cosines):
            return cosines
        lifts = self.lifts[self.mine] - (cosines - cosines[-1])
        needed: Floats32 = lifts / self.spread[self.mine]
        return needed

    def slack(self) -> Floats32:
        """How far below the last of the best by their codes each of these lies by its own."""
        mine, rest = self.scores[self.mine], self.scores[self.mine.start or 0 :]
        if not len(mine):
            return mine
        lacking: Floats32 = np.partition(rest, len(rest) - len(mine))[-len(mine)] - mine
        return lacking


def _quantile(values: Floats32, beyond: float) -> float:
    """What all but such a share of the values do not exceed; not less than nothing, as a search has
    to find as many rows as are wanted."""
    return max(0.0, float(np.quantile(values, 1.0 - beyond))) if len(values) else 0.0
