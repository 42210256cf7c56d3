"""Builds the codes of a vector file."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from engramdb.index.codes.axes import principal_axes
from engramdb.index.codes.clusters import ClusterCodes
from engramdb.index.codes.kmeans import centres_of, nearest
from engramdb.lsm.container import rows_per_part

Floats32 = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]
Take = Callable[[Rows], Floats32]

SEED: Final = 5
_SAMPLE_FOR_AXES: Final = 16_384
_ROWS_PER_CENTRE: Final = 24
_CLUSTERS_PER_ROOT: Final = 3.5
_BLOCK_ROWS: Final = 2048
_NEAR_SHARE: Final = 8  # one row in so many is near what was asked,
_TIMES_MORE: Final = 3  # and counts so many times more


class Built(NamedTuple):
    """Everything of ClusterCodes but the codes, which `parts` makes: in the order of their places,
    some thousands at a time, so that they need not be in memory together."""

    axes: Floats32
    width: int
    centres: Floats32
    spread: Floats32
    starts: npt.NDArray[np.int64]
    order: npt.NDArray[np.int32]
    take: Take

    def parts(self, pause: Callable[[], None]) -> Iterator[Floats32]:
        """(m, width) float32, one part after the other, as ContainerWriter.matrix() wants them."""
        first = np.ascontiguousarray(self.axes[:, : self.width])
        rows = len(self.order)
        step = rows_per_part(self.width)
        for start in range(0, rows, step):
            stop = min(start + step, rows)
            part = np.empty((stop - start, self.width), np.float32)
            for at in range(start, stop, _BLOCK_ROWS):
                some = self.order[at : min(at + _BLOCK_ROWS, stop)].astype(np.int64)
                np.dot(self.take(some), first, out=part[at - start : at - start + len(some)])
                pause()
            yield part

    def codes(self, pause: Callable[[], None]) -> ClusterCodes:
        """All in memory."""
        codes = np.concatenate(list(self.parts(pause)))
        return ClusterCodes(self.axes, self.centres, self.spread, self.starts, self.order, codes)


def build(rows: int, take: Take, pause: Callable[[], None], queries: Floats32) -> Built:
    """Codes of `rows` unit vectors.

    take     gives (n, d) of them, by their numbers
    pause    is called every few milliseconds of work, so that others can have the machine
    queries  (q, d) of unit length that were asked: axes and clusters are made to suit them
    """
    generator = np.random.default_rng(SEED)
    count = min(rows, max(1, round(_CLUSTERS_PER_ROOT * math.sqrt(rows))))
    size = min(rows, max(_ROWS_PER_CENTRE * count, _SAMPLE_FOR_AXES))
    chosen = np.sort(generator.choice(rows, size, replace=False))
    sample = _in_blocks(chosen, take, pause)
    part = sample[generator.permutation(size)[:_SAMPLE_FOR_AXES]]
    if len(queries):
        part = np.concatenate((part, queries))
        sample = np.concatenate((sample, *[_near(sample, queries)] * _TIMES_MORE))
    axes, width = principal_axes(part)
    axes = np.ascontiguousarray(axes[:, : 2 * width])
    first = np.ascontiguousarray(axes[:, :width])
    pause()
    along = sample @ first
    del sample, part  # they are large
    centres = centres_of(along, count, generator, pause)
    del along
    cluster = np.empty(rows, np.int32)
    sums = np.zeros((count, axes.shape[1]), np.float64)
    squares = np.zeros(count, np.float64)
    for start in range(0, rows, _BLOCK_ROWS):
        block = take(np.arange(start, min(start + _BLOCK_ROWS, rows)))
        along = block @ axes
        mine = nearest(np.ascontiguousarray(along[:, :width]), centres, pause)
        cluster[start : start + len(block)] = mine
        order = np.argsort(mine, kind="stable")
        found, begins = np.unique(mine[order], return_index=True)
        sums[found] += np.add.reduceat(along[order], begins, axis=0)
        squares += np.bincount(mine, np.vecdot(block, block), count)
    sizes = np.bincount(cluster, minlength=count)
    means = sums / np.maximum(sizes, 1)[:, None]
    spread = np.sqrt(np.maximum(squares / np.maximum(sizes, 1) - np.vecdot(means, means), 0.0))
    return Built(
        axes,
        width,
        means.astype(np.float32),
        spread.astype(np.float32),
        np.concatenate(([0], np.cumsum(sizes))),
        np.argsort(cluster, kind="stable").astype(np.int32),
        take,
    )


def _near(sample: Floats32, queries: Floats32) -> Floats32:
    """The part of the sample that is nearest to any of the queries: where the clusters shall be
    finer."""
    best = np.full(len(sample), -np.inf, np.float32)
    for start in range(0, len(sample), _BLOCK_ROWS):
        block = sample[start : start + _BLOCK_ROWS]
        (block @ queries.T).max(axis=1, out=best[start : start + len(block)])
    count = max(1, len(sample) // _NEAR_SHARE)
    nearest_ones: Floats32 = sample[np.argpartition(best, len(best) - count)[-count:]]
    return nearest_ones


def _in_blocks(rows: Rows, take: Take, pause: Callable[[], None]) -> Floats32:
    first = take(rows[:_BLOCK_ROWS])
    found = np.empty((len(rows), first.shape[1]), np.float32)
    found[: len(first)] = first
    for start in range(_BLOCK_ROWS, len(rows), _BLOCK_ROWS):
        found[start : start + _BLOCK_ROWS] = take(rows[start : start + _BLOCK_ROWS])
        pause()
    return found
