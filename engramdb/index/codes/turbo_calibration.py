"""How deep searches by turbovec's codes have to look."""

from __future__ import annotations

import math
from typing import Final

from engramdb.index.codes.calibration import TURBOVEC, Calibrated, Search, Trial
from engramdb.index.codes.recall import Recall
from engramdb.index.codes.turbo import TurboCodes

_ATTEMPTS: Final = 6
_DEEPER: Final = 1.5


def calibrate_turbo(trial: Trial, codes: TurboCodes, target: float) -> list[Calibrated]:
    """The depths for each of the trial's limits, with which the target is met. Sets codes.depths
    to them."""
    made = [_calibrated(trial, codes, limit, target) for limit in trial.limits]
    rely_on(codes, made, target)
    return made


def rely_on(codes: TurboCodes, calibrated: list[Calibrated], target: float) -> None:
    """Let the codes search as was found out."""
    depths = tuple((each.limit, max(each.limit, each.depth)) for each in calibrated)
    codes.rely_on(target, depths)


def _calibrated(trial: Trial, codes: TurboCodes, limit: int, target: float) -> Calibrated:
    depth = max(
        codes.calibrate(group.queries[::2], {limit: group.rows[::2, :limit]}, target)[0][1]
        for group in trial.groups
    )
    recall = Recall(0.0, 0.0, 0)
    for _ in range(_ATTEMPTS):
        codes.depths = ((limit, depth),)
        recall, seconds, is_met = trial.run(_search_with(codes, limit), limit, target)
        if is_met:
            return Calibrated(TURBOVEC, limit, None, depth, recall, seconds)
        depth = min(codes.rows, math.ceil(_DEEPER * depth))
    return Calibrated(TURBOVEC, limit, None, 0, recall, math.inf)


def _search_with(codes: TurboCodes, limit: int) -> Search:
    return lambda query, known: codes.candidates(query, limit, known)
