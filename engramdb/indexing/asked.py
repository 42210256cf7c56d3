"""Queries that were asked: what the index is calibrated on, and what its clusters are made for."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]

KEPT: Final = 1024
_ALL_UNTIL: Final = 512
_EVERY: Final = 8


class Asked:
    """The latest queries in one space: all of the first ones, later every eighth."""

    __slots__ = ("_kept", "count")

    def __init__(self) -> None:
        self._kept: deque[Floats32] = deque(maxlen=KEPT)
        self.count = 0
        """How many there were."""

    def record(self, query: Floats32) -> None:
        """A query of any length was asked. Takes a copy."""
        self.count += 1
        if self.count <= _ALL_UNTIL or not self.count % _EVERY:
            self._kept.append(query.copy())

    def queries(self) -> Floats32:
        """(q, d) of unit length, the latest last; zero vectors are left out."""
        kept = list(islice(self._kept, KEPT))
        if not kept:
            return np.empty((0, 0), np.float32)
        wide = np.array(kept, np.float64)
        norms = np.sqrt(np.vecdot(wide, wide))
        some = norms > 0
        unit: Floats32 = (wide[some] / norms[some, None]).astype(np.float32)
        return unit
