"""A query: what the float32 product needs of it, and what the second look in float64 does.

A product p of a row x with the query scaled to length 1 is float32 and wrong by less than
c |x|, c = (dimension + 16) * 2**-24: c also has room for a query and for norms that are rounded to
float32, and for the rounding of the final scores. Of a cosine that makes the constant margin c.
The other metrics take the length of the row into account, so each row has a margin of its own:

    dot          |q| p                      wrong by c |q| |x|
    euclidean    2 |q| p - |x|^2 - |q|^2    wrong by c |x| (2 |q| + |x|) + 1e-11 (|q|^2 + |x|^2)

The last one is minus the *square* of the distance, which sorts alike. What is added up there are
float64 numbers, so that nothing overflows; the term 1e-11 is for the rounding of the final scores
(relative to the distance, hence to |q| + |x| at most) and of this sum. Vectors that are close to
each other compared with their lengths are not told apart by it; then many are looked at again.

Final scores are rounded, since the last digits of a float64 sum depend on the machine: a cosine to
12 decimals; the others to 40 bits. An inner product is a sum in which terms may cancel, wrong in
proportion to |q| |x|: it is rounded to 2**-40 of that (of the next power of two), which is what 12
decimals are to a cosine. A distance comes from differences, where nothing cancels any more, wrong
in proportion to itself: it keeps its own first 40 bits. Powers of two lose nothing of small whole
numbers, and zero stays zero: equal vectors have a distance of exactly 0.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.index.metric import COSINE, DOT, Metric

Floats32 = npt.NDArray[np.float32]
Floats64 = npt.NDArray[np.float64]

_DECIMALS: Final = 1e12
_BITS: Final = 40
_ROUNDED: Final = 1e-11  # what rounding to so many bits, and a few sums in float64, may add up to
_SQUARE_MIN: Final = 1e-120  # lost beside the square of any float32 but zero; no division by zero
_ANY_COSINE: Final = -2.0  # below every score, above the -inf of a hidden row
_ANY_SCORE: Final = -1e100  # the same for the other metrics: |q| and |x| are at most 3e38


class Direction(NamedTuple):
    """A query scaled to length 1 (or zero), and what it takes to score vectors against it."""

    narrow: Floats32
    wide: Floats64  # for the final scores: of a cosine that too, else the query as it is
    margin: float  # c: largest distance between a float32 score and the cosine
    metric: Metric = COSINE
    norm: float = 1.0  # |q|; not used for cosines

    def least(self, threshold: float) -> float:
        """What candidates need at least, in the terms of estimates(), margin included."""
        if self.metric == COSINE:
            return max(threshold - self.margin, _ANY_COSINE)
        if self.metric == DOT:
            return max(threshold, _ANY_SCORE)
        return max(-threshold * threshold, _ANY_SCORE)  # above 0 none is reached anyway

    def estimates(self, products: Floats32, norms: Floats64) -> Floats64:
        """What products and norms say of the scores; not of cosines. See above."""
        scores = products.astype(np.float64)
        if self.metric == DOT:
            scores *= self.norm
            return scores
        scores *= 2.0 * self.norm
        scores -= norms * norms
        scores -= self.norm * self.norm
        return scores

    def margins(self, norms: Floats64) -> Floats64:
        """By how much each of the estimates may be wrong, at most."""
        if self.metric == DOT:
            return norms * (self.margin * self.norm)
        # c n (2 |q| + n) + r (|q|^2 + n^2)
        margins = norms * (self.margin + _ROUNDED)
        margins += 2.0 * self.margin * self.norm
        margins *= norms
        margins += _ROUNDED * self.norm * self.norm
        return margins

    def estimates_from(self, scores: Floats64) -> Floats64:
        """Final scores in the terms of estimates(), which are not wrong at all."""
        return scores if self.metric in (COSINE, DOT) else -scores * scores

    def scores(self, vectors: Floats32) -> Floats64:
        """The final scores of (n, dimension) vectors: each a function of its two vectors alone."""
        if self.metric == COSINE:
            return self._cosines(vectors)
        wide = vectors.astype(np.float64)
        if self.metric == DOT:
            lengths = np.sqrt(np.vecdot(wide, wide))
            lengths *= self.norm
            products: Floats64 = np.vecdot(wide, self.wide)
            return _rounded(products, lengths) + 0.0  # not -0.0
        wide -= self.wide
        distances = np.sqrt(np.vecdot(wide, wide))
        return 0.0 - _rounded(distances, distances)

    def _cosines(self, vectors: Floats32) -> Floats64:
        wide = vectors.astype(np.float64)
        squares = np.vecdot(wide, wide)
        squares += _SQUARE_MIN
        cosines: Floats64 = np.vecdot(wide, self.wide)
        cosines /= np.sqrt(squares, out=squares)
        cosines *= _DECIMALS
        np.rint(cosines, out=cosines)
        cosines /= _DECIMALS
        return cosines


def direction_of(query: Floats32, metric: Metric = COSINE) -> Direction:
    """Of any finite vector."""
    wide = query.astype(np.float64)  # the squares of all float32 numbers are normal float64 ones
    norm = math.sqrt(wide.dot(wide))
    margin = (wide.size + 16) * 2.0**-24
    if metric != COSINE:
        narrow = (wide / norm if norm else wide).astype(np.float32)
        return Direction(narrow, wide, margin, metric, norm)
    if norm:
        wide /= norm
    return Direction(wide.astype(np.float32), wide, margin)


def norms_of(inverse_norms: Floats32) -> Floats64:
    """The norms, as right as float32 is; 0 for zero vectors and for those below 1e-38."""
    norms = inverse_norms.astype(np.float64)
    np.divide(1.0, norms, out=norms, where=norms != 0.0)
    return norms


def _rounded(numbers: Floats64, sizes: Floats64) -> Floats64:
    """The numbers, to 2**-40 of the next power of two above a size."""
    _, exponents = np.frexp(sizes)
    exponents = _BITS - exponents
    return np.ldexp(np.rint(np.ldexp(numbers, exponents)), -exponents)
