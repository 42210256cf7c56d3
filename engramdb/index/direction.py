"""A query, as the product and the second look need it."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]


class Direction(NamedTuple):
    """A query scaled to length 1 (or zero), in both precisions."""

    narrow: Floats32
    wide: Floats64
    margin: float  # largest distance between a float32 score and the cosine


def direction_of(query: Floats32) -> Direction:
    """Of any finite vector."""
    wide = query.astype(np.float64)  # the squares of all float32 numbers are normal float64 ones
    norm = math.sqrt(wide.dot(wide))
    if norm:
        wide /= norm
    return Direction(wide.astype(np.float32), wide, (wide.size + 16) * 2.0**-24)
