"""What was loaded after what: a first-order Markov model, as arrays of a bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import filterfalse
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt

from engramdb.lsm.derived import Values
from engramdb.lsm.keys import KeyMatrix, Rows, from_list, to_list

Mask = npt.NDArray[np.bool_]
Ids = npt.NDArray[np.int32]
Weights = npt.NDArray[np.float32]

MEMORIES_MAX: Final = 65_536
SUCCESSORS: Final = 4
"""That are kept of each memory: those that came most often, the latest counting most."""
DECAY: Final = 0.9
"""What is left of a count each time that the same memory is left again: about ten times are
remembered. What is never left does not fade."""
DOUBT: Final = 0.5
"""Is added to the times that a memory was left: what was seen once has a probability of 2/3."""
_NONE: Final = -1
_CAPACITY_MIN: Final = 256


class Transitions:
    """The probability that one memory is loaded right after another, as far as it was seen.

    Of each memory four successors at most are kept: its times of being left, decayed, are its
    weight, and each successor has its share of that. Of more than `memories_max` memories the half
    that was seen last stays. Not thread-safe.
    """

    def __init__(self, memories_max: int = MEMORIES_MAX) -> None:
        self._memories_max = memories_max
        self._keys: list[bytes] = []
        self._id_of: dict[bytes, int] = {}  # the row of each
        self._tick = 0
        self._allocate(_CAPACITY_MIN)

    def _allocate(self, capacity: int) -> None:
        self._successors: Ids = np.full((capacity, SUCCESSORS), _NONE, np.int32)
        self._weights: Weights = np.zeros((capacity, SUCCESSORS), np.float32)
        self._left: Weights = np.zeros(capacity, np.float32)
        self._seen: Rows = np.zeros(capacity, np.int64)

    def __len__(self) -> int:
        return len(self._keys)

    def keys(self) -> KeyMatrix:
        """The memories, (n, 16) uint8."""
        return from_list(self._keys)

    # Learning

    def learn(self, sources: list[bytes], targets: list[bytes]) -> None:
        """Count that each target was loaded right after its source; in the order of time."""
        most = max(1, self._memories_max // 4)  # or one call would bring more than there is room
        for start in range(0, len(sources), most):
            self._learn(sources[start : start + most], targets[start : start + most])

    def _learn(self, sources: list[bytes], targets: list[bytes]) -> None:
        self._make_rows(sources, targets)
        id_of = self._id_of.__getitem__
        source = np.fromiter(map(id_of, sources), np.int64, len(sources))
        target = np.fromiter(map(id_of, targets), np.int64, len(targets))
        self._tick += 1
        self._seen[source] = self._seen[target] = self._tick
        moved = source != target
        source, target = source[moved], target[moved]
        if len(source):
            self._add(source, target)

    def _add(self, source: Rows, target: Rows) -> None:
        order = np.argsort(source, kind="stable")
        source, target = source[order], target[order]
        begins = _begins(source)
        touched = source[begins]
        sizes = np.diff(np.append(begins, len(source)))
        # how often its source was left after it, within these
        later = np.repeat(begins + sizes, sizes) - 1 - np.arange(len(source))
        share = DECAY ** later.astype(np.float64)
        fade = DECAY ** sizes.astype(np.float64)
        left = self._left[touched] * fade + np.add.reduceat(share, begins)
        group = np.repeat(np.arange(len(touched)), sizes)
        known = np.repeat(np.arange(len(touched)), SUCCESSORS)
        groups = np.concatenate((known, group))
        successors = self._successors[touched].ravel().astype(np.int64)
        targets = np.concatenate((successors, target))
        weights = np.concatenate(((self._weights[touched] * fade[:, None]).ravel(), share))
        groups, targets, weights = _summed(groups, targets, weights)
        # the four heaviest of each, of equals that with the lower id
        order = np.lexsort((targets, -weights, groups))
        groups, targets, weights = groups[order], targets[order], weights[order]
        starts = _begins(groups)
        counts = np.diff(np.append(starts, len(groups)))
        place = np.arange(len(groups)) - np.repeat(starts, counts)
        kept = place < SUCCESSORS
        new_ids = np.full((len(touched), SUCCESSORS), _NONE, np.int32)
        new_weights = np.zeros((len(touched), SUCCESSORS), np.float32)
        new_ids[groups[kept], place[kept]] = targets[kept]
        new_weights[groups[kept], place[kept]] = weights[kept]
        self._successors[touched], self._weights[touched] = new_ids, new_weights
        self._left[touched] = left

    def _make_rows(self, sources: list[bytes], targets: list[bytes]) -> None:
        """A row for each memory that has none; the longest unseen ones make room."""
        fresh = list(filterfalse(self._id_of.__contains__, dict.fromkeys(sources + targets)))
        count = len(self)
        if count and count + len(fresh) > self._memories_max:
            self._keep_latest(min(count, self._memories_max // 2))
            fresh = list(filterfalse(self._id_of.__contains__, dict.fromkeys(sources + targets)))
            count = len(self)
        wanted = count + len(fresh)
        if wanted > len(self._left):
            more = max(_CAPACITY_MIN, 3 * wanted // 2) - len(self._left)
            none = np.full((more, SUCCESSORS), _NONE, np.int32)
            self._successors = np.concatenate((self._successors, none))
            self._weights = np.concatenate((self._weights, np.zeros_like(none, np.float32)))
            self._left = np.concatenate((self._left, np.zeros(more, np.float32)))
            self._seen = np.concatenate((self._seen, np.zeros(more, np.int64)))
        self._id_of.update(zip(fresh, range(count, wanted), strict=True))
        self._keys += fresh

    def _keep_latest(self, count: int) -> None:
        seen = self._seen[: len(self)]
        kept = np.zeros(len(seen), np.bool_)
        kept[np.argsort(-seen, kind="stable")[:count]] = True
        self._keep(kept)

    def _keep(self, kept: Mask) -> None:
        """Forget the memories of the other rows, as sources and as targets."""
        rows = np.flatnonzero(kept)
        moved = np.full(len(kept) + 1, _NONE, np.int32)  # the last one: where there is none
        moved[rows] = np.arange(len(rows), dtype=np.int32)
        keys = [self._keys[row] for row in rows.tolist()]
        successors = moved[self._successors[rows]]
        weights = np.where(successors == _NONE, np.float32(0), self._weights[rows])
        left, seen = self._left[rows], self._seen[rows]
        self._allocate(max(_CAPACITY_MIN, len(rows)))
        self._successors[: len(rows)], self._weights[: len(rows)] = successors, weights
        self._left[: len(rows)], self._seen[: len(rows)] = left, seen
        self._keys, self._id_of = keys, dict(zip(keys, range(len(rows)), strict=True))

    # Guessing

    def after(self, key: bytes) -> list[tuple[bytes, float]]:
        """What was loaded right after a memory, and how probable that is; the likeliest first."""
        row = self._id_of.get(key)
        if row is None:
            return []
        return [(self._keys[at], share) for at, share in self._after(row)]

    def ahead(self, key: bytes, count: int, probability_min: float) -> list[bytes]:
        """What is likely to be loaded soon after a memory: at most so many, the likeliest first.

        The probability of a way is the product of those of its steps. Steps are followed as long
        as it is at least `probability_min`, which is above 0.
        """
        row = self._id_of.get(key)
        if row is None:
            return []
        found = {row: 1.0}
        reached = [(1.0, row)]
        while reached and len(found) <= count:
            reached.sort()  # some four entries
            before, at = reached.pop()
            if before < found[at]:
                continue
            for following, share in self._after(at):
                probability = before * share
                if probability >= probability_min and probability > found.get(following, 0.0):
                    found[following] = probability
                    reached.append((probability, following))
        del found[row]
        listed = sorted(found, key=lambda each: (-found[each], each))[:count]
        return [self._keys[each] for each in listed]

    def _after(self, row: int) -> list[tuple[int, float]]:
        times = float(self._left[row]) + DOUBT
        return [
            (following, weight / times)
            for following, weight in zip(
                self._successors[row].tolist(), self._weights[row].tolist(), strict=True
            )
            if following != _NONE
        ]

    # Keeping

    def where(self, kept: Mask) -> None:
        """Forget the memories of all other rows; see keys()."""
        self._keep(kept)

    def forget(self, keys: list[bytes]) -> None:
        """Forget these memories."""
        kept = np.ones(len(self), np.bool_)
        kept[[self._id_of[key] for key in keys if key in self._id_of]] = False
        self._keep(kept)

    def values(self) -> Values:
        """For the store of derived data."""
        count = len(self)
        return {
            "keys": self.keys(),
            "successors": self._successors[:count],
            "weights": self._weights[:count],
            "left": self._left[:count],
            "seen": self._seen[:count],
        }

    @classmethod
    def of_values(cls, values: Mapping[str, object]) -> Transitions | None:
        """What values() gave, or None if it cannot have given this."""
        arrays = [values.get(name) for name in ("keys", "successors", "weights", "left", "seen")]
        if len(values) != 5 or not _have_shape(arrays):
            return None
        keys, successors, weights, left, seen = cast("list[npt.NDArray[Any]]", arrays)
        count = len(keys)
        if count > MEMORIES_MAX or not _are_sound(successors, weights, left, seen):
            return None
        made = cls()
        made._keys = to_list(keys)
        made._id_of = dict(zip(made._keys, range(count), strict=True))
        if len(made._id_of) != count:
            return None
        made._tick = int(seen.max(initial=0))
        made._allocate(max(_CAPACITY_MIN, count))
        made._successors[:count], made._weights[:count] = successors, weights
        made._left[:count], made._seen[:count] = left, seen
        return made


def _begins(groups: npt.NDArray[Any]) -> Rows:
    """Where runs of the same value begin."""
    return np.flatnonzero(np.concatenate(([True], groups[1:] != groups[:-1])))


def _summed(
    groups: Rows, targets: Rows, weights: npt.NDArray[np.float64]
) -> tuple[Rows, Rows, npt.NDArray[np.float64]]:
    """Each target once in its group, with the sum of its weights; without those that are none."""
    there = targets != _NONE
    order = np.lexsort((targets[there], groups[there]))
    groups, targets, weights = groups[there][order], targets[there][order], weights[there][order]
    starts = np.flatnonzero(
        np.concatenate(([True], (groups[1:] != groups[:-1]) | (targets[1:] != targets[:-1])))
    )
    return groups[starts], targets[starts], np.add.reduceat(weights, starts)


def _have_shape(arrays: list[Any]) -> bool:
    """Whether these can be the keys, successors, weights, ... of n memories."""
    if not all(isinstance(each, np.ndarray) and each.ndim for each in arrays):
        return False
    count = len(arrays[0])
    shapes = (count, 16), (count, SUCCESSORS), (count, SUCCESSORS), (count,), (count,)
    kinds = np.uint8, np.int32, np.float32, np.float32, np.int64
    return all(
        each.shape == shape and each.dtype == kind
        for each, shape, kind in zip(arrays, shapes, kinds, strict=True)
    )


def _are_sound(successors: Ids, weights: Weights, left: Weights, seen: Rows) -> bool:
    """Whether these can be those of a table: no row is out of reach, no weight is none."""
    if not len(left):
        return True
    return bool(
        successors.min() >= _NONE
        and successors.max() < len(left)
        and np.isfinite(weights).all()
        and np.isfinite(left).all()
        and weights.min() >= 0
        and left.min() >= 0
        and seen.min() >= 0
        and seen.max() < 2**62
    )
