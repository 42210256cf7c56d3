"""What is known of a vector file beside its vectors: its codes, and how far to rely on them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt

from engramdb.index.codes.calibration import LIMITS, TURBOVEC, Calibrated
from engramdb.index.codes.clusters import ClusterCodes, Effort, Floats32, Rows, Visible
from engramdb.index.codes.turbo import TurboCodes

_MASK_NS: Final = 0.3  # per row of the file: a mask is made and looked up
_LOOKS: Final = 300  # rows that get an exact look, about
_ALIKE: Final = 2e-6  # of cosines it makes twice as much, which is less than _ROUNDING of clusters


def scan_ns(rows: int, dimension: int) -> float:
    """What it costs to multiply so many rows, in nanoseconds; see exact.is_dense()."""
    return rows * (2 + 0.17 * dimension)


def gather_ns(rows: int, dimension: int) -> float:
    """What it costs to multiply so many scattered rows, in nanoseconds."""
    return rows * (10 + 0.34 * dimension)


@dataclass(frozen=True)
class FileCodes:
    """The codes of one vector file.

    turbo        the codes of turbovec, if they are loaded
    aside        rows that have no code, ascending: zero vectors, and norms out of float32's reach
    calibrated   for each kind of codes, and for LIMITS as far as they are small beside the rows
    target       the recall that they were calibrated for
    asked        how many queries that were asked took part in that
    scan_seconds what a scan of all rows takes on this machine
    shortest, longest   of all vectors but zero ones
    """

    codes: ClusterCodes
    turbo: TurboCodes | None
    dimension: int
    aside: Rows
    calibrated: tuple[Calibrated, ...]
    target: float
    asked: int
    scan_seconds: float
    shortest: float
    longest: float

    @cached_property
    def _plans(self) -> tuple[Calibrated | None, ...]:
        return tuple(self._best(limit) for limit in LIMITS)

    def _best(self, limit: int) -> Calibrated | None:
        """It also has to find fewer: a hundred that are nearly all alike hide who is missed."""
        missing = {each.kind for each in self.calibrated if each.limit < limit and not each.serves}
        able = [
            each
            for each in self.calibrated
            if each.limit == limit
            and each.kind not in missing
            and each.serves
            and each.seconds < self.scan_seconds
            and (each.kind != TURBOVEC or self.turbo is not None)
        ]
        return min(able, key=lambda each: each.seconds, default=None)

    @property
    def resident_bytes(self) -> int:
        """Memory that is taken for good."""
        return self.codes.resident_bytes + (0 if self.turbo is None else self.turbo.resident_bytes)

    def plan(self, limit: int) -> Calibrated | None:
        """The quickest way to search for so many neighbours; None if a scan is as good."""
        at = bisect_left(LIMITS, limit)
        return self._plans[at] if at < len(LIMITS) else None

    def serve_all(self, norm: float) -> bool:
        """Whether all metrics agree about who is near a query of this length: whether the vectors
        are so equally long that it makes no more of a difference than codes do."""
        spread = self.longest - self.shortest
        return spread <= _ALIKE * norm and spread <= _ALIKE * self.shortest

    def candidates(
        self,
        query: Floats32,
        limit: int,
        *,
        known: float,
        floor: float,
        visible: Visible | None,
    ) -> Rows | None:
        """The rows that deserve an exact look, ascending; None: all of them.

        query   unit length
        known   a cosine that `limit` rows elsewhere reach, or NO_BOUND
        floor   a cosine below which nobody is interested
        """
        plan = self.plan(limit)
        if plan is None:
            return None
        if plan.effort is not None:
            rows = self.codes.candidates(query, plan.limit, plan.effort, known, floor, visible)
        else:
            assert self.turbo is not None
            rows = self.turbo.candidates(query, plan.limit, max(known, floor), visible)
        return self._with_aside(rows, visible)

    def candidates_many(self, queries: Floats32, limit: int) -> Rows | None:
        """For each of (q, d) queries the rows that deserve an exact look, (q, n), -1 where there
        are fewer; None if it has to be asked one by one. All rows are visible."""
        plan = self.plan(limit)
        if plan is None or plan.effort is not None or self.turbo is None or self.aside.size:
            return None
        return self.turbo.candidates_many(queries, plan.limit)

    def among(
        self, query: Floats32, limit: int, rows: Rows, *, known: float, floor: float
    ) -> Rows | None:
        """The same, among these rows only, which ascend; None: it does not pay."""
        plan = self.plan(limit)
        if plan is None or rows.size <= _LOOKS + limit:
            return None
        total = self.codes.rows
        looks = gather_ns(_LOOKS, self.dimension)
        exact = min(gather_ns(rows.size, self.dimension), scan_ns(total, self.dimension))
        gathered = gather_ns(rows.size, self.codes.width) + looks
        # what is left is thinner: the best of it lie further away, and more is scored
        masked = plan.seconds * 1e9 * (total / rows.size) + total * _MASK_NS
        if exact <= min(gathered, masked):
            return None
        effort = self._effort(plan.limit)
        if effort is not None and (gathered <= masked or plan.effort is None):
            chosen = self._coded(rows)
            found = self.codes.among(query, plan.limit, effort, known, floor, chosen)
            return found if not self.aside.size else np.union1d(found, rows[self._at_side(rows)])
        if plan.effort is None:
            assert self.turbo is not None
            found = self.turbo.among(query, plan.limit, max(known, floor), rows)
            return found if not self.aside.size else np.union1d(found, rows[self._at_side(rows)])
        mask = np.zeros(total, np.bool_)
        mask[rows] = True
        found = self.codes.candidates(
            query, plan.limit, plan.effort, known, floor, mask.__getitem__
        )
        return self._with_aside(found, mask.__getitem__)

    def _effort(self, limit: int) -> Effort | None:
        """Of the clusters, whichever codes are the quickest ones."""
        efforts = (each.effort for each in self.calibrated if each.limit == limit)
        return next((effort for effort in efforts if effort is not None), None)

    def _with_aside(self, rows: Rows, visible: Visible | None) -> Rows:
        aside = self.aside
        if not aside.size:
            return rows
        return np.union1d(rows, aside if visible is None else aside[visible(aside)])

    def _at_side(self, rows: Rows) -> npt.NDArray[np.bool_]:
        return np.isin(rows, self.aside)

    def _coded(self, rows: Rows) -> Rows:
        return rows if not self.aside.size else rows[~self._at_side(rows)]
