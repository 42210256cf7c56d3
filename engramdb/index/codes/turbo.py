"""Codes of one vector file by turbovec: four bits a dimension, all of them scanned with SIMD.

turbovec is optional (`pip install engramdb[fast]`) and loaded at the first call of available(). It
turns all vectors by one random rotation and rounds each coordinate to one of 16 levels (TurboQuant,
arXiv:2504.19874). The scores of the codes are wrong by some 0.08 / sqrt(dimension), which does not
depend on how the data are spread: so the rows that may be the best ones are just the best few more
by the codes. They are candidates; whoever asks scores them exactly.

    depth     so many of the best by the codes hold the `limit` best, up to the recall wanted:
              measured by calibrate(), and taken with much to spare until then
    epsilon   a row whose code scores less than bound - epsilon has a cosine below the bound

Measured on 2 cores, 384 dimensions: 0.15 ms for 100,000 rows, whose codes fit into the cache; 6 ms
for 1,000,000. From 32,768 rows on turbovec first scans one bit of each code and looks again at the
best only, some of which it loses: few of real embeddings, many of random directions. So a depth is
only worth what a search of just that depth finds.

A mask costs more than it saves unless it hides nearly everything. Hidden rows are therefore dropped
from what was found, and more is asked for where too little was left. What was measured without a
filter says little under one: those left may lie anywhere, and the denser, the farther down the true
ones are. So then all rows count whose scores are less than epsilon below the limit-th best.

turbovec does not notice damage in what it is given to load; values() keeps a checksum of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cache
from statistics import NormalDist
from types import ModuleType
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import xxhash

from engramdb.index.codes.depths import (
    LIMITS,
    Depths,
    are_depths,
    depth_for,
    depth_of,
    ranks_of,
)

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Visible = Callable[[Rows], Mask]

_BITS: Final = 4
_FORMAT: Final = 1
_DIMENSION_STEP: Final = 8  # turbovec's; the missing ones are zeros
_BLOCK_ROWS: Final = 4_096  # added at a time
_FEW_ROWS: Final = 512  # and
_FEW_SHARE: Final = 200  # one in so many, whatever is more: see TurboCodes._few
_MASK_SHARE_MAX: Final = 0.2  # a mask pays if it leaves less of the rows
_DEEP_MAX: Final = 4_096  # equal scores, and those in doubt under a filter, are followed so far
_ERRORS_MAX: Final = 4.0  # epsilon, in standard deviations of the error: one in 30,000 lies beyond
_ERROR_ROWS: Final = 1_024  # from which it is measured,
_ERROR_QUERIES: Final = 64  # and by how many of them
_EPSILON_DEFAULT: Final = 0.4  # of vectors all alike: nothing to measure it from
_NORM_MIN: Final = 1e-15  # in between, the squares of float32 numbers
_NORM_MAX: Final = 1e15  # can be added up in float32
_NO_BOUND: Final = -2.0  # below every cosine


@cache
def available() -> bool:
    """Whether turbovec can be loaded, in a version that can calibrate (1.1). Loads it."""
    return _loaded() is not None


def bytes_of(rows: int, dimension: int) -> int:
    """Memory that codes of so many rows take."""
    return rows * (_wide_dimension(dimension) * _BITS // 8 + 4)


@cache
def _loaded() -> ModuleType | None:
    try:
        import turbovec
    except ImportError:
        return None
    module: ModuleType = turbovec
    return module if hasattr(getattr(module, "TurboQuantIndex", None), "calibrate") else None


class TurboCodes:
    """The codes of the rows of one vector file, in their order.

    Never changes but for `depths`, which may be replaced at any time. Thread-safe: a search lets go
    of Python's lock, and shares turbovec's threads, one for each core, with all others (fewer if
    RAYON_NUM_THREADS said so when the process began).
    """

    __slots__ = ("_index", "depths", "dimension", "epsilon", "margin", "rows")

    def __init__(
        self, index: Any, rows: int, dimension: int, epsilon: float, depths: Depths
    ) -> None:
        self._index = index
        self.rows = rows
        self.dimension = dimension
        self.epsilon = epsilon
        """By how much the score of a code may fall short of the cosine."""
        self.margin = epsilon
        """By how much it does so for those that must be found under a filter; see rely_on()."""
        self.depths = depths
        """((limit, depth), ...), ascending: what calibrate() has measured, or a guess."""

    @classmethod
    def build(
        cls,
        blocks: Iterable[Floats32],
        sample: Floats32,
        *,
        pause: Callable[[], None] = lambda: None,
    ) -> TurboCodes:
        """Codes of all rows of the blocks, one after the other.

        blocks   (rows, dimension) each, finite, of any length: they are scaled to length 1, and a
                 zero vector stays one: its score is 0, as its cosine is
        sample   some 1,000 to 4,000 of these rows, drawn evenly: what the codes are fitted to
        pause    called between steps of some ten milliseconds

        Raises RuntimeError without turbovec.
        """
        dimension = sample.shape[1]
        fitted = _wide_enough(_units(sample))
        index = _empty_index(fitted.shape[1])
        _fit(index, fitted)
        pause()
        rows = 0
        for block in blocks:
            for start in range(0, len(block), _BLOCK_ROWS):
                part = _wide_enough(_units(block[start : start + _BLOCK_ROWS]))
                index.add(part, chunk_size=0)
                rows += len(part)
                pause()
        epsilon = _error_of(fitted[:: max(1, len(fitted) // _ERROR_ROWS)]) * _ERRORS_MAX
        return cls(index, rows, dimension, epsilon, _guessed_depths(dimension))

    # What the derived store keeps.

    def values(self) -> dict[str, npt.NDArray[Any] | bytes]:
        """What of_values() makes the same codes from."""
        payload = self._index.to_bytes()
        return {
            "turbo": payload,
            "shape": np.array([_FORMAT, self.rows, self.dimension, _BITS], np.int64),
            "depths": np.array(self.depths, np.int64),
            "epsilon": np.array([self.epsilon], np.float64),
            "digest": _digest(payload),
        }

    @classmethod
    def of_values(
        cls, values: Mapping[str, npt.NDArray[Any] | bytes], rows: int, dimension: int
    ) -> TurboCodes:
        """The codes of a file of so many rows from what values() gave for it.

        Raises ValueError if they are damaged, of another file or written by a turbovec that this
        one does not understand, and RuntimeError without turbovec.
        """
        payload, shape, depths, epsilon, digest = (
            values.get(name) for name in ("turbo", "shape", "depths", "epsilon", "digest")
        )
        if not isinstance(payload, bytes) or digest != _digest(payload):
            raise ValueError("the codes do not match their checksum")
        if not _is_shape(shape, rows, dimension):
            raise ValueError(f"these are not the codes of {rows} rows of {dimension} dimensions")
        if not are_depths(depths) or not _is_epsilon(epsilon):
            raise ValueError("the depths or the epsilon of the codes make no sense")
        assert isinstance(depths, np.ndarray) and isinstance(epsilon, np.ndarray)
        index = _turbovec().TurboQuantIndex.from_bytes(payload)
        found = (len(index), index.dim, index.bit_width)
        wanted = (rows, _wide_dimension(dimension), _BITS)
        if found != wanted:
            raise ValueError(f"there are codes of (rows, dimension, bits) {found}, not {wanted}")
        pairs = tuple((limit, depth) for limit, depth in depths.tolist())
        return cls(index, rows, dimension, float(epsilon[0]), pairs)

    @property
    def resident_bytes(self) -> int:
        """Memory that the codes take: a nibble a dimension and a float32 a row. A search takes some
        ten bytes a row more while it runs."""
        return bytes_of(self.rows, self.dimension)

    @property
    def mapped_bytes(self) -> int:
        return 0

    def prepare(self) -> None:
        """Let the first search be as fast as the others: it would arrange the codes anew, which
        takes 20 ms at 100,000 rows and 0.4 s at 1,000,000."""
        self._index.prepare()
        query = np.zeros((1, self._index.dim), np.float32)
        query[0, 0] = 1.0
        self._index.search(query, 1)

    def rely_on(self, recall_target: float, depths: Depths) -> None:
        """Search so deep from now on, and under filters as deep as errors of normal distribution
        make it necessary for that recall."""
        self.depths = depths
        deviations = NormalDist().inv_cdf(1.0 - (1.0 - recall_target) / 4)
        self.margin = self.epsilon * min(1.0, deviations / _ERRORS_MAX)

    # Candidates.

    def depth(self, limit: int) -> int:
        """How many of the best by the codes hold the `limit` best, up to the recall wanted."""
        return min(self.rows, depth_for(self.depths, limit))

    def candidates(
        self,
        direction: Floats32,
        limit: int,
        bound: float = _NO_BOUND,
        visible: Visible | None = None,
    ) -> Rows:
        """Rows, ascending, that may be among the `limit` best visible ones by cosine with
        `direction`, a float32 vector of length 1.

        bound     a cosine which that many rows have reached elsewhere: worse ones are of no use
        visible   which of some rows may be seen; None: all
        """
        wanted = self.depth(limit)
        if limit <= 0:
            return np.empty(0, np.int64)
        if self.rows <= max(wanted, self._few):
            return self._all(visible)
        queries, floor = _wide_enough(direction[np.newaxis]), bound - self.epsilon
        margin, depth = 0.0, wanted
        if visible is not None:
            margin, depth = self.margin, _with_spare(wanted, 1.0)
        while True:
            scores, slots = self._index.search(queries, depth)
            may_be_more = slots.shape[1] == depth and bool(scores[0, -1] >= floor)
            score, found = self._seen(scores[0], slots[0], floor, visible)
            is_enough = found.size >= wanted
            if not may_be_more or (is_enough and not _is_close(score, limit, margin, depth)):
                return _ascending(score, found, limit, max(wanted, limit), margin)
            share = found.size / depth
            if is_enough:
                depth *= 4
            elif share < _MASK_SHARE_MAX:
                return self._of_mask(queries, limit, floor, self._all(visible))
            else:
                depth = max(2 * depth, _with_spare(wanted, share))

    def among(self, direction: Floats32, limit: int, bound: float, rows: Rows) -> Rows:
        """The same, of these rows only, which ascend."""
        if limit <= 0 or rows.size <= max(self._few, self.rows * _MASK_SHARE_MAX):
            queries = _wide_enough(direction[np.newaxis])
            return self._of_mask(queries, max(0, limit), bound - self.epsilon, rows)
        return self.candidates(direction, limit, bound, self._mask(rows).take)

    def _of_mask(self, queries: Floats32, limit: int, floor: float, rows: Rows) -> Rows:
        """Candidates among these rows, for one query."""
        depth = self.depth(limit) if limit else 0
        if not depth or rows.size <= max(depth, self._few):
            return rows if limit else rows[:0]
        mask, margin, wanted = self._mask(rows), self.margin, depth
        depth = _with_spare(wanted, 1.0)
        while True:
            scores, slots = self._index.search(queries, depth, mask=mask)
            if slots.shape[1] < depth or not _is_close(scores[0], limit, margin, depth):
                useful = int(np.searchsorted(-scores[0], -floor, "right"))
                score, found = scores[0, :useful], slots[0, :useful]
                return _ascending(score, found, limit, wanted, margin)
            depth *= 4

    def candidates_many(
        self,
        directions: Floats32,
        limit: int,
        bounds: Floats32 | None = None,
        visible: Visible | None = None,
    ) -> Rows:
        """The candidates of each of the directions (q, dimension), as a (q, n) array: best first by
        the codes, then -1. So the caller can score them all at once: take() and vecdot()."""
        if limit <= 0 or not len(directions):
            return np.empty((len(directions), 0), np.int64)
        wanted = self.depth(limit)
        if self.rows <= max(wanted, self._few):
            return np.tile(self._all(visible), (len(directions), 1))
        depth = min(wanted if visible is None else _with_spare(wanted, 1.0), self.rows)
        scores, slots = self._index.search(_wide_enough(directions), depth)
        if bounds is None:
            bounds = np.full(len(directions), _NO_BOUND, np.float32)
        is_useful = scores >= (bounds - np.float32(self.epsilon))[:, np.newaxis]
        is_short = is_useful[:, -1].copy() & (depth < self.rows)  # there may be more
        keep = is_useful
        if visible is not None:
            keep = is_useful & visible(slots.ravel()).reshape(slots.shape)
        margin = 0.0 if visible is None else self.margin
        is_short &= (keep.sum(axis=1) < wanted) | _are_close(scores, keep, limit, margin)
        found = np.where(keep, slots, -1)
        if not is_short.any():
            return found
        again = {
            at: self.candidates(directions[at], limit, float(bounds[at]), visible)
            for at in is_short.nonzero()[0].tolist()
        }
        longest = max(depth, max(rows.size for rows in again.values()))
        wide = np.full((len(directions), longest), -1, np.int64)
        wide[:, :depth] = found
        for at, rows in again.items():
            wide[at] = -1
            wide[at, : rows.size] = rows
        return wide

    # Calibration.

    def calibrate(
        self, queries: Floats32, truths: Mapping[int, Rows], recall_target: float
    ) -> Depths:
        """The depths at which the true nearest neighbours are found, up to the recall wanted.

        queries   (m, dimension), of length 1
        truths    for some limits, the rows (m, limit) which an exact search finds; -1: none

        Changes nothing: the result can become `depths`. It says what is true of these queries; how
        sure that is of others, those can tell that were not asked here.
        """
        wide = _wide_enough(queries)
        return tuple(
            (limit, self._depth_found(wide, truths[limit], recall_target))
            for limit in sorted(truths)
        )

    def _depth_found(self, queries: Floats32, truth: Rows, recall_target: float) -> int:
        """The least depth, or little more, at which a search finds that share of the truth."""
        is_row = truth >= 0
        depth = min(self.rows, 2 * truth.shape[1] + 64)
        while True:
            scores, slots = self._index.search(queries, depth)
            ranks = ranks_of(scores, slots, truth)[is_row]
            if depth >= self.rows or not ranks.size or np.mean(ranks < depth) >= recall_target:
                break
            depth = min(self.rows, 2 * depth)
        depth = depth_of(ranks, recall_target)  # at least: so deep a search may have found more
        while depth < self.rows and ranks.size:
            scores, slots = self._index.search(queries, depth)
            ranks = ranks_of(scores, slots, truth)[is_row]
            if np.mean(ranks < depth) >= recall_target - 1e-9:
                break
            depth = min(self.rows, depth + depth // 8 + 1)
        return depth

    def _all(self, visible: Visible | None) -> Rows:
        rows = np.arange(self.rows, dtype=np.int64)
        return rows if visible is None else rows[visible(rows)]

    def _mask(self, rows: Rows) -> Mask:
        mask = np.zeros(self.rows, np.bool_)
        mask[rows] = True
        return mask

    @property
    def _few(self) -> int:
        """So many rows are all candidates: to score them exactly costs less than any search."""
        return max(_FEW_ROWS, self.rows // _FEW_SHARE)

    def _seen(
        self, scores: Floats32, rows: Rows, floor: float, visible: Visible | None
    ) -> tuple[Floats32, Rows]:
        """Of what was found, best first: those that are useful and visible."""
        if scores[-1] < floor:
            useful = int(np.searchsorted(-scores, -floor, "right"))
            scores, rows = scores[:useful], rows[:useful]
        if visible is not None:
            is_visible = visible(rows)
            scores, rows = scores[is_visible], rows[is_visible]
        return scores, rows


def _turbovec() -> ModuleType:
    module = _loaded()
    if module is None:
        raise RuntimeError("turbovec 1.1 or newer is not installed")
    return module


def _empty_index(dimension: int) -> Any:
    return _turbovec().TurboQuantIndex(dimension, _BITS)


def _fit(index: Any, sample: Floats32) -> None:
    """Fit the levels to a sample. What is all alike has no spread to fit anything to: turbovec
    says so, and the levels stay what they are."""
    if len(sample) > 1 and bool((sample != sample[0]).any()):
        try:
            index.calibrate(sample)
        except ValueError:
            if index.calibration_state != "uncalibrated":
                raise


def _error_of(sample: Floats32) -> float:
    """The root mean square of (score - cosine) between the vectors of a sample."""
    if len(sample) < 2:
        return _EPSILON_DEFAULT / _ERRORS_MAX
    index = _empty_index(sample.shape[1])
    _fit(index, sample)
    index.add(np.ascontiguousarray(sample), chunk_size=0)
    queries = sample[:: max(1, len(sample) // _ERROR_QUERIES)]
    scores, slots = index.search(np.ascontiguousarray(queries), len(sample))
    errors = scores - np.take_along_axis(queries @ sample.T, slots, axis=1)
    return float(np.sqrt(np.mean(np.square(errors, dtype=np.float64))))


def _guessed_depths(dimension: int) -> Depths:
    """Enough for all that was measured: up to 1,000,000 rows, real and random ones."""
    if dimension < 32:
        return tuple((limit, 4 * limit + 160) for limit in LIMITS)
    return tuple((limit, 2 * limit + 40) for limit in LIMITS)


def _with_spare(wanted: int, share: float) -> int:
    """How deep to look for so many rows if that share of them is visible."""
    return int((2 * wanted + 8) / share)


def _is_close(scores: Floats32, limit: int, margin: float, depth: int) -> bool:
    """Whether the last of the scores, which fall, is so close to the one that decides that a row
    which is not among them may still be better."""
    if scores.size < limit or depth >= _DEEP_MAX:
        return False
    return bool(scores[-1] >= scores[limit - 1] - margin)


def _are_close(scores: Floats32, keep: Mask, limit: int, margin: float) -> Mask:
    """The same for each query, where the one that decides is the limit-th of those to keep."""
    is_deciding = (keep.cumsum(axis=1) == limit) & keep
    deciding = np.where(is_deciding, scores, np.inf).min(axis=1)
    close: Mask = scores[:, -1] >= deciding - margin
    return close


def _ascending(scores: Floats32, rows: Rows, limit: int, least: int, margin: float) -> Rows:
    """The rows, ascending, without those that lie farther than the margin below the one that
    decides; but at least so many."""
    if rows.size > least:
        useful = int(np.searchsorted(-scores, margin - scores[limit - 1], "right"))
        rows = rows[: max(least, useful)]
    found = rows.copy()
    found.sort()
    return found


def _wide_dimension(dimension: int) -> int:
    return -(-dimension // _DIMENSION_STEP) * _DIMENSION_STEP


def _wide_enough(vectors: Floats32) -> Floats32:
    """The vectors with zeros behind them, contiguous, as turbovec wants them."""
    missing = _wide_dimension(vectors.shape[1]) - vectors.shape[1]
    if missing:
        vectors = np.pad(vectors, ((0, 0), (0, missing)))
    return np.ascontiguousarray(vectors, dtype=np.float32)


def _units(vectors: Floats32) -> Floats32:
    """The vectors at length 1; zeros stay zeros."""
    with np.errstate(all="ignore"):
        norms = np.sqrt(np.vecdot(vectors, vectors))
        scaled: Floats32 = vectors / norms[:, np.newaxis]
    extreme = (~((norms > _NORM_MIN) & (norms < _NORM_MAX))).nonzero()[0]
    if extreme.size:
        wide = vectors[extreme].astype(np.float64)
        lengths = np.sqrt(np.vecdot(wide, wide))
        lengths[lengths == 0.0] = 1.0
        scaled[extreme] = wide / lengths[:, np.newaxis]
    return scaled


def _digest(payload: bytes) -> bytes:
    return xxhash.xxh3_128_digest(payload)


def _is_shape(value: object, rows: int, dimension: int) -> bool:
    wanted = [_FORMAT, rows, dimension, _BITS]
    return isinstance(value, np.ndarray) and value.tolist() == wanted


def _is_epsilon(value: object) -> bool:
    return (
        isinstance(value, np.ndarray)
        and value.dtype == np.float64
        and value.shape == (1,)
        and 0.0 <= float(value[0]) < np.inf
    )
